"""ResNet-18/34/50/101/152 per frame, weights IMAGENET1K_V1 of torchvision.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import get_model
from typing_extensions import override

from reelstack.models.base import SingleNetwork
from reelstack.models.registry import ModelEntry

RESIZE = 256
CROP = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ResNetExtractor(SingleNetwork):
    """Shorter side to 256 (PIL bilinear, uint8) → centre crop 224 → normalise; pooled features."""

    @override
    def build_network(self) -> nn.Module:
        network: nn.Module = get_model(self.entry.name, weights=None)
        return network

    @override
    def preprocess(self, frames: NDArray[np.uint8]) -> Tensor:
        crops = np.stack([_resized_crop(frame) for frame in frames])
        pixels = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)
        mean = torch.tensor(MEAN, device=self.device).view(3, 1, 1)
        std = torch.tensor(STD, device=self.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std

    @override
    def arrange(self, windows: Tensor) -> Tensor:
        # Frame-wise: a longer stack has the mean of its frames' features (see `forward`).
        return windows.flatten(0, 1).contiguous(memory_format=self.layout)

    @override
    def forward(self, windows: Tensor) -> dict[str, Tensor]:
        features = super().forward(windows)["rgb"]
        return {"rgb": features.view(*windows.shape[:2], -1).mean(1)}


def _resized_crop(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) → (224, 224, 3), uint8; sizes truncate as torchvision's `Resize` does."""
    height, width = frame.shape[:2]
    if width <= height:
        size = (RESIZE, int(RESIZE * height / width))
    else:
        size = (int(RESIZE * width / height), RESIZE)
    image = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - CROP) / 2), round((size[1] - CROP) / 2)
    return np.asarray(image.crop((left, top, left + CROP, top + CROP)))


def build(entry: ModelEntry) -> ResNetExtractor:
    """The family's extractor for `entry`."""
    return ResNetExtractor(entry)
