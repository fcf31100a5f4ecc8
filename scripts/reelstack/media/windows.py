"""Windows (stacks) over a stream of frames: sliding, bounded in memory, with real times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

TAILS = ("drop", "pad")


@dataclass(frozen=True)
class Window(Generic[T]):
    """One stack of frames.

    Attributes:
        frames: `stack_size` items; the last one repeats where the video ends early (`tail: pad`).
        time_start: seconds, when the first frame is shown.
        time_end: seconds, when the last real frame ends.
        valid_frames: how many of `frames` are real.
    """

    frames: list[T]
    time_start: float
    time_end: float
    valid_frames: int


class Windower(Generic[T]):
    """Turns frames pushed one by one into windows `[k·step, k·step + stack)`.

    With `tail="drop"` frames that do not fill a last window give none, as in the reference tools.
    With `tail="pad"` every frame that a window can reach is covered: the last window repeats the
    last frame. Frames between windows (`step > stack`) are not pushed but skipped: `wants` says
    which.

    Args:
        stack_size: frames per window, ≥ 1.
        step_size: frames from one window's start to the next one's, ≥ 1.
        tail: "drop" or "pad".

    Raises:
        ValueError: on a size below 1 or an unknown tail policy.
    """

    def __init__(self, *, stack_size: int, step_size: int, tail: str = "drop") -> None:
        for name, value in (("stack_size", stack_size), ("step_size", step_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it has to be 1 or more")
        if tail not in TAILS:
            raise ValueError(f"tail is {tail!r}; allowed: {', '.join(TAILS)}")
        self.stack_size = stack_size
        self.step_size = step_size
        self.tail = tail
        self.num_frames = 0
        self._frames: deque[tuple[T, float, float]] = deque()
        self._next_start = 0
        self._covered_end = 0

    def wants(self, position: int) -> bool:
        """Whether frame `position` belongs to a window (false only in gaps of `step > stack`)."""
        return position % self.step_size < self.stack_size

    def skip(self) -> None:
        """Count a frame that no window wants."""
        self.num_frames += 1

    def push(self, frame: T, time: float, duration: float) -> Iterator[Window[T]]:
        """Add the next frame, shown at `time` for `duration` seconds; yield a completed window."""
        self._frames.append((frame, time, time + duration))
        self.num_frames += 1
        if len(self._frames) == self.stack_size:
            yield self._window(self.stack_size)
            self._advance()

    def finish(self) -> Iterator[Window[T]]:
        """Yield the padded last window, if the tail policy asks for one and frames are left."""
        uncovered = self.num_frames > self._covered_end and bool(self._frames)
        if self.tail == "pad" and uncovered:
            yield self._window(len(self._frames))
        self._frames.clear()

    def _window(self, valid: int) -> Window[T]:
        frames = [item for item, _, _ in self._frames]
        frames += frames[-1:] * (self.stack_size - valid)
        return Window(frames, self._frames[0][1], self._frames[-1][2], valid)

    def _advance(self) -> None:
        self._covered_end = self._next_start + self.stack_size
        self._next_start += self.step_size
        for _ in range(min(self.step_size, len(self._frames))):
            self._frames.popleft()
