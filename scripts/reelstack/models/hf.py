"""Video models of transformers: VideoMAE, V-JEPA 2, TimeSformer, ViViT and X-CLIP.

Tong et al., NeurIPS 2022; Assran et al., 2025; Bertasius et al., ICML 2021; Arnab et al., ICCV
2021; Ni et al., ECCV 2022. Checkpoints are repositories of the Hugging Face Hub or local folders
with `config.json`, a preprocessor's configuration and safetensors; code in them is never run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)
from transformers.utils.logging import disable_progress_bar
from typing_extensions import override

from reelstack.errors import ConfigError, WeightsError
from reelstack.models.base import Extractor, Inputs
from reelstack.models.entry import ModelEntry
from reelstack.models.hub import with_safetensors

OUTPUTS = ("pooled", "tokens")

_UNUSED = re.compile(r"(\w+\.)?(pooler\.dense|predictor)\..*")
"""Weights that no output here depends on: ViViT's pooler, V-JEPA 2's predictor."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Architecture:
    """How an architecture names and treats its number of frames.

    Attributes:
        frames: the configuration's key.
        section: the part of the configuration that has it; None: the top.
        other_lengths: "no" where positions are learned for one length, "config" where the network
            is built for the length in its configuration, "any" where it adapts by itself.
    """

    frames: str = "num_frames"
    section: str | None = None
    other_lengths: str = "no"


ARCHITECTURES: Mapping[str, Architecture] = {
    "videomae": Architecture(other_lengths="config"),
    "vjepa2": Architecture("frames_per_clip", other_lengths="config"),
    "timesformer": Architecture(other_lengths="any"),
    "vivit": Architecture(),
    "xclip": Architecture(section="vision_config"),
}
"""By `model_type` in `config.json`."""


class HuggingFaceExtractor(Extractor):
    """Windows of `num_frames` frames, preprocessed as the repository says.

    Features are, by `output`:
        "pooled": (B, D), what the model's classifier reads; without a classifier the mean of all
            tokens; of X-CLIP the video embedding.
        "tokens": (B, tokens, C), the last hidden state; of X-CLIP those of all frames in a row.
            They have no predictions.
    """

    head = "classifier"
    final: nn.Module | None = None

    def __init__(
        self, entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        super().__init__(entry, streams, settings)
        if settings["output"] not in OUTPUTS:
            raise ConfigError(f"output is {settings['output']!r}; allowed: {', '.join(OUTPUTS)}")

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        disable_progress_bar()  # loading takes a moment, and a job's log is no screen
        folder = with_safetensors(weights["rgb"])
        kind = model_type(folder, self.entry.name)
        try:
            config = AutoConfig.from_pretrained(folder, **_LOCAL)
            self.stack_size = frames_per_window(config, self.stack_size, self.entry.name)
            self.processor = AutoVideoProcessor.from_pretrained(folder, **_LOCAL)
            network = load_network(folder, config)
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise WeightsError(f"{folder} cannot be loaded as a {kind}: {error}") from error
        if hasattr(network, "classifier"):
            self.class_names = class_names_of(config)
            self.final = network.classifier.eval().to(self.device)
            network.classifier = nn.Identity()
        self.networks = {"rgb": self.prepare(network, torch.contiguous_format)}

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        return {"rgb": self._processed(frames).to(self.device)}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        pixels = self._processed(frames, do_center_crop=False, do_rescale=False, do_normalize=False)
        return list(pixels.permute(0, 2, 3, 1).to(torch.uint8).numpy())

    def _processed(self, frames: NDArray[np.uint8], **options: bool) -> Tensor:
        """(N, H, W, 3) → (N, 3, h, w); each frame by itself, whatever the window."""
        inputs = self.processor(
            list(frames), do_sample_frames=False, return_tensors="pt", **options
        )
        (pixels,) = inputs.values()
        planes: Tensor = pixels[0]
        return planes

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        network: Any = self.networks["rgb"]
        with self.inference():
            if network.config.model_type == "xclip":
                features = self._xclip(network, windows["rgb"])
            elif self.settings["output"] == "pooled" and self.final is not None:
                features = network(windows["rgb"]).logits
            else:
                features = last_tokens(network, windows["rgb"])
                if self.settings["output"] == "pooled":
                    features = features.mean(1)
        return {"rgb": features.float()}

    def _xclip(self, network: Any, pixels: Tensor) -> Tensor:
        outputs = network.get_video_features(pixels)
        if self.settings["output"] == "pooled":
            pooled: Tensor = outputs.pooler_output
            return pooled
        tokens: Tensor = outputs.last_hidden_state
        return tokens.view(len(pixels), -1, tokens.shape[-1])

    @override
    def classify(self, features: Mapping[str, Tensor]) -> Tensor | None:
        if self.final is None or self.settings["output"] != "pooled":
            return None
        with torch.inference_mode():
            logits: Tensor = self.final(features["rgb"])
            return logits


_LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""What is in the folder, and never code from it."""


def model_type(folder: Path, model: str) -> str:
    """The architecture that a folder's `config.json` names.

    Raises:
        WeightsError: without a readable `config.json`.
        ConfigError: for an architecture that is not supported, with those that are.
    """
    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"model is {model!r}, whose model_type is {kind!r}; allowed: "
            f"{', '.join(ARCHITECTURES)} (video models). Image models are timm/… and clip/…"
        )
    return str(kind)


def frames_per_window(config: Any, asked: int | None, model: str) -> int:
    """The number of frames of a window; sets it in `config` where the network is built for it.

    Args:
        asked: the set's; None for the checkpoint's own.

    Raises:
        ConfigError: for a number that the network cannot read.
    """
    architecture = ARCHITECTURES[config.model_type]
    section = getattr(config, architecture.section) if architecture.section else config
    own = int(getattr(section, architecture.frames))
    if asked is None or asked == own:
        return own
    if architecture.other_lengths == "no":
        raise ConfigError(
            f"stack_size is {asked}; {model} allows only {own}: its position embeddings are "
            "learned for that number of frames"
        )
    if architecture.other_lengths == "config":
        tubelet = int(section.tubelet_size)
        if asked % tubelet:
            raise ConfigError(f"stack_size is {asked}; {model} allows multiples of {tubelet}")
        setattr(section, architecture.frames, asked)
    return asked


def load_network(folder: Path, config: Any) -> Any:
    """The model of a folder, with its classifier if the checkpoint has one; float32, on the CPU.

    Raises:
        WeightsError: if weights are missing or have another shape, listing them.
    """
    (name, *_) = config.architectures or [""]
    classifies = name.endswith("ForVideoClassification")
    family = AutoModelForVideoClassification if classifies else AutoModel
    network, report = family.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are listed below
        **_LOCAL,
    )
    missing = [key for key in report["missing_keys"] if not _UNUSED.fullmatch(key)]
    shapes = [
        f"{key} {tuple(found)} instead of {tuple(expected)}"
        for key, found, expected in report["mismatched_keys"]
    ]
    for kind, keys in (("missing", missing), ("wrong shape", shapes)):
        if keys:
            raise WeightsError(
                f"{folder} is not a complete {type(network).__name__}: {len(keys)} {kind}: "
                f"{', '.join(sorted(keys)[:8])}{' …' if len(keys) > 8 else ''}"
            )
    if report["unexpected_keys"]:
        _log.info("%s: not used: %s", folder, ", ".join(sorted(report["unexpected_keys"])))
    return network


def last_tokens(network: Any, pixels: Tensor) -> Tensor:
    """(B, T, 3, h, w) → the last hidden state (B, tokens, C)."""
    options = {"skip_predictor": True} if network.config.model_type == "vjepa2" else {}
    tokens: Tensor = network.base_model(pixels, **options).last_hidden_state
    return tokens


def class_names_of(config: Any) -> tuple[str, ...]:
    """The configuration's class names in order; empty where they are only numbered."""
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    numbered = tuple(f"LABEL_{index}" for index in range(config.num_labels))
    return () if names == numbered else names


def build(
    entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
) -> HuggingFaceExtractor:
    """The family's extractor for `entry`."""
    return HuggingFaceExtractor(entry, streams, settings)
