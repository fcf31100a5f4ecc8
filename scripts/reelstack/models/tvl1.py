"""TV-L1 optical flow of OpenCV's contrib modules: no weights, on the CPU.

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from reelstack.models.flow_estimators import FlowEstimator


class TvL1(FlowEstimator):
    """OpenCV's defaults on grey frames.

    Raises:
        ModuleNotFoundError: if OpenCV was built without its contrib modules.
    """

    def __init__(self, device: torch.device) -> None:
        if not hasattr(cv2, "optflow"):
            raise ModuleNotFoundError("OpenCV has no contrib modules", name="cv2.optflow")
        cv2.setNumThreads(torch.get_num_threads())  # it would take all cores of the machine
        self._algorithm = cv2.optflow.DualTVL1OpticalFlow.create()
        self._device = device

    @override
    def flow(self, frames: NDArray[np.uint8]) -> Tensor:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        flows = [self._algorithm.calc(first, second, None) for first, second in pairwise(grey)]
        return torch.from_numpy(np.stack(flows)).to(self._device).permute(0, 3, 1, 2)
