"""A small R(2+1)D for clips of 16 frames of 56 x 56 pixels, named as torchvision's VideoResNet."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

_STEM_MID = 12
_STEM_WIDTH = 16
_LAYER_WIDTHS = (24, 40, 56, 64)


class TinyStem(nn.Sequential):
    """The R(2+1)D stem (7x7 in space, then 3 in time) with fewer filters.

    Takes (N, 3, T, H, W) and returns (N, 16, T, H/2, W/2).
    """

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(3, _STEM_MID, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(_STEM_MID),
            nn.ReLU(inplace=True),
            nn.Conv3d(_STEM_MID, _STEM_WIDTH, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(_STEM_WIDTH),
            nn.ReLU(inplace=True),
        )


class TinyR2Plus1D(nn.Module):
    """R(2+1)D with one residual block a layer; state-dict keys follow torchvision's VideoResNet.

    ``avgpool`` gives a 64-wide feature and ``fc`` is applied to it flattened, so that replacing
    ``fc`` by ``nn.Identity()`` makes the network return the feature, as with torchvision's own.
    """

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.stem = TinyStem()
        # Halved from layer1 on, one layer sooner than in torchvision: most of the cost on a CPU is
        # in the first layers.
        self.layer1 = _residual_layer(_STEM_WIDTH, _LAYER_WIDTHS[0], stride=2)
        self.layer2 = _residual_layer(_LAYER_WIDTHS[0], _LAYER_WIDTHS[1], stride=2)
        self.layer3 = _residual_layer(_LAYER_WIDTHS[1], _LAYER_WIDTHS[2], stride=2)
        self.layer4 = _residual_layer(_LAYER_WIDTHS[2], _LAYER_WIDTHS[3], stride=1)
        self.avgpool = nn.AdaptiveAvgPool3d((1, 1, 1))
        self.fc = nn.Linear(_LAYER_WIDTHS[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """Return (N, num_classes) float logits for (N, 3, 16, 56, 56) float clips."""
        x = self.stem(clips)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _residual_layer(in_planes: int, planes: int, *, stride: int) -> nn.Sequential:
    downsample = None
    if stride != 1 or in_planes != planes:
        downsample = nn.Sequential(
            nn.Conv3d(in_planes, planes, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm3d(planes),
        )
    return nn.Sequential(BasicBlock(in_planes, planes, Conv2Plus1D, stride, downsample))


def tiny_r2plus1d(num_classes: int = 8) -> nn.Module:
    """Build an untrained tiny R(2+1)D.

    The network takes (N, 3, 16, 56, 56) float32 clips normalised as for R(2+1)D-18 and returns
    (N, num_classes) float32 logits; the pooled feature before ``fc`` is 64 wide.

    Raises ValueError when num_classes is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; it must be 1 or more")
    return TinyR2Plus1D(num_classes=num_classes)
