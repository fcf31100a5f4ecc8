"""A given number of frames, spread evenly over a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from math import floor
from pathlib import Path

from av.error import FFmpegError

from reelstack.media.frames import Frame, open_container, video_stream

_TOLERATED_MISSING_FRAMES = 2
"""Containers tell the end of the last frames in different ways."""


def spread(frames: Iterable[Frame], *, total: int, seconds: float) -> Iterator[Frame]:
    """`total` frames at the rate total / seconds, each the last one shown by its time.

    Output k is the last frame i with round(t_i · rate) ≤ k, the rule of ffmpeg's `fps` filter;
    its time is that of the rate. A frame is repeated where the video has fewer than `total`; a
    video whose frames end before `seconds` gives fewer.

    Args:
        total: ≥ 1.
        seconds: length of the video, see `shown_seconds`.
    """
    rate = total / seconds if seconds else 1.0  # without a packet there is no frame either
    first = end = 0.0
    previous: Frame | None = None
    given = 0

    def repeated(until: int) -> Iterator[Frame]:
        nonlocal given
        while previous is not None and given < min(until, total):
            yield replace(previous, time=first + given / rate, duration=1 / rate)
            given += 1

    for frame in frames:
        if previous is None:
            first = frame.time
        yield from repeated(floor((frame.time - first) * rate + 0.5))
        previous, end = frame, frame.time + frame.duration
    if previous is not None:
        tolerated = _TOLERATED_MISSING_FRAMES * previous.duration
        complete = end - first + tolerated >= seconds
        yield from repeated(total if complete else max(1, floor((end - first) * rate + 0.5)))


def shown_seconds(path: Path | str) -> float:
    """How long a video is shown, from its packets: the first frame's start to the last one's end.

    Of streams without times (raw H.264) the number of frames says it, at their usual rate.

    Raises:
        VideoError: if it cannot be opened.
    """
    start = end = None
    num_frames = 0
    with open_container(path) as container:
        stream = video_stream(container)
        usual = 1 / (stream.average_rate or stream.guessed_rate or 25) / stream.time_base
        with suppress(FFmpegError, IndexError):  # a cut file; a file with late streams
            for packet in container.demux(stream):
                if packet.is_discard or not packet.size:
                    continue
                num_frames += 1
                if packet.pts is None:
                    continue
                shown_until = packet.pts + (packet.duration or round(usual))
                start = packet.pts if start is None else min(start, packet.pts)
                end = shown_until if end is None else max(end, shown_until)
        ticks = num_frames * usual if end is None else end - start
        return float(ticks * stream.time_base)
