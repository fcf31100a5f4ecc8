"""Streaming decode with PyAV: the sound of a file as mono samples with their times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.codec.context import Flags2
from av.error import EOFError as AvEOFError
from av.error import FFmpegError
from numpy.typing import NDArray

from reelstack.errors import VideoError
from reelstack.media.frames import open_container
from reelstack.media.resample import MAX_RATE, MIN_RATE

JITTER_SECONDS = 0.02
"""Time stamps that are off by less are rounded or shaky, not a gap."""

LONGEST_SILENCE_SECONDS = 6 * 3600.0
LONGEST_REPETITION_SECONDS = 1.0
"""Time stamps that jump forwards by more (in all, or than the file is long) or backwards by more
are those of a broken clock."""

_ESTIMATED_DURATION = frozenset(["aac", "ac3", "dts", "eac3", "loas", "mp3", "truehd"])
"""Formats without a header for the whole file: FFmpeg guesses how long it is."""


@dataclass(frozen=True)
class AudioBlock:
    """Consecutive samples.

    Attributes:
        samples: (N,) float32 in [-1, 1), N ≥ 1: the mean of the channels' int16 / 32768.
        sample_rate: Hz; that of the file's first block.
        time: seconds since the start of the file, of the first sample.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    time: float


class AudioReader:
    """Iterates once over the sound of a file, in constant memory.

    Samples are those of ffmpeg's conversion to 16 bit (libswresample, no dithering), channels
    averaged. Each block starts where the one before ended. Where the time stamps leave a gap,
    silence fills it, and what would sound twice is left out, so that times stay true. A broken
    clock (see `LONGEST_SILENCE_SECONDS`) is not followed but a `problem`.

    Of AAC the samples are kept that the encoder put before the start and players skip (1024 from
    ffmpeg), as in the reference tools; their times lie before the start, often below 0.

    Args:
        path: a file in any container and codec of the FFmpeg that PyAV carries; of several
            audio streams the one that FFmpeg calls best is read.

    Raises:
        VideoError: "missing", "unreadable" or "no_audio" on opening; at the end of an iteration
            without samples "unreadable", or "no_audio" if the stream is just empty.

    Attributes:
        sample_rate, channels: of the first frame; 0 until then.
        num_samples: given so far.

    After the iteration `problem` says why the sound counts as truncated ("" if it does not).
    """

    def __init__(self, path: Path | str) -> None:
        self._container = open_container(path)
        try:
            self._stream = _audio_stream(self._container)
        except VideoError:
            self._container.close()
            raise
        self._file_start: float = (self._container.start_time or 0) / av.time_base
        self._declared_seconds = _declared_seconds(self._container, self._stream)
        self._num_errors = 0
        self._first_error = ""
        self._clock: _Clock | None = None
        self.sample_rate = self.channels = self.num_samples = 0

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[AudioBlock]:
        for frame in self._frames():
            shown = None if frame.pts is None else float(frame.pts * frame.time_base)
            if self._clock is None:
                self._begin(frame, self._file_start if shown is None else shown)
            for samples in self._placed(frame, shown):
                time = self._start + self.num_samples / self.sample_rate
                self.num_samples += len(samples)
                yield AudioBlock(samples, self.sample_rate, time)
        if self.num_samples == 0 and self._num_errors:
            raise VideoError("unreadable", f"no sound could be decoded: {self._first_error}")
        if self.num_samples == 0:
            raise VideoError("no_audio", "has an audio stream without any samples")

    @property
    def problem(self) -> str:
        """Why the sound counts as truncated, or an empty string; known after the iteration."""
        if self._clock is None:
            return ""
        decoded = self.num_samples / self.sample_rate
        declared = self._declared_seconds
        if declared - decoded > min(max(0.5, 0.02 * declared), 5.0):
            return f"{decoded:.2f} of {declared:.2f} declared seconds of sound could be decoded"
        if self._num_errors:
            return f"{self._num_errors} packets of the sound are damaged: {self._first_error}"
        return self._clock.first_jump

    def _begin(self, frame: av.AudioFrame, shown: float) -> None:
        """Take over the first frame's facts."""
        if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
            raise VideoError(
                "unreadable",
                f"its sound has {frame.sample_rate} samples per second; allowed: {MIN_RATE} to "
                f"{MAX_RATE}",
            )
        self.sample_rate, self.channels = frame.sample_rate, frame.layout.nb_channels
        self._start = shown - self._file_start
        longest = LONGEST_SILENCE_SECONDS
        if self._container.duration is not None:
            longest = min(longest, self._container.duration / av.time_base)
        self._clock = _Clock(shown, self.sample_rate, longest_silence=longest)
        self._converter = _Int16Converter(self.sample_rate)

    def _placed(self, frame: av.AudioFrame, shown: float | None) -> Iterator[NDArray[np.float32]]:
        """The samples of a frame, after silence or shortened if its time asks for that."""
        assert self._clock is not None
        offset = 0 if shown is None else self._clock.offset(shown, self.num_samples)
        for first in range(0, offset, self.sample_rate):
            yield np.zeros(min(self.sample_rate, offset - first), np.float32)
        try:
            samples = self._converter.convert(frame)[max(0, -offset) :]
        except (FFmpegError, ValueError) as error:
            self._damaged(error)
        else:
            if len(samples):
                yield samples

    def _damaged(self, error: Exception | str) -> None:
        self._num_errors += 1
        self._first_error = self._first_error or getattr(error, "strerror", None) or str(error)

    def _packets(self) -> Iterator[Any]:
        demuxed = self._container.demux(self._stream)
        while True:
            try:
                yield next(demuxed)
            except (StopIteration, AvEOFError):
                return
            except FFmpegError as error:
                # The demuxer cannot go on (a cut file): what the decoder still holds is given.
                self._damaged(error)
                yield None
                return
            except IndexError:
                # PyAV at the end of a file in which streams appeared after its opening.
                yield None
                return

    def _frames(self) -> Iterator[av.AudioFrame]:
        for packet in self._packets():
            try:
                frames = list(self._stream.codec_context.decode(packet))
            except AvEOFError:
                continue
            except FFmpegError as error:
                self._damaged(error)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._damaged("a frame refers to lost ones")
                yield frame


class _Clock:
    """Compares the time stamps with the number of samples.

    Attributes:
        first_jump: the first jump that was not followed, or an empty string.
    """

    def __init__(self, start: float, sample_rate: int, *, longest_silence: float) -> None:
        self._start = start
        self._sample_rate = sample_rate
        self._silence_left = longest_silence
        self.first_jump = ""

    def offset(self, shown: float, num_samples: int) -> int:
        """Samples of silence before what starts at `shown`, or less than 0: to be left out."""
        elapsed = num_samples / self._sample_rate
        deviation = shown - self._start - elapsed
        if abs(deviation) <= JITTER_SECONDS:
            return 0
        if not -LONGEST_REPETITION_SECONDS <= deviation <= self._silence_left:
            self._start += deviation
            self.first_jump = self.first_jump or (
                f"the clock of the sound jumps by {deviation:.2f} s after {elapsed:.2f} s"
            )
            return 0
        self._silence_left -= max(0.0, deviation)
        return round(deviation * self._sample_rate)


class _Int16Converter:
    """Frames of any format, layout and rate → mono samples at one rate, by way of int16."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._resampler: av.AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None

    def convert(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        """(N,) float32, the mean of the channels' int16 / 32768."""
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._format or self._resampler is None:
            self._format = source
            self._resampler = av.AudioResampler("s16", frame.layout, self._sample_rate)
        pieces = [_mono(converted) for converted in self._resampler.resample(frame)]
        return np.concatenate(pieces) if pieces else np.empty(0, np.float32)


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    samples: NDArray[np.int16] = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    means: NDArray[np.float64] = samples.mean(1, dtype=np.float64)
    return (means / 32768).astype(np.float32)


def _audio_stream(container: Any) -> Any:
    """The stream to read, its decoder set up.

    Raises:
        VideoError: "no_audio" where there is none, "unreadable" without a decoder for it.
    """
    stream = container.streams.best("audio")
    if stream is None:
        raise VideoError("no_audio", "has no audio stream")
    if stream.codec_context is None:
        raise VideoError("unreadable", "its sound is in an unknown codec")
    stream.codec_context.thread_count = 1
    if stream.codec_context.name.startswith("aac"):
        stream.codec_context.flags2 |= Flags2.skip_manual
    return stream


def _declared_seconds(container: Any, stream: Any) -> float:
    """What the file's header says about the length of a stream; 0 where it says nothing."""
    if stream.duration is None or container.format.name in _ESTIMATED_DURATION:
        return 0.0
    return float(stream.duration * stream.time_base)
