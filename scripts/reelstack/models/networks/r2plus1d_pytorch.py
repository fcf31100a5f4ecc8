"""The R(2+1)D network of R2Plus1D-PyTorch: any number of blocks, biases, no pooling in the stem.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
Parameter names are those of its trainer's checkpoints (`res2plus1d.…`, `linear.…`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

PLANES = (64, 64, 128, 256, 512)


class SpatioTemporalConv(nn.Sequential):
    """1×k×k convolution → batch norm → ReLU → t×1×1 convolution; nothing follows the last.

    The channels between them keep the number of parameters of a full t×k×k convolution
    (section 3.5 of the paper).
    """

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
    ) -> None:
        (temporal, spatial), (step_t, step_s) = kernel, stride
        area = spatial * spatial
        full = temporal * area * in_planes * out_planes
        planes = full // (area * in_planes + temporal * out_planes)
        super().__init__(
            OrderedDict(
                spatial_conv=nn.Conv3d(
                    in_planes,
                    planes,
                    (1, spatial, spatial),
                    (1, step_s, step_s),
                    (0, spatial // 2, spatial // 2),
                ),
                bn=nn.BatchNorm3d(planes),
                relu=nn.ReLU(inplace=True),
                temporal_conv=nn.Conv3d(
                    planes, out_planes, (temporal, 1, 1), (step_t, 1, 1), (temporal // 2, 0, 0)
                ),
            )
        )


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; `halve` strides by 2 in time and space."""

    def __init__(self, in_planes: int, out_planes: int, *, halve: bool = False) -> None:
        super().__init__()
        self.halve = halve
        steps = (2, 2) if halve else (1, 1)
        if halve:
            self.downsampleconv = SpatioTemporalConv(in_planes, out_planes, (1, 1), steps)
            self.downsamplebn = nn.BatchNorm3d(out_planes)
        self.conv1 = SpatioTemporalConv(in_planes, out_planes, (3, 3), steps)
        self.bn1 = nn.BatchNorm3d(out_planes)
        self.conv2 = SpatioTemporalConv(out_planes, out_planes, (3, 3))
        self.bn2 = nn.BatchNorm3d(out_planes)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C', T', H', W'): rectified sum of branch and shortcut."""
        branch = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps)))))
        shortcut = self.downsamplebn(self.downsampleconv(maps)) if self.halve else maps
        return functional.relu(branch + shortcut)


class ResidualLayer(nn.Module):
    """`size` blocks; the first may halve."""

    def __init__(self, in_planes: int, out_planes: int, size: int, *, halve: bool) -> None:
        super().__init__()
        self.block1 = ResidualBlock(in_planes, out_planes, halve=halve)
        self.blocks = nn.Sequential(
            *(ResidualBlock(out_planes, out_planes) for _ in range(1, size))
        )

    def forward(self, maps: Tensor) -> Tensor:
        """One block after the other."""
        result: Tensor = self.blocks(self.block1(maps))
        return result


class Trunk(nn.Module):
    """Clips (B, 3, T, H, W) → feature (B, 512): stem, four layers, mean over time and space."""

    def __init__(self, layer_sizes: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = SpatioTemporalConv(3, PLANES[0], (3, 7), (1, 2))
        for place, size in enumerate(layer_sizes):
            before, after = PLANES[place : place + 2]
            layer = ResidualLayer(before, after, size, halve=place > 0)
            self.add_module(f"conv{place + 2}", layer)

    def forward(self, clips: Tensor) -> Tensor:
        """The feature before the classifier."""
        maps = clips
        for stage in self.children():
            maps = stage(maps)
        return maps.mean((2, 3, 4))


class R2Plus1DClassifier(nn.Module):
    """Normalised RGB clips (B, 3, T, H, W) → logits (B, num_classes)."""

    def __init__(self, num_classes: int, layer_sizes: Sequence[int]) -> None:
        super().__init__()
        self.res2plus1d = Trunk(layer_sizes)
        self.linear = nn.Linear(PLANES[-1], num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Feature, then the linear classifier."""
        logits: Tensor = self.linear(self.res2plus1d(clips))
        return logits
