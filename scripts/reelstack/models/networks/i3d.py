"""I3D: Inception-v1 inflated to 3D.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR
2017. Parameter names are those of hassony2's conversion of DeepMind's checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

FEATURE_DIM = 1024


class Unit3D(nn.Module):
    """Convolution → batch norm → ReLU, padded as TensorFlow's SAME: the odd zero comes last."""

    def __init__(self, channels: int, planes: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        padding = max(kernel - stride, 0)
        self.odd_zero = padding % 2
        self.conv3d = nn.Conv3d(channels, planes, kernel, stride, padding // 2, bias=False)
        self.batch3d = nn.BatchNorm3d(planes, eps=1e-5)

    @override
    def forward(self, clips: Tensor) -> Tensor:
        if self.odd_zero:
            clips = functional.pad(clips, (0, 1) * 3)
        return functional.relu(self.batch3d(self.conv3d(clips)))


class MaxPool3dSame(nn.Module):
    """Max pooling with TensorFlow's SAME padding, by zeros.

    Its input comes from a ReLU, so symmetric padding may be torch's own, which never wins either.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        before_after = [divmod(max(k - s, 0), 2) for k, s in zip(kernel, stride, strict=True)]
        self.odd_zeros = [zeros for _, odd in reversed(before_after) for zeros in (0, odd)]
        padding = tuple(both for both, _ in before_after)
        self.pool = nn.MaxPool3d(kernel, stride, padding, ceil_mode=True)

    @override
    def forward(self, clips: Tensor) -> Tensor:
        pooled: Tensor = self.pool(functional.pad(clips, self.odd_zeros))
        return pooled


class Mixed(nn.Module):
    """Inception block: 1³, 1³ → 3³ twice, and pooling → 1³, side by side.

    Args:
        planes: of branch 0, branch 1 (inner, outer), branch 2 (inner, outer), branch 3.
    """

    def __init__(self, channels: int, planes: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        first, inner_1, outer_1, inner_2, outer_2, last = planes
        self.branch_0 = Unit3D(channels, first)
        self.branch_1 = nn.Sequential(Unit3D(channels, inner_1), Unit3D(inner_1, outer_1, 3))
        self.branch_2 = nn.Sequential(Unit3D(channels, inner_2), Unit3D(inner_2, outer_2, 3))
        self.branch_3 = nn.Sequential(MaxPool3dSame((3, 3, 3), (1, 1, 1)), Unit3D(channels, last))

    @override
    def forward(self, clips: Tensor) -> Tensor:
        branches = (self.branch_0, self.branch_1, self.branch_2, self.branch_3)
        return torch.cat([branch(clips) for branch in branches], 1)


class Logits(nn.Module):
    """The classifier: a 1³ convolution with bias and without norm."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(FEATURE_DIM, num_classes, 1)

    @override
    def forward(self, feature: Tensor) -> Tensor:
        logits: Tensor = self.conv3d(feature[..., None, None, None])
        return logits.flatten(1)


class I3D(nn.Module):
    """(B, C, T, 224, 224) in [-1, 1], T ≥ 10 → (B, num_classes) logits.

    The feature, what `conv3d_0c_1x1` reads, is the mean over time of the average over 2×7×7.

    Args:
        channels: 3 for RGB, 2 for flow (dx, dy).
    """

    def __init__(self, channels: int, num_classes: int = 400) -> None:
        super().__init__()
        self.conv3d_1a_7x7 = Unit3D(channels, 64, 7, stride=2)
        self.maxPool3d_2a_3x3 = MaxPool3dSame((1, 3, 3), (1, 2, 2))
        self.conv3d_2b_1x1 = Unit3D(64, 64)
        self.conv3d_2c_3x3 = Unit3D(64, 192, 3)
        self.maxPool3d_3a_3x3 = MaxPool3dSame((1, 3, 3), (1, 2, 2))
        self.mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32))
        self.mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64))
        self.maxPool3d_4a_3x3 = MaxPool3dSame((3, 3, 3), (2, 2, 2))
        self.mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64))
        self.mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64))
        self.mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64))
        self.mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64))
        self.mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128))
        self.maxPool3d_5a_2x2 = MaxPool3dSame((2, 2, 2), (2, 2, 2))
        self.mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128))
        self.mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128))
        self.avg_pool = nn.AvgPool3d((2, 7, 7), stride=1)
        self.conv3d_0c_1x1: nn.Module = Logits(num_classes)

    @override
    def forward(self, clips: Tensor) -> Tensor:
        for name, module in self.named_children():
            if name != "conv3d_0c_1x1":
                clips = module(clips)
        logits: Tensor = self.conv3d_0c_1x1(clips.flatten(2).mean(2))
        return logits
