"""Resizing single frames as PIL does it: antialiased, in uint8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def shorter_side(shape: Sequence[int], size: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `size`; the other truncates, as in torchvision.

    Args:
        shape: of the frame, (H, W, …).
    """
    height, width = shape[:2]
    if width <= height:
        return int(size * height / width), size
    return size, int(size * width / height)


def resize(
    frame: NDArray[np.uint8],
    size: tuple[int, int],
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[np.uint8]:
    """(H, W, 3) → (*size, 3), uint8; as it is if the size is right."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], resample))


def centre_crop(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The (size, size, 3) in the middle; half pixels round to even, as in torchvision."""
    top, left = (round((side - size) / 2) for side in frame.shape[:2])
    return frame[top : top + size, left : left + size]


def resize_crop(
    frame: NDArray[np.uint8],
    size: int,
    crop: int,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[np.uint8]:
    """(H, W, 3) → (crop, crop, 3): the shorter side to `size`, then the centre."""
    return centre_crop(resize(frame, shorter_side(frame.shape, size), resample), crop)
