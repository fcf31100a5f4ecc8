"""PWC-Net with dense connections and the context network.

Sun et al., "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume", CVPR 2018.
Parameter names are those of the checkpoint `network-default` (converted from the authors').
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

SIDE_MULTIPLE = 64
"""Pixels: the coarsest of the six levels is 1/64 of the frame."""

FLOW_SCALE = 20.0
"""The network's flow is in units of 20 pixels of the frame."""

MAX_DISPLACEMENT = 4
"""Points of each level; 81 candidates."""

_COST = (2 * MAX_DISPLACEMENT + 1) ** 2
_LEVELS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")
_FEATURES = (16, 32, 64, 96, 128, 196)
_DENSE = (128, 128, 96, 64, 32)


def convolution(channels: int, planes: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3×3 convolution → leaky ReLU 0.1."""
    return nn.Sequential(
        nn.Conv2d(channels, planes, 3, stride, padding=dilation, dilation=dilation),
        nn.LeakyReLU(0.1),
    )


class Extractor(nn.Module):
    """(N, 3, H, W) → features of the six levels, finest first: (N, 16, H/2, W/2) …"""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for level, planes in zip(_LEVELS, _FEATURES, strict=True):
            block = nn.Sequential(
                *convolution(channels, planes, stride=2),
                *convolution(planes, planes),
                *convolution(planes, planes),
            )
            self.add_module(f"module{level}", block)
            channels = planes

    @override
    def forward(self, frames: Tensor) -> list[Tensor]:
        levels = [frames]
        for block in self.children():
            levels.append(block(levels[-1]))
        return levels[1:]


class Decoder(nn.Module):
    """The flow of one level, from the features of both frames and the flow one level coarser.

    Args:
        level: 2 (the finest) to 6 (the coarsest, which starts without a flow).
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        channels = decoder_channels(level)
        self.scale = FLOW_SCALE / 2**level
        if level < len(_FEATURES):
            coarser = decoder_channels(level + 1) + sum(_DENSE)
            self.moduleUpflow = nn.ConvTranspose2d(2, 2, 4, 2, 1)
            self.moduleUpfeat = nn.ConvTranspose2d(coarser, 2, 4, 2, 1)
        for name, planes in zip(_LEVELS, _DENSE, strict=False):
            self.add_module(f"module{name}", convolution(channels, planes))
            channels += planes
        self.moduleSix = nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1))

    @override
    def forward(
        self, first: Tensor, second: Tensor, coarser: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        if coarser is None:
            inputs = functional.leaky_relu(cost_volume(first, second), 0.1)
        else:
            flow = self.moduleUpflow(coarser[0])
            warped = warp(second, flow.float() * self.scale)
            cost = functional.leaky_relu(cost_volume(first, warped), 0.1)
            inputs = torch.cat([cost, first, flow, self.moduleUpfeat(coarser[1])], 1)
        for name, _ in zip(_LEVELS, _DENSE, strict=False):
            inputs = torch.cat([self.get_submodule(f"module{name}")(inputs), inputs], 1)
        return self.moduleSix(inputs), inputs


class Refiner(nn.Module):
    """The context network: dilated convolutions that add to the finest flow."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for planes, dilation in ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1)):
            layers += convolution(channels, planes, dilation=dilation)
            channels = planes
        self.moduleMain = nn.Sequential(*layers, nn.Conv2d(channels, 2, 3, padding=1))

    @override
    def forward(self, features: Tensor) -> Tensor:
        flow: Tensor = self.moduleMain(features)
        return flow


class PWCNet(nn.Module):
    """Optical flow from each frame to the next.

    (N + 1, 3, H, W) BGR in [0, 1], sides that are multiples of 64 → (N, 2, H/4, W/4) float32
    (dx, dy) in units of 20 pixels of the frames.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moduleExtractor = Extractor()
        for level in (6, 5, 4, 3, 2):
            self.add_module(f"module{_LEVELS[level - 1]}", Decoder(level))
        self.moduleRefiner = Refiner(decoder_channels(2) + sum(_DENSE))

    @override
    def forward(self, frames: Tensor) -> Tensor:
        levels = self.moduleExtractor(frames)
        estimate = None
        for level in (6, 5, 4, 3, 2):
            features = levels[level - 1]
            decoder = self.get_submodule(f"module{_LEVELS[level - 1]}")
            estimate = decoder(features[:-1], features[1:], estimate)
        assert estimate is not None
        flow, features = estimate
        refined: Tensor = flow.float() + self.moduleRefiner(features).float()
        return refined


def original_key(key: str) -> str:
    """`netTwo.netUpflow.weight`, as later copies are saved, → `moduleTwo.moduleUpflow.weight`."""
    return re.sub(r"\bnet(?=[A-Z])", "module", key)


def pair_bytes(height: int, width: int) -> int:
    """Size of the widest map of one pair of frames: 14 MB for 256×384, 300 MB for 1080p."""
    return (height // 4) * (width // 4) * 4 * (decoder_channels(2) + sum(_DENSE))


def decoder_channels(level: int) -> int:
    """Inputs of a level's decoder: the costs, the features, and the coarser flow and features."""
    return _COST if level == len(_FEATURES) else _COST + _FEATURES[level - 1] + 2 + 2


def cost_volume(first: Tensor, second: Tensor) -> Tensor:
    """Mean products of each point and its neighbours in `second`: (N, C, h, w) → (N, 81, h, w).

    Channel 9·(dy + 4) + dx + 4 is of the neighbour at (dx, dy); beyond the border there are zeros.
    """
    height, width = first.shape[2:]
    padded = functional.pad(second, (MAX_DISPLACEMENT,) * 4)
    shifts = range(2 * MAX_DISPLACEMENT + 1)
    costs = [
        (first * padded[:, :, y : y + height, x : x + width]).mean(1)
        for y in shifts
        for x in shifts
    ]
    return torch.stack(costs, 1)


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Each point of `features` (N, C, h, w) fetched from where `flow` (N, 2, h, w) points to.

    Bilinear, in points; zero where the four neighbours are not all inside.
    """
    height, width = flow.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device),
        torch.arange(width, device=flow.device),
        indexing="ij",
    )
    target = (flow + torch.stack([x, y])).permute(0, 2, 3, 1)
    size = target.new_tensor([width, height])
    grid = (2 * target + 1) / size - 1
    marked = torch.cat([features.float(), torch.ones_like(flow[:, :1])], 1)
    fetched = functional.grid_sample(marked, grid, align_corners=False)
    return fetched[:, :-1] * (fetched[:, -1:] > 0.999)
