"""mmaction2's R(2+1)D-34, on dense windows or with its protocol of clips and crops.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
Checkpoints of mmaction2's model zoo, trained on Kinetics-400: 8 frames 8 apart, 32 frames 2 apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from reelstack.errors import ConfigError
from reelstack.models.base import ClipNetwork, Inputs
from reelstack.models.entry import ModelEntry
from reelstack.models.networks.mmaction2 import R2Plus1dR34

SIDE = 256
"""The shorter side, and the sides of the three crops."""
CENTRE = 224
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
CROPS = (1, 3)


class Mmaction2Extractor(ClipNetwork):
    """Shorter side to 256 (OpenCV bilinear, uint8) → crop → normalise; pooled 512-d features.

    Dense windows read the centre 224, as mmaction2's validation does. With `clips` above 0 a video
    has one row: clips spread over it (see `reelstack.media.clips`), each in `crops` views.

    Raises:
        ConfigError: if `crops` is neither 1 nor 3.
    """

    head = "cls_head.fc_cls"

    def __init__(
        self, entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        super().__init__(entry, streams, settings)
        if settings["crops"] not in CROPS:
            raise ConfigError(
                f"crops is {settings['crops']!r}; allowed: 1 (the centre {CENTRE}×{CENTRE}) or "
                f"3 ({SIDE}×{SIDE} from end to end)"
            )

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        assert self.entry.num_classes is not None
        return R2Plus1dR34(self.entry.num_classes)

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        return {"rgb": self._normalised(centre_crop(np.stack(self.resized(frames))))}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return [resize(frame) for frame in frames]

    def views(self, frames: NDArray[np.uint8]) -> Tensor:
        """The crops of a clip: (T, H, W, 3) uint8 RGB → (crops, T, 3, h, w) float32.

        One crop is the centre 224, three are 256 at both ends of the longer side and in between.
        """
        scaled = np.stack(self.resized(frames))
        crops = [centre_crop(scaled)] if self.settings["crops"] == 1 else three_crops(scaled)
        return torch.stack([self._normalised(crop) for crop in crops])

    def _normalised(self, frames: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        mean = torch.tensor(MEAN, device=self.device)
        std = torch.tensor(STD, device=self.device)
        return ((pixels - mean) / std).permute(0, 3, 1, 2)


def resize(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) → (h, w, 3) uint8 with the shorter side at 256, the other rounded half up."""
    factor = SIDE / min(frame.shape[:2])
    height, width = (int(side * factor + 0.5) for side in frame.shape[:2])
    scaled = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled, np.uint8)


def centre_crop(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(T, h, w, 3) → (T, 224, 224, 3)."""
    top, left = ((side - CENTRE) // 2 for side in frames.shape[1:3])
    return frames[:, top : top + CENTRE, left : left + CENTRE]


def three_crops(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """(T, h, w, 3), shorter side 256 → (T, 256, 256, 3) at left or top, right or bottom, middle.

    Two steps of half the free space: an odd last row or column belongs to no crop.
    """
    down, across = ((side - SIDE) // 2 for side in frames.shape[1:3])
    return [
        frames[:, k * down : k * down + SIDE, k * across : k * across + SIDE] for k in (0, 2, 1)
    ]


def build(
    entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
) -> Mmaction2Extractor:
    """The family's extractor for `entry`."""
    cv2.setNumThreads(torch.get_num_threads())  # it would take all cores of the machine
    return Mmaction2Extractor(entry, streams, settings)
