"""What every model family offers: load, preprocess, forward, classify."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from typing_extensions import override

from reelstack.errors import ConfigError
from reelstack.models.checkpoint import load_checkpoint
from reelstack.models.registry import ModelEntry

PRECISIONS = ("fp32", "bf16")


class Extractor(ABC):
    """A model that turns windows of frames into features.

    The verbs are called in this order; a family implements what differs.
    """

    def __init__(self, entry: ModelEntry) -> None:
        self.entry = entry
        self.device = torch.device("cpu")
        self.precision = "fp32"

    @abstractmethod
    def load(self, weights: Mapping[str, Path], *, device: str, precision: str) -> None:
        """Read the checkpoint of each component and move the model to `device`.

        Raises:
            WeightsError: if a checkpoint does not fit, listing the keys that differ.
        """

    @abstractmethod
    def preprocess(self, frames: NDArray[np.uint8]) -> Tensor:
        """(N, H, W, 3) uint8 RGB → (N, C, h, w) float32 on the model's device."""

    @abstractmethod
    def forward(self, windows: Tensor) -> dict[str, Tensor]:
        """(B, T, C, h, w) → stream name → (B, D) float32."""

    @abstractmethod
    def classify(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features as `forward` gives them → (B, classes) logits, float32."""


class SingleNetwork(Extractor):
    """A family whose models are one network ending in a linear `fc`, with one stream, `rgb`."""

    layout: torch.memory_format
    network: nn.Module
    classifier: nn.Module

    @abstractmethod
    def build_network(self) -> nn.Module:
        """The network with the parameter names of the published checkpoint."""

    @override
    def load(self, weights: Mapping[str, Path], *, device: str, precision: str) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is {precision!r}; allowed: {', '.join(PRECISIONS)}")
        network = self.build_network().eval()
        load_checkpoint(network, weights["rgb"], model=self.entry.name)
        self.classifier = network.get_submodule("fc").to(device)
        network.fc = nn.Identity()
        fold_batch_norm(network)
        self.device, self.precision = torch.device(device), precision
        self.layout = self.memory_format()
        self.network = network.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        exact_float32()

    def memory_format(self) -> torch.memory_format:
        """The layout of weights and inputs that this device computes fastest with."""
        return torch.channels_last

    @override
    def forward(self, windows: Tensor) -> dict[str, Tensor]:
        reduced = self.precision == "bf16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=reduced),
        ):
            features = self.network(self.arrange(windows))
        return {"rgb": features.float()}

    @abstractmethod
    def arrange(self, windows: Tensor) -> Tensor:
        """(B, T, C, h, w) → what the network takes."""

    @override
    def classify(self, features: Mapping[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.classifier(features["rgb"])
            return logits


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm into the convolution right before it, in place (inference only)."""
    previous_name, previous = "", None
    for name, child in list(module.named_children()):
        if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)) and previous is not None:
            owner, attribute, convolution = _last_convolution(module, previous_name, previous)
            if convolution is not None:
                setattr(owner, attribute, fuse_conv_bn_eval(convolution, child))
                setattr(module, name, nn.Identity())
                continue
        fold_batch_norm(child)
        previous_name, previous = name, child


def _last_convolution(
    owner: nn.Module, name: str, child: nn.Module
) -> tuple[nn.Module, str, nn.Conv2d | nn.Conv3d | None]:
    """The convolution whose output `child` returns unchanged, and where it hangs."""
    while isinstance(child, nn.Sequential) and len(child):
        owner, (name, child) = child, list(child.named_children())[-1]
    return owner, name, child if isinstance(child, (nn.Conv2d, nn.Conv3d)) else None


def exact_float32() -> None:
    """Switch TensorFloat-32 off: `fp32` means fp32 on every device."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
