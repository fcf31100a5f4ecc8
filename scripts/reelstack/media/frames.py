"""Streaming decode with PyAV: RGB frames with real times, one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.error import EOFError as AvEOFError
from av.error import FFmpegError
from numpy.typing import NDArray

from reelstack.errors import VideoError

DEMUX_OPTIONS = {"protocol_whitelist": "file,pipe,crypto,data"}
"""A playlist disguised as a video must not make the machine fetch anything."""

PLAYLISTS = frozenset(["concat", "dash", "hls", "imf"])
"""Formats that name other files: what is shown would not be what was hashed."""

_REORDERED_FRAMES = 16
"""More than any codec shows out of the order in which it decodes."""

_TOLERATED_MISSING_FRAMES = 2
_TOLERATED_MISSING_SHARE = 0.02


@dataclass(frozen=True)
class Frame:
    """One decoded frame; the conversion to RGB happens on demand.

    Attributes:
        time: seconds since the start of the file, when the frame is shown.
        duration: seconds, how long it is shown.
    """

    picture: av.VideoFrame
    time: float
    duration: float

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, rotated as a player would show it."""
        pixels = self.picture.to_ndarray(format="rgb24")
        quarter_turns = round((self.picture.rotation or 0) / 90) % 4
        return np.rot90(pixels, quarter_turns) if quarter_turns else pixels


def open_container(path: Path | str) -> Any:
    """Open a media file with PyAV.

    Raises:
        VideoError: "missing" for a path that does not exist, "unreadable" for one PyAV refuses
            and for a playlist.
    """
    if not Path(path).is_file():
        raise VideoError("missing", f"{path}: no such file")
    try:
        container = av.open(f"file:{path}", options=DEMUX_OPTIONS, metadata_errors="replace")
    except (FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError("unreadable", f"cannot be opened as a video: {reason}") from error
    if container.format.name in PLAYLISTS:
        container.close()
        raise VideoError("unreadable", "is a playlist: give the files that it names instead")
    return container


def video_stream(container: Any) -> Any:
    """The stream a player would show: the first that is no cover picture.

    Raises:
        VideoError: "no_video" where there is none.
    """
    streams = [
        s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        raise VideoError("no_video", "has no video stream")
    return streams[0]


def truncation(*, declared: int, decoded: int, errors: int) -> str:
    """Why a video counts as truncated, or an empty string.

    A container may declare a few frames more than it shows (edit lists), so a small shortage
    without decoding errors is none.
    """
    missing = declared - decoded
    tolerated = max(_TOLERATED_MISSING_FRAMES, _TOLERATED_MISSING_SHARE * declared)
    if declared and missing > tolerated:
        return f"{decoded} of {declared} declared frames could be decoded"
    if errors:
        return f"{errors} packets or frames are damaged; {decoded} frames could be decoded"
    return ""


class VideoReader:
    """Iterates over the frames of a file in the order they are shown, in constant memory.

    Args:
        path: a file in any container and codec of the FFmpeg that PyAV carries.
        sample_fps: pick frames at this constant rate, the very frames ffmpeg's `fps` filter
            picks (output k is the last source frame i with round(t_i·fps) ≤ k); None keeps
            every frame and its own time.
        own_clock: times count from 0 of the file's own clock instead of from its first packet;
            right for re-encoded videos, which keep the start of their source.
        threads: decoder threads; the frames do not depend on it.

    Raises:
        VideoError: "missing", "unreadable" or "no_video" on opening; "unreadable" at the end
            of an iteration that gave no frame.

    After the iteration `problem` says why the video counts as truncated ("" if it does not).
    """

    def __init__(
        self,
        path: Path | str,
        *,
        sample_fps: float | None = None,
        own_clock: bool = False,
        threads: int = 1,
    ) -> None:
        if sample_fps is not None and sample_fps <= 0:
            raise ValueError(f"sample_fps is {sample_fps}; it has to be positive")
        self._path = path
        self._sample_fps = sample_fps
        self._open(threads)
        start = 0 if own_clock else self._container.start_time or 0
        self._start = round(Fraction(start, av.time_base) / self._stream.time_base)
        self._errors = 0
        self._last_error = ""
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.fps = float(rate)
        self.declared_frames: int = self._stream.frames
        self.num_source_frames = 0
        self.height = self.width = 0

    def _open(self, threads: int) -> None:
        self._threads = threads
        self._container = open_container(self._path)
        self._stream = video_stream(self._container)
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = threads

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        pictures = self._sampled() if self._sample_fps else self._decoded()
        expected = 0.0
        for picture in pictures:
            time_base = float(picture.time_base)
            time = expected if picture.pts is None else picture.pts * time_base
            duration = picture.duration * time_base if picture.duration else 1 / self.fps
            if self._sample_fps:
                duration = 1 / self._sample_fps
            expected = time + duration
            if not self.height:
                turned = round((picture.rotation or 0) / 90) % 2
                shape = (picture.height, picture.width)
                self.height, self.width = shape[::-1] if turned else shape
            yield Frame(picture, time, duration)
        if self.num_source_frames == 0:
            raise VideoError("unreadable", f"no frame could be decoded: {self._last_error}")

    @property
    def problem(self) -> str:
        """Why the video counts as truncated, or an empty string; known after the iteration."""
        return truncation(
            declared=self.declared_frames, decoded=self.num_source_frames, errors=self._errors
        )

    def _packets(self) -> Iterator[Any]:
        demuxed = self._container.demux(self._stream)
        while True:
            try:
                yield next(demuxed)
            except (StopIteration, AvEOFError):
                return
            except FFmpegError as error:
                # The demuxer cannot go on (a cut file): what the decoder still holds is shown.
                self._errors += 1
                self._last_error = str(error)
                yield None
                return
            except IndexError:
                # PyAV's end of a file in which a stream appeared late (FLV, MPEG-PS)
                yield None
                return

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames in order; where some are lost, again from the start with one thread.

        With several threads an error takes along frames that are being decoded beside it, and
        what a damaged frame is patched with is not there yet: the result would depend on them.
        Frames that are shown before a damaged one may refer to it, so the last ones are held.
        """
        held: deque[av.VideoFrame] = deque()
        num_held = _REORDERED_FRAMES if self._threads > 1 else 0
        num_packets, damaged = 0, False
        for packet in self._packets():
            num_packets += bool(packet is not None and packet.size and not packet.is_discard)
            pictures = self._pictures(packet)
            damaged = pictures is None or any(picture.is_corrupt for picture in pictures)
            damaged |= bool(packet is not None and packet.is_corrupt)
            if damaged and self._threads > 1:
                break
            held.extend(pictures or ())
            while len(held) > num_held:
                yield self._shown(held.popleft())
        if self._threads > 1 and (damaged or self.num_source_frames + len(held) < num_packets):
            yield from self._restarted()
            return
        for picture in held:
            yield self._shown(picture)

    def _pictures(self, packet: Any) -> list[av.VideoFrame] | None:
        """The frames that a packet completes; None if it cannot be decoded."""
        try:
            return list(self._stream.codec_context.decode(packet))
        except AvEOFError:
            return []
        except FFmpegError as error:
            self._errors += 1
            self._last_error = str(error)
            return None

    def _shown(self, picture: av.VideoFrame) -> av.VideoFrame:
        self.num_source_frames += 1
        self._errors += picture.is_corrupt
        if picture.pts is not None:
            picture.pts -= self._start
        return picture

    def _restarted(self) -> Iterator[av.VideoFrame]:
        self._container.close()
        shown, self.num_source_frames, self._errors = self.num_source_frames, 0, 0
        self._open(1)
        for picture in self._decoded():
            if self.num_source_frames > shown:
                yield picture

    def _sampled(self) -> Iterator[av.VideoFrame]:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=self._stream)
        rate = graph.add("fps", f"fps={self._sample_fps!r}:round=near")
        sink = graph.add("buffersink")
        source.link_to(rate)
        rate.link_to(sink)
        graph.configure()
        for picture in self._decoded():
            graph.push(picture)
            yield from _pulled(graph)
        if self.num_source_frames:
            graph.push(None)
            yield from _pulled(graph)


def _pulled(graph: Any) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, AvEOFError):
            return
