"""Optical flow of videos of different sizes, at the one size that a store holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_flow(flow: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """(B, 2, H, W) → (B, 2, *size) of the same dtype.

    Bilinear, antialiased where it shrinks; the vectors are scaled too, so that they stay pixels
    of the map they are in. A map of the right size is not touched.
    """
    height, width = size
    if flow.shape[2:] == (height, width):
        return flow
    factors = (width / flow.shape[3], height / flow.shape[2])  # of (dx, dy)
    resized = np.empty((len(flow), 2, height, width), flow.dtype)
    for row, maps in zip(resized, flow, strict=True):
        for target, plane, factor in zip(row, maps, factors, strict=True):
            image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
            target[:] = factor * np.asarray(
                image.resize((width, height), Image.Resampling.BILINEAR)
            )
    return resized
