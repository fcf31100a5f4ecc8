"""R(2+1)D and its siblings: 3D ResNets that read windows of frames.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
Checkpoints: torchvision (18 layers, R3D, MC3) and ig65m-pytorch (34 layers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.video import mc3_18, r2plus1d_18, r3d_18
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet
from typing_extensions import override

from reelstack.models.base import ClipNetwork, Inputs
from reelstack.models.entry import ModelEntry
from reelstack.models.networks.r21d_tiny import tiny_r2plus1d

MEAN = (0.43216, 0.394666, 0.37645)
STD = (0.22803, 0.22145, 0.216989)


def r2plus1d_34(num_classes: int) -> nn.Module:
    """The 34-layer network of ig65m-pytorch: (B, 3, T, H, W) → (B, num_classes).

    It differs from torchvision's scheme in the mid-planes of each stage's first block and in
    batch norm (eps 1e-3), as converted from Caffe2.
    """
    network: nn.Module = VideoResNet(
        block=BasicBlock,
        conv_makers=[Conv2Plus1D] * 4,
        layers=[3, 4, 6, 3],
        stem=R2Plus1dStem,
        num_classes=num_classes,
    )
    for layer, planes, mid_planes in ((2, 128, 288), (3, 256, 576), (4, 512, 1152)):
        convolution = Conv2Plus1D(planes, planes, mid_planes)
        network.get_submodule(f"layer{layer}.0.conv2")[0] = convolution  # type: ignore[operator]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps, module.momentum = 1e-3, 0.9
    return network


NETWORKS = {
    "r2plus1d_18": lambda classes: r2plus1d_18(num_classes=classes),
    "r3d_18": lambda classes: r3d_18(num_classes=classes),
    "mc3_18": lambda classes: mc3_18(num_classes=classes),
    "r2plus1d_34": r2plus1d_34,
    "tiny_r2plus1d": tiny_r2plus1d,
}


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, *size) float32 in [0, 1], bilinear, not antialiased."""
    planes = pixels.permute(0, 3, 1, 2).float() / 255
    return functional.interpolate(planes, size=size, mode="bilinear", align_corners=False)


def resize_and_crop(pixels: Tensor, *, size: tuple[int, int], crop: int) -> Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, crop, crop) float32 in [0, 1].

    Bilinear to exactly `size` (height, width) without antialiasing, then the centre.
    """
    top, left = (round((side - crop) / 2) for side in size)
    return resize(pixels, size)[..., top : top + crop, left : left + crop]


def normalise(planes: Tensor) -> Tensor:
    """Subtract the channels' mean and divide by their deviation; (N, 3, …) in [0, 1]."""
    shape = (3, *(1 for _ in planes.shape[2:]))
    return (planes - planes.new_tensor(MEAN).view(shape)) / planes.new_tensor(STD).view(shape)


class VideoResNetExtractor(ClipNetwork):
    """float [0, 1] → bilinear to `resize` → centre crop → normalise; features after pooling."""

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        network: nn.Module = NETWORKS[self.entry.options["network"]](self.entry.num_classes)
        return network

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        options = self.entry.options
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        scaled = resize_and_crop(pixels, size=options["resize"], crop=options["crop"])
        return {"rgb": normalise(scaled)}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        pixels = torch.from_numpy(np.ascontiguousarray(frames))
        scaled = resize(pixels, self.entry.options["resize"]) * 255
        return list(scaled.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def build(
    entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
) -> VideoResNetExtractor:
    """The family's extractor for `entry`."""
    return VideoResNetExtractor(entry, streams, settings)
