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
        frames: `stack_size + extra` items; the last one repeats where the video ends early
            (`tail: pad`).
        time_start: seconds, when the first frame is shown.
        time_end: seconds, when the last real frame of the stack ends.
        valid_frames: how many of the stack's frames are real.
    """

    frames: list[T]
    time_start: float
    time_end: float
    valid_frames: int


class Windower(Generic[T]):
    """Turns frames pushed one by one into windows of `stack_size` frames, `step_size` apart.

    Window k has the frames `k·step_size + i·interval` for i below `stack_size`, and `extra` more
    that do not count as its own. With `tail="drop"` frames that do not fill a last window give
    none, as in the reference tools. With `tail="pad"` every frame that a window can reach is
    covered: the last window repeats the last frame. Frames that no window reads are not pushed
    but skipped: `wants` says which.

    Args:
        stack_size: frames per window, ≥ 1.
        step_size: frames from one window's start to the next one's, ≥ 1.
        interval: frames from one frame of a window to its next one, ≥ 1.
        extra: frames that a window needs beyond its stack.
        tail: "drop" or "pad".

    Raises:
        ValueError: on a size below 1 or an unknown tail policy.
    """

    def __init__(
        self,
        *,
        stack_size: int,
        step_size: int,
        interval: int = 1,
        extra: int = 0,
        tail: str = "drop",
    ) -> None:
        sizes = {"stack_size": stack_size, "step_size": step_size, "interval": interval}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it has to be 1 or more")
        if tail not in TAILS:
            raise ValueError(f"tail is {tail!r}; allowed: {', '.join(TAILS)}")
        self.stack_size = stack_size
        self.step_size = step_size
        self.tail = tail
        self.num_frames = 0
        self._interval = interval
        self._num_items = stack_size + extra
        self._span = (self._num_items - 1) * interval + 1
        self._held: deque[tuple[int, T, float, float]] = deque()
        self._next_start = 0
        self._covered: set[int] = set()

    def wants(self, position: int) -> bool:
        """Whether frame `position` belongs to a window."""
        offsets = range(position % self.step_size, min(self._span, position + 1), self.step_size)
        return any(offset % self._interval == 0 for offset in offsets)

    def skip(self) -> None:
        """Count a frame that no window wants."""
        self.num_frames += 1

    def push(self, frame: T, time: float, duration: float) -> Iterator[Window[T]]:
        """Add the next frame, shown at `time` for `duration` seconds; yield a completed window."""
        self._held.append((self.num_frames, frame, time, time + duration))
        self.num_frames += 1
        if self.num_frames == self._next_start + self._span:
            yield self._window(None)
            self._advance()

    def finish(self, padding: T | None = None) -> Iterator[Window[T]]:
        """Yield padded windows, if the tail policy asks for them, until no frame is left out.

        That is one window, or more where windows of spread frames interleave.

        Args:
            padding: what stands for a repeated last frame; the last item itself by default.
        """
        while self.tail == "pad" and (left := self._uncovered()):
            if not left.isdisjoint(self._stack()):
                yield self._window(padding)
            self._advance()
        self._held.clear()

    def _stack(self) -> range:
        """Positions of the next window's own frames."""
        return range(self._next_start, self._next_start + self._span, self._interval)[
            : self.stack_size
        ]

    def _uncovered(self) -> set[int]:
        return {position for position, *_ in self._held} - self._covered

    def _window(self, padding: T | None) -> Window[T]:
        own = [held for held in self._held if (held[0] - self._next_start) % self._interval == 0]
        stack = own[: self.stack_size]
        frames = [frame for _, frame, _, _ in own[: self._num_items]]
        last = frames[-1] if padding is None else padding
        frames += [last] * (self._num_items - len(frames))
        return Window(frames, stack[0][2], stack[-1][3], len(stack))

    def _advance(self) -> None:
        self._covered.update(self._stack())
        self._next_start += self.step_size
        while self._held and self._held[0][0] < self._next_start:
            self._held.popleft()
        self._covered = {position for position in self._covered if position >= self._next_start}
