"""What every model family offers: load, preprocess, forward, classify."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from reelstack.errors import ConfigError
from reelstack.models.checkpoint import load_state, read_state_dict
from reelstack.models.entry import ModelEntry
from reelstack.models.folding import fold_batch_norm
from reelstack.models.labels import published_names
from reelstack.models.layers import LayerTap

PRECISIONS = ("fp32", "bf16")

Inputs = dict[str, Tensor]
"""Name → what a network reads: per frame (N, …), in windows (B, T, …)."""


class Extractor(ABC):
    """A model that turns windows of frames into features.

    The verbs are called in this order; a family implements what differs.

    Attributes:
        head: name of the classifier; `load` takes it off, so that networks return the feature.
        extra_frames: frames that a window needs beyond `stack_size` (optical flow: 1).
        pairwise: whether `preprocess` uses the frame before (optical flow).
        channel_axis: of inner layers with 4 or more axes; those with 3 are (B, tokens, C).
        streams: what `forward` computes.
        settings: the set's, with the entry's defaults filled in.
        stack_size: frames per window that the set asks for; where it is None, `load` sets the
            checkpoint's own.
        class_names: of the classifier, in order; empty where none are published.
        networks: stream → network, whose inner layers `layer` can name; filled by `load`.
    """

    head: ClassVar[str] = ""
    extra_frames: ClassVar[int] = 0
    pairwise: ClassVar[bool] = False
    channel_axis: int = 1

    def __init__(
        self, entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        self.entry = entry
        self.streams = tuple(streams)
        self.settings = settings
        self.stack_size = entry.stack_size
        self.class_names = tuple(settings.get("labels") or published_names(entry))
        self.device = torch.device("cpu")
        self.precision = "fp32"
        self.networks: dict[str, nn.Module] = {}
        self._taps: dict[str, LayerTap] = {}

    def load(self, weights: Mapping[str, Path], *, device: str, precision: str) -> None:
        """Read the checkpoint of each component and move the model to `device`.

        Raises:
            WeightsError: if a checkpoint does not fit, listing the keys that differ.
            ConfigError: if the model has no such `layer`.
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is {precision!r}; allowed: {', '.join(PRECISIONS)}")
        self.device, self.precision = torch.device(device), precision
        exact_float32()
        self.load_networks(weights)
        if layer := self.settings["layer"]:
            if layer == self.head:
                raise ConfigError(
                    f"layer is {layer!r}, the classifier of {self.entry.name}: its outputs are the "
                    "predictions (top_k); allowed: a layer before it"
                )
            self._taps = {
                stream: LayerTap(self.networks, stream, layer, model=self.entry.name)
                for stream in self.streams
            }

    @abstractmethod
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        """Fill `networks` and what else the verbs need; `weights` maps component to file."""

    @abstractmethod
    def preprocess(self, frames: NDArray[Any], before: NDArray[np.uint8] | None = None) -> Inputs:
        """(N, H, W, 3) uint8 RGB → (N, …) float32 each, on the model's device.

        Args:
            frames: consecutive frames; of a sound model examples, see the family.
            before: the (H, W, 3) frame right before them, for pairwise extractors; None at the
                start of a video and after a gap.
        """

    @abstractmethod
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        """(B, T, …) each → stream name → (B, …) float32."""

    def classify(self, features: Mapping[str, Tensor]) -> Tensor | None:  # noqa: ARG002
        """Features as `forward` gives them → (B, classes) logits, float32; None without classes."""
        return None

    def outputs(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is stored of the last `forward`: its features, or the layer that the set names."""
        if not self._taps:
            return features
        count = len(next(iter(features.values())))
        pool, axis = self.settings["pool"], self.channel_axis
        return {
            stream: tap.pooled(count, pool, channel_axis=axis) for stream, tap in self._taps.items()
        }

    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The frames as the network reads them, before crop and normalisation: (h, w, 3) uint8."""
        return list(frames)

    def views(self, frames: NDArray[np.uint8]) -> Tensor:
        """Resized frames of a clip (T, h, w, 3) → (crops, T, C, h, w), for video-level features."""
        raise NotImplementedError(f"{self.entry.name} has no protocol of clips and crops")

    def prepare(self, network: nn.Module, layout: torch.memory_format) -> nn.Module:
        """For inference on the device: batch norm folded, weights in `layout`."""
        network.eval()
        if not self.settings["layer"]:  # a folded norm would be part of the layer before it
            fold_batch_norm(network)
        moved: nn.Module = network.to(self.device).to(memory_format=layout)  # type: ignore[call-overload]
        return moved

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients; reduced precision if it was asked for."""
        reduced = self.precision == "bf16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=reduced),
        ):
            yield


class SingleNetwork(Extractor):
    """A family whose models are one network with a classifier at its end, stream `rgb`."""

    head: ClassVar[str] = "fc"
    layout: torch.memory_format
    classifier: nn.Module

    @abstractmethod
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The network with the parameter names of the published checkpoint.

        Args:
            state: the checkpoint, for facts that only it knows.
        """

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        path = weights["rgb"]
        state = read_state_dict(path)
        network = self.build_network(state)
        load_state(network, state, path=path, model=self.entry.name, published=self.published_key)
        self.classifier = network.get_submodule(self.head).eval().to(self.device)
        network.set_submodule(self.head, nn.Identity())
        self.layout = self.memory_format()
        self.networks = {"rgb": self.prepare(network, self.layout)}

    def published_key(self, key: str) -> str:
        """The checkpoint's name of one of the network's parameters."""
        return key

    def memory_format(self) -> torch.memory_format:
        """The layout of weights and inputs that this device computes fastest with."""
        return torch.channels_last

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        with self.inference():
            features = self.networks["rgb"](self.arrange(windows["rgb"]))
        return {"rgb": features.float()}

    @abstractmethod
    def arrange(self, windows: Tensor) -> Tensor:
        """(B, T, C, h, w) → what the network takes."""

    @override
    def classify(self, features: Mapping[str, Tensor]) -> Tensor | None:
        with torch.inference_mode():
            logits: Tensor = self.classifier(features["rgb"])
            return logits


class ClipNetwork(SingleNetwork):
    """One 3D network over windows: (B, T, C, h, w) is read as (B, C, T, h, w)."""

    @override
    def memory_format(self) -> torch.memory_format:
        single = self.device.type == "cpu" and torch.get_num_threads() == 1
        # Measured, see docs/performance.md: a third faster with two threads, slower with one.
        return torch.contiguous_format if single else torch.channels_last_3d

    @override
    def arrange(self, windows: Tensor) -> Tensor:
        return windows.transpose(1, 2).contiguous(memory_format=self.layout)


class FrameNetwork(SingleNetwork):
    """One network that reads frames; a longer stack has the mean of its frames' features."""

    @override
    def arrange(self, windows: Tensor) -> Tensor:
        return windows.flatten(0, 1).contiguous(memory_format=self.layout)

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        features = super().forward(windows)["rgb"]
        return {"rgb": features.view(*windows["rgb"].shape[:2], *features.shape[1:]).mean(1)}


def exact_float32() -> None:
    """Switch TensorFloat-32 off: `fp32` means fp32 on every device."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
