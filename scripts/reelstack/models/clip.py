"""CLIP's image encoder per frame, and zero-shot predictions from class names.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021;
checkpoints of OpenAI (TorchScript archives), networks of open_clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP, convert_weights_to_lp
from PIL import Image
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from reelstack.errors import ConfigError
from reelstack.models.base import FrameNetwork, Inputs
from reelstack.models.checkpoint import load_state, read_state_dict
from reelstack.models.entry import ModelEntry
from reelstack.models.images import resize, resize_crop, shorter_side

_SCALARS = "input_resolution|context_length|vocab_size"
"""Keys of the published files that are no weights."""

_PROMPTS = 64
"""Texts that are encoded together."""


class ClipExtractor(FrameNetwork):
    """Shorter side to the input size (PIL bicubic, uint8) → centre crop → normalise.

    Features are `encode_image`'s, not normalised: (B, D). Class names (`labels`) give logits of the
    cosine similarity to their prompts.
    """

    texts: Tensor
    scale: Tensor

    def __init__(
        self, entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        super().__init__(entry, streams, settings)
        if "{}" not in settings["prompt"]:
            raise ConfigError(
                f"prompt is {settings['prompt']!r}; allowed: a text with {{}} where the class "
                "name goes, such as 'a photo of {}'"
            )
        name = entry.name.removeprefix("clip/").replace("@336px", "-336")
        self.config = open_clip.get_model_config(name)
        self.size: int = self.config["vision_cfg"]["image_size"]

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> CLIP:
        return CLIP(**self.config, quick_gelu=True)

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        path = weights["rgb"]
        state = read_state_dict(path)
        network = self.build_network(state)
        load_state(network, state, path=path, model=self.entry.name, ignored=_SCALARS)
        # The published files hold these weights in half precision; one in float32 is rounded to
        # give what its published form would.
        convert_weights_to_lp(network, torch.float16)
        network = network.float().eval()
        if self.class_names:
            self.texts = self._encoded_prompts(network.to(self.device))
            self.scale = network.logit_scale.detach().exp()
        self.layout = self.memory_format()
        self.networks = {"rgb": self.prepare(network.visual, self.layout)}

    def _encoded_prompts(self, network: CLIP) -> Tensor:
        """(classes, D) float32, of length 1."""
        prompts = [self.settings["prompt"].replace("{}", name) for name in self.class_names]
        with torch.inference_mode():
            batches = [
                network.encode_text(tokens.to(self.device), normalize=True)
                for tokens in open_clip.tokenize(prompts).split(_PROMPTS)
            ]
        return torch.cat(batches)

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        crops = [resize_crop(f, self.size, self.size, Image.Resampling.BICUBIC) for f in frames]
        pixels = torch.from_numpy(np.stack(crops)).to(self.device).permute(0, 3, 1, 2)
        mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN, device=self.device).view(3, 1, 1)
        std = torch.tensor(open_clip.OPENAI_DATASET_STD, device=self.device).view(3, 1, 1)
        return {"rgb": (pixels.float() / 255 - mean) / std}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return [
            resize(f, shorter_side(f.shape, self.size), Image.Resampling.BICUBIC) for f in frames
        ]

    @override
    def classify(self, features: Mapping[str, Tensor]) -> Tensor | None:
        if not self.class_names:
            return None
        with torch.inference_mode():
            return self.scale * functional.normalize(features["rgb"], dim=1) @ self.texts.T


def build(entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]) -> ClipExtractor:
    """The family's extractor for `entry`."""
    return ClipExtractor(entry, streams, settings)
