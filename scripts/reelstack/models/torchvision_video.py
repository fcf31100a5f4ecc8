"""torchvision's video transformers MViT and Video Swin, and its own S3D; Kinetics-400.

Fan et al., "Multiscale Vision Transformers", ICCV 2021; Li et al., "MViTv2", CVPR 2022;
Liu et al., "Video Swin Transformer", CVPR 2022. S3D: see `reelstack.models.s3d`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.functional import resize
from typing_extensions import override

from reelstack.models.base import ClipNetwork, Inputs
from reelstack.models.entry import ModelEntry
from reelstack.models.s3d import S3DNetwork


class TorchvisionVideo(ClipNetwork):
    """The preprocessing that torchvision publishes with the weights; the classifier's input.

    That is: resize in uint8 (bilinear, not antialiased), centre crop 224, normalise.
    """

    head = "head"

    def __init__(
        self, entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        super().__init__(entry, streams, settings)
        weights = get_model_weights(entry.options["network"])[entry.options["weights"]]
        self._transform = weights.transforms()

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        network: nn.Module = get_model(self.entry.options["network"], weights=None)
        return network

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        return {"rgb": self._transform(self._planes(frames).to(self.device)).transpose(0, 1)}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        own = self._transform
        scaled: Tensor = resize(
            self._planes(frames), own.resize_size, interpolation=own.interpolation, antialias=False
        )
        return list(scaled.permute(0, 2, 3, 1).numpy())

    @staticmethod
    def _planes(frames: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).contiguous()


class TorchvisionSwin(TorchvisionVideo):
    """Video Swin: its stages and blocks return (B, T, H, W, C)."""

    channel_axis = -1


class TorchvisionS3D(TorchvisionVideo, S3DNetwork):
    """torchvision's S3D with torchvision's weights."""

    head = S3DNetwork.head


def build(
    entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
) -> TorchvisionVideo:
    """The family's extractor for `entry`."""
    network = entry.options["network"]
    if network == "s3d":
        return TorchvisionS3D(entry, streams, settings)
    kind = TorchvisionSwin if network.startswith("swin3d") else TorchvisionVideo
    return kind(entry, streams, settings)
