"""Models that read pairs of frames: which pairs the engine asks for, and what windows get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reelstack.errors import VideoError
from reelstack.extract import engine
from reelstack.extract.engine import WindowSettings, extract_windows
from reelstack.models.base import Extractor, Inputs
from reelstack.models.entry import ModelEntry
from torch import Tensor
from typing_extensions import override

ENTRY = ModelEntry("pairs", "none", 2, 1, None, 0, None, None, streams=("flow",))
NOTHING = -1
FPS = 8.0


@dataclass(frozen=True)
class Numbered:
    """A frame that shows its number."""

    number: int
    height: int = 4

    @property
    def time(self) -> float:
        return self.number / FPS

    @property
    def duration(self) -> float:
        return 1 / FPS

    def rgb(self) -> NDArray[np.uint8]:
        return np.full((self.height, 6, 3), self.number, np.uint8)


class Pairs(Extractor):
    """The item of a frame is its number and that of the frame before it; windows give all items."""

    pairwise = True

    def __init__(self, extra_frames: int = 0) -> None:
        super().__init__(ENTRY, ("flow",), ENTRY.settings)
        self.extra_frames = extra_frames  # type: ignore[misc]
        self.pairs: list[tuple[int, int]] = []
        self.sizes: list[int] = []

    def load_networks(self, weights: Any) -> None:
        raise NotImplementedError

    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        numbers = frames[:, 0, 0, 0].astype(int).tolist()
        earlier = [NOTHING if before is None else int(before[0, 0, 0]), *numbers[:-1]]
        items = list(zip(earlier, numbers, strict=True))
        self.pairs += [pair for pair in items if pair[0] != NOTHING]
        self.sizes.append(len(frames))
        return {"flow": torch.tensor(items, dtype=torch.float32)}

    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        return {"flow": windows["flow"]}


def extract(
    num_frames: int, *, stack: int, step: int, extra: int = 0, tail: str = "drop"
) -> tuple[Pairs, list[list[tuple[int, int]]], list[int]]:
    """The extractor, the items of every window, and how many of its frames are real."""
    extractor = Pairs(extra)
    frames: Any = map(Numbered, range(num_frames))
    settings = WindowSettings(stack, step, tail, 0)
    windows: list[list[tuple[int, int]]] = []
    valid: list[int] = []
    for rows in extract_windows(frames, extractor, settings):
        windows += [[tuple(item) for item in w] for w in rows["flow"].astype(int).tolist()]  # type: ignore[misc]
        valid += rows["valid_frames"].tolist()
    return extractor, windows, valid


@pytest.fixture(params=[1, 3, 16], autouse=True)
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Frames that are preprocessed together; what comes out does not depend on it."""
    monkeypatch.setattr(engine, "CHUNK_FRAMES", request.param)
    yield


def consecutive(start: int, stop: int) -> list[tuple[int, int]]:
    return [(n - 1, n) for n in range(start + 1, stop)]


@pytest.mark.parametrize(
    ("stack", "step", "extra"), [(2, 1, 0), (4, 1, 1), (4, 2, 1), (4, 4, 1), (8, 3, 1), (3, 3, 0)]
)
def test_each_pair_is_computed_once_where_windows_touch(stack: int, step: int, extra: int) -> None:
    extractor, windows, _ = extract(30, stack=stack, step=step, extra=extra)
    assert extractor.pairs == consecutive(0, 30)
    starts = range(0, 30 - stack - extra + 1, step)
    assert [window[1:] for window in windows] == [
        consecutive(start, start + stack + extra) for start in starts
    ]


@pytest.mark.parametrize(
    ("stack", "step", "extra"), [(2, 3, 0), (2, 7, 0), (4, 6, 1), (4, 9, 1), (1, 5, 1)]
)
def test_no_pair_is_computed_across_a_gap(stack: int, step: int, extra: int) -> None:
    extractor, windows, _ = extract(31, stack=stack, step=step, extra=extra)
    span = stack + extra
    inside = [consecutive(s, min(s + span, 31)) for s in range(0, 31, step)]
    assert extractor.pairs == [pair for pairs in inside for pair in pairs]
    starts = range(0, 31 - span + 1, step)
    assert [window[1:] for window in windows] == [consecutive(s, s + span) for s in starts]
    assert [window[0] for window in windows] == [(NOTHING, s) for s in starts]


def test_windows_that_lie_end_to_end_share_no_frame_but_no_pair_is_lost() -> None:
    """I3D with step_size = stack_size + 1: the frames join, a pair between them is of no use."""
    extractor, windows, _ = extract(20, stack=4, step=5, extra=1)
    assert extractor.pairs == consecutive(0, 20)
    assert [window[1:] for window in windows] == [consecutive(s, s + 5) for s in (0, 5, 10, 15)]


def test_frames_are_preprocessed_together() -> None:
    extractor, _, _ = extract(32, stack=2, step=1)
    chunk = engine.CHUNK_FRAMES
    assert extractor.sizes == [chunk] * (32 // chunk) + [32 % chunk] * bool(32 % chunk)


@pytest.mark.parametrize("num_frames", [5, 6, 7, 9])
def test_a_repeated_last_frame_has_moved_nothing(num_frames: int) -> None:
    extractor, windows, valid = extract(num_frames, stack=4, step=4, extra=1, tail="pad")
    last = num_frames - 1
    still = (last, last)
    assert extractor.pairs == [*consecutive(0, num_frames), still]
    expected = [consecutive(0, 5)]
    if num_frames < 9:
        expected.append([*consecutive(4, num_frames), *[still] * (9 - num_frames)])
    else:
        expected += [consecutive(4, 9), [still] * 4]
    assert [window[1:] for window in windows] == expected
    real = [min(4, num_frames - start) for start in (0, 4, 8) if start < num_frames]
    assert valid == real


def test_a_single_frame_padded() -> None:
    extractor, windows, valid = extract(1, stack=2, step=1, tail="pad")
    assert (windows, valid) == ([[(NOTHING, 0), (0, 0)]], [1])
    assert extractor.pairs == [(0, 0)]


def test_nothing_is_repeated_where_no_tail_is_padded() -> None:
    assert extract(7, stack=4, step=4, extra=1)[0].pairs == consecutive(0, 7)


def test_a_frame_of_another_size_is_offered_with_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a model can say what is wrong; a chunk has frames of one size."""
    asked: list[tuple[int, int]] = []
    ours = Pairs.preprocess

    def noted(
        self: Pairs, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        if before is not None and before.shape != frames.shape[1:]:
            asked.append((int(before[0, 0, 0]), int(frames[0, 0, 0, 0])))
        return ours(self, frames, before)

    monkeypatch.setattr(Pairs, "preprocess", noted)
    frames: Any = [Numbered(n, height=4 if n < 5 else 8) for n in range(10)]
    list(extract_windows(frames, Pairs(), WindowSettings(2, 1, "drop", 0)))
    assert asked == [(4, 5)]


class Maps(Pairs):
    """The item of a frame has its size, as optical flow has."""

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        return {"flow": torch.zeros(len(frames), 2, *frames.shape[1:3])}


def test_a_size_that_changes_in_a_gap_between_windows_is_a_broken_video() -> None:
    frames: Any = [Numbered(n, height=4 if n < 5 else 8) for n in range(10)]
    with pytest.raises(VideoError, match="the frame size changes within the video") as caught:
        list(extract_windows(frames, Maps(), WindowSettings(2, 6, "drop", 0)))
    assert caught.value.status == "unreadable"
