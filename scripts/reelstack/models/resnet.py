"""ResNet-18/34/50/101/152 per frame, weights IMAGENET1K_V1 of torchvision.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import get_model
from typing_extensions import override

from reelstack.models.base import FrameNetwork, Inputs
from reelstack.models.entry import ModelEntry
from reelstack.models.images import resize, resize_crop, shorter_side

RESIZE = 256
CROP = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ResNetExtractor(FrameNetwork):
    """Shorter side to 256 (PIL bilinear, uint8) → centre crop 224 → normalise; pooled features."""

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        network: nn.Module = get_model(self.entry.name, weights=None)
        return network

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        crops = np.stack([resize_crop(frame, RESIZE, CROP) for frame in frames])
        pixels = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)
        mean = torch.tensor(MEAN, device=self.device).view(3, 1, 1)
        std = torch.tensor(STD, device=self.device).view(3, 1, 1)
        return {"rgb": (pixels.float() / 255 - mean) / std}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return [resize(frame, shorter_side(frame.shape, RESIZE)) for frame in frames]


def build(
    entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
) -> ResNetExtractor:
    """The family's extractor for `entry`."""
    return ResNetExtractor(entry, streams, settings)
