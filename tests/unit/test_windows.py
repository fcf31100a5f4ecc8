"""Windows against slices of a list: every small case, not a sample of them."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import pytest
from reelstack.media.windows import TAILS, Window, Windower

FPS = 8.0  # a power of two: times are exact
LENGTHS = range(0, 14)
SIZES = range(1, 7)


def run(num_frames: int, *, stack: int, step: int, tail: str) -> list[Window[int]]:
    windower: Windower[int] = Windower(stack_size=stack, step_size=step, tail=tail)
    windows: list[Window[int]] = []
    for frame in range(num_frames):
        if windower.wants(frame):
            windows += windower.push(frame, frame / FPS, 1 / FPS)
        else:
            windower.skip()
        assert len(windower._held) < stack, "holds more than one incomplete window"
    return windows + list(windower.finish())


def oracle(num_frames: int, *, stack: int, step: int, tail: str) -> list[list[int]]:
    """The real frames of each window, by slicing."""
    frames = list(range(num_frames))
    full = [frames[s : s + stack] for s in range(0, num_frames - stack + 1, step)]
    if tail == "drop":
        return full
    start = len(full) * step
    rest = frames[start : start + stack]
    covered = {frame for window in full for frame in window}
    return [*full, rest] if set(rest) - covered else full


@pytest.mark.parametrize("tail", ["drop", "pad"])
@pytest.mark.parametrize("stack", SIZES)
def test_windows_equal_slices(stack: int, tail: str) -> None:
    for num_frames, step in itertools.product(LENGTHS, range(1, 10)):
        case = {"stack": stack, "step": step, "tail": tail}
        expected = oracle(num_frames, **case)
        windows = run(num_frames, **case)
        label = f"{num_frames} frames, {case}"
        assert [w.frames[: w.valid_frames] for w in windows] == expected, label
        assert [w.valid_frames for w in windows] == [len(e) for e in expected], label
        for window, real in zip(windows, expected, strict=True):
            assert window.frames == real + real[-1:] * (stack - len(real)), label
            assert window.time_start == real[0] / FPS, label
            assert window.time_end == (real[-1] + 1) / FPS, label


def test_pad_covers_every_frame_that_a_window_can_reach() -> None:
    for num_frames, stack, step in itertools.product(LENGTHS, SIZES, range(1, 10)):
        windows = run(num_frames, stack=stack, step=step, tail="pad")
        seen = {frame for window in windows for frame in window.frames}
        reachable = {f for f in range(num_frames) if f % step < stack}
        assert seen == reachable, (num_frames, stack, step)


def test_drop_follows_the_formula_of_the_reference_tools() -> None:
    for num_frames, stack, step in itertools.product(range(40), (8, 16, 32), (1, 8, 16, 20, 64)):
        formula = max(0, (num_frames - stack) // step + 1) if num_frames >= stack else 0
        windows = run(num_frames, stack=stack, step=step, tail="drop")
        assert len(windows) == formula, (num_frames, stack, step)


def test_no_frame_is_wanted_only_between_windows() -> None:
    windower: Windower[int] = Windower(stack_size=2, step_size=5)
    wanted = [windower.wants(position) for position in range(12)]
    assert wanted == [True, True, False, False, False] * 2 + [True, True]


def test_times_are_those_of_the_frames_and_not_of_an_even_rate() -> None:
    times, durations = [0.0, 0.1, 0.5, 0.6], [0.1, 0.4, 0.1, 0.9]
    windower: Windower[int] = Windower(stack_size=2, step_size=2)
    windows = [
        window
        for n, (time, duration) in enumerate(zip(times, durations, strict=True))
        for window in windower.push(n, time, duration)
    ]
    assert [(w.time_start, w.time_end) for w in windows] == [(0.0, 0.5), (0.5, 1.5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stack_size": 0, "step_size": 1}, "stack_size is 0; it has to be 1 or more"),
        ({"stack_size": 1, "step_size": -3}, "step_size is -3; it has to be 1 or more"),
        ({"stack_size": 1, "step_size": 1, "interval": 0}, "interval is 0; it has to be 1 or more"),
        ({"stack_size": 1, "step_size": 1, "tail": "loop"}, "tail is 'loop'; allowed: drop, pad"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Windower(**arguments)


@dataclass(frozen=True)
class Case:
    """Settings of a `Windower`, and the windows that they mean, by their definition."""

    num_frames: int
    stack: int
    step: int
    interval: int
    extra: int
    tail: str

    @classmethod
    def random(cls, generator: random.Random) -> Case:
        stack, interval = generator.randint(1, 5), generator.randint(1, 4)
        steps = generator.randint(1, 24)
        tail, extra = generator.choice(TAILS), generator.randint(0, 2)
        return cls(generator.randint(0, 60), stack, steps, interval, extra, tail)

    def items(self, start: int, count: int) -> list[int]:
        """The frames of the video among `count` of them from `start` on, `interval` apart."""
        frames = (start + n * self.interval for n in range(count))
        return [frame for frame in frames if frame < self.num_frames]

    def windows(self) -> list[tuple[list[int], int]]:
        """Of each window the frames, the repeated ones too, and how many of its stack are real."""
        num_items = self.stack + self.extra
        found: list[tuple[list[int], int]] = []
        covered: set[int] = set()
        for start in range(0, self.num_frames, self.step):
            own, items = self.items(start, self.stack), self.items(start, num_items)
            if len(items) < num_items and (self.tail == "drop" or not set(own) - covered):
                continue
            covered |= set(own)
            found.append((items + items[-1:] * (num_items - len(items)), len(own)))
        return found

    def windower(self) -> Windower[Any]:
        return Windower(
            stack_size=self.stack,
            step_size=self.step,
            interval=self.interval,
            extra=self.extra,
            tail=self.tail,
        )


CASES = [Case.random(random.Random(seed)) for seed in range(3000)]


def push_all(case: Case) -> tuple[list[Window[int]], int]:
    """The windows of `case`, and the most frames that were held."""
    windower, most = case.windower(), 0
    windows: list[Window[int]] = []
    for frame in range(case.num_frames):
        if windower.wants(frame):
            windows += windower.push(frame, frame / FPS, 1 / FPS)
        else:
            windower.skip()
        most = max(most, len(windower._held))
    return windows + list(windower.finish()), most


def test_intervals_and_extra_frames_equal_their_definition() -> None:
    assert {(c.interval > 1, c.extra > 0, c.tail) for c in CASES} >= {
        (wide, more, tail) for wide in (True, False) for more in (True, False) for tail in TAILS
    }
    for case in CASES:
        windows, _ = push_all(case)
        assert [(w.frames, w.valid_frames) for w in windows] == case.windows(), case
        for window in windows:
            last = window.frames[window.valid_frames - 1]
            assert window.time_start == window.frames[0] / FPS, case
            assert window.time_end == (last + 1) / FPS, case


def test_no_more_is_held_than_an_incomplete_window() -> None:
    for case in CASES:
        num_items = case.stack + case.extra
        span = (num_items - 1) * case.interval + 1
        in_step = case.step % case.interval == 0
        assert push_all(case)[1] < (num_items if in_step else span) or span == 1, case


def test_wanted_are_the_frames_of_windows_and_no_others() -> None:
    for case in CASES[:500]:
        num_items = case.stack + case.extra
        endless = range(0, 60, case.step)
        wanted = {start + n * case.interval for start in endless for n in range(num_items)}
        windower = case.windower()
        assert [windower.wants(frame) for frame in range(60)] == [f in wanted for f in range(60)]


def test_a_repeated_frame_can_have_a_stand_in() -> None:
    windower: Windower[str] = Windower(stack_size=3, step_size=3, extra=1, tail="pad")
    for number, frame in enumerate("abcde"):
        for window in windower.push(frame, number / FPS, 1 / FPS):
            assert window.frames == ["a", "b", "c", "d"]
    (last,) = windower.finish(padding="still")
    assert last.frames == ["d", "e", "still", "still"]
    assert (last.time_start, last.time_end, last.valid_frames) == (3 / FPS, 5 / FPS, 2)


def test_a_missing_extra_frame_shortens_no_window() -> None:
    """The stack is all there: its frames are real and its time is that of a whole window."""
    windower: Windower[int] = Windower(stack_size=4, step_size=4, extra=1, tail="pad")
    assert [w for n in range(4) for w in windower.push(n, n / FPS, 1 / FPS)] == []
    (only,) = windower.finish()
    assert (only.frames, only.valid_frames, only.time_end) == ([0, 1, 2, 3, 3], 4, 4 / FPS)
