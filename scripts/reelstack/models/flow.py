"""Optical flow of consecutive frames as features: RAFT and PWC-Net.

Teed and Deng, "RAFT", ECCV 2020; Sun et al., "PWC-Net", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from reelstack.models.base import Extractor, Inputs
from reelstack.models.entry import ModelEntry
from reelstack.models.flow_estimators import FlowEstimator, flow_into_frames, load_network
from reelstack.models.images import resize


class FlowExtractor(Extractor):
    """Rows (2, H, W), float32: (dx, dy) in pixels from a window's first frame to its second.

    H and W are those of the frames after the resize that `side_size` asks for (PIL
    bilinear, uint8).
    """

    pairwise = True
    estimator: FlowEstimator

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        self.estimator = load_network(self.entry.name, weights["flow"], self)

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        earlier = [] if before is None else self.resized(before[None])
        scaled = self.resized(frames)
        none = torch.zeros(1, 2, *scaled[0].shape[:2], device=self.device)
        return {"flow": flow_into_frames(self.estimator.flow, scaled, earlier, none)}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        side = self.settings["side_size"]
        if side is None:
            return list(frames)
        smaller = self.settings["resize_to_smaller_edge"]
        size = resized_size(frames.shape[1], frames.shape[2], side, smaller=smaller)
        return [resize(frame, size) for frame in frames]

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        return {"flow": windows["flow"][:, 1]}


def resized_size(height: int, width: int, side: int, *, smaller: bool) -> tuple[int, int]:
    """(height, width) with the smaller or the larger edge at `side`; the other rounds down."""
    if (width < height) == smaller:
        return int(side * height / width), side
    return side, int(side * width / height)


def build(entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]) -> FlowExtractor:
    """The family's extractor for `entry`."""
    return FlowExtractor(entry, streams, settings)
