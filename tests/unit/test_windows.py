"""Windows against slices of a list: every small case, not a sample of them."""

from __future__ import annotations

import itertools

import pytest
from reelstack.media.windows import Window, Windower

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
        assert len(windower._frames) < stack, "holds more than one incomplete window"
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
        ({"stack_size": 1, "step_size": 1, "tail": "loop"}, "tail is 'loop'; allowed: drop, pad"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Windower(**arguments)
