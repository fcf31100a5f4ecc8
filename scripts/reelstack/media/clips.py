"""Clips spread over a video, as mmaction2's test protocol places them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clip_offsets(
    num_frames: int, clip_len: int, interval: int, num_clips: int
) -> NDArray[np.int64]:
    """First frame of each clip, (num_clips,): evenly from the first possible to the last one.

    Halves round to even; a single clip is the one in the middle. In a video shorter than a clip
    all start at frame 0.

    Args:
        num_frames: of the video, ≥ 0.
        clip_len, interval: frames per clip, ≥ 1, and the distance from one to the next, ≥ 1.
        num_clips: ≥ 1.

    Raises:
        ValueError: on a number below these.
    """
    for name, value, least in (
        ("num_frames", num_frames, 0),
        ("clip_len", clip_len, 1),
        ("interval", interval, 1),
        ("num_clips", num_clips, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}; it has to be {least} or more")
    last = max(num_frames - ((clip_len - 1) * interval + 1), 0)
    if num_clips == 1:
        return np.array([last // 2], np.int64)
    return np.round(np.arange(num_clips) * (last / (num_clips - 1))).astype(np.int64)


def clip_indices(
    num_frames: int, clip_len: int, interval: int, num_clips: int
) -> NDArray[np.int64]:
    """Frame numbers of every clip, (num_clips, clip_len); arguments as in `clip_offsets`.

    A clip that runs over the end goes on at the start. A video without frames has no clips.
    """
    offsets = clip_offsets(num_frames, clip_len, interval, num_clips)
    if num_frames == 0:
        return np.empty((0, clip_len), np.int64)
    return (offsets[:, None] + interval * np.arange(clip_len)) % num_frames
