"""R(2+1)D-34 as mmaction2 builds it: every convolution is factorised, stem and shortcuts too.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
Parameter names are those of mmaction2's checkpoints (`backbone.…`, `cls_head.fc_cls.…`).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

BLOCKS = (3, 4, 6, 3)
OUTER_EPS = 1e-3
"""Batch norm between the factors keeps PyTorch's 1e-5; the one after both has this."""


def mid_planes(in_planes: int, out_planes: int, kernel: int) -> int:
    """Channels between the factors; counted with a temporal kernel of 3 even where it is 1."""
    area = kernel * kernel
    return 3 * in_planes * out_planes * area // (in_planes * area + 3 * out_planes)


class Conv2Plus1d(nn.Sequential):
    """1×k×k convolution → batch norm → ReLU → t×1×1 convolution."""

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
    ) -> None:
        (temporal, spatial), (step_t, step_s) = kernel, stride
        planes = mid_planes(in_planes, out_planes, spatial)
        super().__init__(
            OrderedDict(
                conv_s=nn.Conv3d(
                    in_planes,
                    planes,
                    (1, spatial, spatial),
                    (1, step_s, step_s),
                    (0, spatial // 2, spatial // 2),
                    bias=False,
                ),
                bn_s=nn.BatchNorm3d(planes),
                relu=nn.ReLU(inplace=True),
                conv_t=nn.Conv3d(
                    planes,
                    out_planes,
                    (temporal, 1, 1),
                    (step_t, 1, 1),
                    (temporal // 2, 0, 0),
                    bias=False,
                ),
            )
        )


def conv_module(
    in_planes: int, out_planes: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> nn.Sequential:
    """A factorised convolution and the batch norm after it; kernel and stride in (time, space)."""
    return nn.Sequential(
        OrderedDict(
            conv=Conv2Plus1d(in_planes, out_planes, kernel, stride),
            bn=nn.BatchNorm3d(out_planes, eps=OUTER_EPS),
        )
    )


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; (B, C, T, H, W) → (B, C', T/s, H/s, W/s)."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        steps = (stride, stride)
        self.conv1 = conv_module(in_planes, out_planes, (3, 3), steps)
        self.conv2 = conv_module(out_planes, out_planes, (3, 3))
        if stride != 1 or in_planes != out_planes:
            self.downsample: nn.Module | None = conv_module(in_planes, out_planes, (1, 1), steps)
        else:
            self.downsample = None

    def forward(self, maps: Tensor) -> Tensor:
        """Rectified sum of the branch and the shortcut."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        branch = self.conv2(functional.relu(self.conv1(maps)))
        return functional.relu(branch + shortcut)


class Backbone(nn.Module):
    """Clips (B, 3, T, H, W) → maps (B, 512, ⌈T/8⌉, ⌈H/32⌉, ⌈W/32⌉)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_module(3, 64, (3, 7), (1, 2))
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        planes = (64, 64, 128, 256, 512)
        for number, blocks in enumerate(BLOCKS, start=1):
            before, after = planes[number - 1 : number + 1]
            first = BasicBlock(before, after, 1 if number == 1 else 2)
            rest = (BasicBlock(after, after, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))

    def forward(self, clips: Tensor) -> Tensor:
        """Stem, pooling, four stages."""
        maps: Tensor = self.maxpool(functional.relu(self.conv1(clips)))
        for number in range(1, len(BLOCKS) + 1):
            maps = self.get_submodule(f"layer{number}")(maps)
        return maps


class R2Plus1dR34(nn.Module):
    """Normalised RGB clips (B, 3, T, H, W) → logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.cls_head = nn.Sequential(OrderedDict(fc_cls=nn.Linear(512, num_classes)))

    def forward(self, clips: Tensor) -> Tensor:
        """Mean of the last maps over time and space (the 512-d feature), then the classifier."""
        logits: Tensor = self.cls_head(self.backbone(clips).mean((2, 3, 4)))
        return logits
