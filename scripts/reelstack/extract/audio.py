"""The engine for sound: decoded samples in, features of examples out, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from reelstack.errors import ConfigError, nearest
from reelstack.extract.engine import Arrays, as_arrays
from reelstack.media.audio import AudioBlock
from reelstack.media.resample import Resampler
from reelstack.media.windows import TAILS
from reelstack.models.base import Extractor
from reelstack.models.vggish import (
    EXAMPLE_SAMPLES,
    FRAME_SAMPLES,
    FRAME_STEP,
    FRAMES,
    SAMPLE_RATE,
)

EXAMPLE_SECONDS = FRAMES * FRAME_STEP / SAMPLE_RATE
"""What an example stands for; the last spectrum reaches 15 ms further."""

BATCH_EXAMPLES = 16
"""Examples per forward pass on the CPU."""

GPU_BATCH_EXAMPLES = 128
"""The same on a GPU."""


@dataclass(frozen=True)
class AudioSettings:
    """How a sound becomes rows.

    Attributes:
        hop_seconds: from one row's start to the next one's; at least one sample (1/16000 s).
        tail: "drop" spectra that do not fill a last example, or "pad" them with silence.
        windows: start and end in seconds of another set's windows, (T,) each: the rows are those
            windows then, and `hop_seconds` and `tail` have no meaning.

    Raises:
        ConfigError: on a value that is not possible.
    """

    hop_seconds: float = EXAMPLE_SECONDS
    tail: str = "drop"
    windows: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError on a value that is not possible."""
        if not isfinite(self.hop_seconds) or self.hop_seconds * SAMPLE_RATE < 1:
            raise ConfigError(
                f"hop_seconds is {self.hop_seconds}; allowed: a number of seconds from "
                f"{1 / SAMPLE_RATE} (one sample), {EXAMPLE_SECONDS} for examples side by side"
            )
        if self.tail not in TAILS:
            raise ConfigError(
                f"tail is {self.tail!r}; allowed: {', '.join(TAILS)}.{nearest(self.tail, TAILS)}"
            )
        if self.windows is None:
            return
        shapes = [np.shape(times) for times in self.windows]
        if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 1:
            raise ConfigError(
                f"windows have the shapes {', '.join(map(str, shapes))}; allowed: the starts and "
                "the ends of as many windows, one axis each"
            )
        if not all(np.isfinite(times).all() for times in self.windows):
            raise ConfigError("windows have a start or end that is no finite number of seconds")


def extract_audio(
    blocks: Iterable[AudioBlock], extractor: Extractor, settings: AudioSettings
) -> Iterator[Arrays]:
    """Features of one sound, a batch of rows at a time, in order.

    Rows are examples of 0.96 s every `hop_seconds` from the first sample on, or with
    `settings.windows` the means of max(1, round(length / 0.96)) examples spread evenly over each
    window, one in the middle of it for short ones. Outside of the sound is silence.
    `valid_frames` counts spectra that lie inside of it: of 96, or 96 per example of a window.

    Args:
        blocks: consecutive, as an `AudioReader` gives them, and read to their end; errors of
            theirs pass through.
        extractor: `preprocess` takes (B, 15600) samples at 16 kHz.
    """
    remaining = iter(blocks)
    sound = _Sound(remaining)
    examples = _sliding(sound, settings) if settings.windows is None else _aligned(sound, settings)
    size = BATCH_EXAMPLES if extractor.device.type == "cpu" else GPU_BATCH_EXAMPLES
    pending: dict[int, _Row] = {}
    next_row = 0
    while batch := list(islice(examples, size)):
        for example, features in zip(batch, _compute(batch, extractor), strict=True):
            pending.setdefault(example.row, _Row(example)).add(features, example.valid_frames)
        rows = []
        while next_row in pending and pending[next_row].missing == 0:
            rows.append(pending.pop(next_row))
            next_row += 1
        if rows:
            yield _arrays(rows, extractor.settings["dtype"])
    for _ in remaining:
        pass  # windows may end before the sound, whose reader tells at its end whether it is whole


@dataclass(frozen=True)
class _Example:
    """What the network reads once, and the row it belongs to.

    Attributes:
        samples: (15600,) float32.
        valid_frames: spectra inside of the sound, up to 96.
        row, of: number of the row, and how many examples it has.
        time_start, time_end: of the row, in seconds.
    """

    samples: NDArray[np.float32]
    valid_frames: int
    row: int
    of: int
    time_start: float
    time_end: float


@dataclass
class _Row:
    """The mean of a row's examples, as they come."""

    example: _Example
    valid_frames: int = 0
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    missing: int = 0

    def __post_init__(self) -> None:
        self.missing = self.example.of

    def add(self, features: Arrays, valid_frames: int) -> None:
        for name, values in features.items():
            self.sums[name] = self.sums.get(name, 0.0) + values.astype(np.float64)
        self.valid_frames += valid_frames
        self.missing -= 1


def _sliding(sound: _Sound, settings: AudioSettings) -> Iterator[_Example]:
    """One example per row; as in the reference, whole spectra decide whether it is full."""
    covered = 0
    for row in count():
        start = round(row * settings.hop_seconds * SAMPLE_RATE)
        samples, valid = sound.example(start)
        end = start + valid * FRAME_STEP
        if valid < FRAMES and (settings.tail == "drop" or not valid or end <= covered):
            return
        first = sound.time + start / SAMPLE_RATE
        yield _Example(samples, valid, row, 1, first, first + valid * FRAME_STEP / SAMPLE_RATE)
        if valid < FRAMES:
            return
        covered = end


def _aligned(sound: _Sound, settings: AudioSettings) -> Iterator[_Example]:
    """The examples of all windows by their start, whatever the order of the windows."""
    assert settings.windows is not None
    starts, ends = (np.asarray(times, np.float64) for times in settings.windows)
    counts = np.maximum(1, np.rint((ends - starts) / EXAMPLE_SECONDS)).astype(np.int64)
    rows = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    shares = np.where(counts[rows] == 1, 0.5, numbers / np.maximum(1, counts[rows] - 1))
    times = starts[rows] + shares * (ends - starts - EXAMPLE_SECONDS)[rows]
    positions = np.rint((times - sound.time) * SAMPLE_RATE).astype(np.int64)
    for index in np.argsort(positions, kind="stable"):
        row = int(rows[index])
        samples, valid = sound.example(int(positions[index]))
        yield _Example(samples, valid, row, int(counts[row]), float(starts[row]), float(ends[row]))


class _Sound:
    """Blocks resampled to 16 kHz, of which examples are cut one after the other.

    Attributes:
        time: seconds, of the first sample.
    """

    def __init__(self, blocks: Iterator[AudioBlock]) -> None:
        first = next(blocks, None)
        self.time = 0.0 if first is None else first.time
        self._pieces = iter(()) if first is None else _resampled(first, blocks)
        self._buffer = np.empty(0, np.float32)
        self._end = 0
        self._ended = False

    def example(self, start: int) -> tuple[NDArray[np.float32], int]:
        """The samples of an example, silence outside of the sound, and its spectra inside of it.

        Args:
            start: the example's first sample, counted from the sound's; it may be negative, but
                not less than that of the example before.
        """
        self._read(start, start + EXAMPLE_SAMPLES)
        begin = self._end - len(self._buffer)
        samples = np.zeros(EXAMPLE_SAMPLES, np.float32)
        inside = self._buffer[max(0, start - begin) : max(0, start + EXAMPLE_SAMPLES - begin)]
        offset = max(0, begin - start)
        samples[offset : offset + len(inside)] = inside
        first = max(0, -(start // FRAME_STEP))
        last = min(FRAMES - 1, (self._end - FRAME_SAMPLES - start) // FRAME_STEP)
        return samples, max(0, last - first + 1)

    def _read(self, start: int, stop: int) -> None:
        """Have the samples up to `stop` in the buffer, as far as there are any from `start` on."""
        while not self._ended and self._end < stop:
            piece = next(self._pieces, None)
            self._ended = piece is None
            if piece is not None:
                self._end += len(piece)
                joined = np.concatenate([self._buffer, piece])
                self._buffer = joined[max(0, start + len(joined) - self._end) :].copy()


def _resampled(first: AudioBlock, remaining: Iterator[AudioBlock]) -> Iterator[NDArray[np.float32]]:
    resampler = Resampler(first.sample_rate, SAMPLE_RATE)
    for block in chain([first], remaining):
        yield resampler.push(block.samples)
    yield resampler.finish()


def _compute(batch: list[_Example], extractor: Extractor) -> Iterator[Arrays]:
    """Features of each example."""
    inputs = extractor.preprocess(np.stack([example.samples for example in batch]))
    outputs = as_arrays(extractor.outputs(extractor.forward(inputs)), "float32")
    for number in range(len(batch)):
        yield {name: values[number] for name, values in outputs.items()}


def _arrays(rows: list[_Row], dtype: str) -> Arrays:
    arrays: Arrays = {
        name: np.stack([row.sums[name] / row.example.of for row in rows]).astype(dtype)
        for name in rows[0].sums
    }
    arrays["time_start"] = np.array([row.example.time_start for row in rows])
    arrays["time_end"] = np.array([row.example.time_end for row in rows])
    valid = [min(row.valid_frames, np.iinfo(np.int32).max) for row in rows]
    arrays["valid_frames"] = np.array(valid, np.int32)
    return arrays
