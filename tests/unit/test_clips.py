"""Where the clips of the test protocol lie, by hand-made examples."""

from __future__ import annotations

import numpy as np
import pytest
from reelstack.media.clips import clip_indices, clip_offsets


def test_clips_reach_from_the_first_to_the_last_frame() -> None:
    # 8 frames 8 apart span 57 frames: the last of 300 that can start one is 243 = 9 · 27
    assert clip_offsets(300, 8, 8, 10).tolist() == [27 * k for k in range(10)]
    indices = clip_indices(300, 8, 8, 10)
    assert indices.shape == (10, 8)
    assert indices.dtype == np.int64
    assert indices[0].tolist() == [0, 8, 16, 24, 32, 40, 48, 56]
    assert indices[-1].tolist() == [243, 251, 259, 267, 275, 283, 291, 299]


def test_offsets_round_to_the_nearest_frame() -> None:
    # 32 frames 2 apart span 63: steps of 237 / 9 = 26.33…
    expected = [0, 26, 53, 79, 105, 132, 158, 184, 211, 237]
    assert clip_offsets(300, 32, 2, 10).tolist() == expected


@pytest.mark.parametrize(("last", "middle"), [(1, 0), (3, 2), (5, 2), (7, 4), (8, 4)])
def test_halves_round_to_even(last: int, middle: int) -> None:
    assert clip_offsets(last + 4, 4, 1, 3).tolist() == [0, middle, last]


@pytest.mark.parametrize(("num_frames", "offset"), [(300, 121), (301, 122), (57, 0), (58, 0)])
def test_a_single_clip_is_in_the_middle(num_frames: int, offset: int) -> None:
    assert clip_offsets(num_frames, 8, 8, 1).tolist() == [offset]


def test_a_clip_that_runs_over_the_end_goes_on_at_the_start() -> None:
    assert clip_indices(5, 8, 1, 2).tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]] * 2
    assert clip_indices(20, 4, 8, 1).tolist() == [[0, 8, 16, 4]]
    assert clip_indices(1, 3, 2, 2).tolist() == [[0, 0, 0]] * 2


def test_a_video_without_frames_has_no_clips() -> None:
    assert clip_indices(0, 8, 8, 10).shape == (0, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 8, 8, 10), "num_frames is -1; it has to be 0 or more"),
        ((9, 0, 8, 10), "clip_len is 0; it has to be 1 or more"),
        ((9, 8, 0, 10), "interval is 0; it has to be 1 or more"),
        ((9, 8, 8, 0), "num_clips is 0; it has to be 1 or more"),
    ],
)
def test_impossible_numbers(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip_indices(*arguments)
