"""Container facts of a video, without decoding it and without ffprobe."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from reelstack.errors import VideoError
from reelstack.files import sha256_of
from reelstack.media.frames import open_container, video_stream

PROBE_COLUMNS = (
    "video_id path status error sha256 size_bytes container codec pix_fmt width height "
    "rotation fps fps_real vfr frames_declared duration_seconds audio_codec "
    "audio_sample_rate audio_channels audio_duration_seconds"
).split()

_REORDERED_FRAMES = 16


def probe_video(path: Path | str) -> dict[str, Any]:
    """Facts of one file, keys as in `PROBE_COLUMNS`.

    `fps` is the average rate, `fps_real` the base rate the container claims, `vfr` whether
    consecutive frames differ in duration by more than a tenth. `frames_declared` is what the
    container declares, or its number of video packets where it declares none.

    Raises:
        VideoError: "missing" where there is no file, "unreadable" where it may not be read.
    """
    if not Path(path).is_file():
        raise VideoError("missing", f"{path}: no such file")
    try:
        facts: dict[str, Any] = {"sha256": sha256_of(path), "size_bytes": Path(path).stat().st_size}
    except OSError as error:
        raise VideoError("unreadable", f"cannot be read: {error.strerror}") from error
    try:
        with open_container(path) as container:
            stream = video_stream(container)
            facts |= _video_facts(container, stream) | _audio_facts(container)
            facts |= packet_facts(container, stream)
    except VideoError as error:
        facts |= {"status": error.status, "error": str(error)}
    return facts


def _video_facts(container: Any, stream: Any) -> dict[str, Any]:
    return {
        "container": container.format.name,
        "codec": stream.codec_context.name,
        "pix_fmt": stream.codec_context.pix_fmt or "",
        "width": stream.codec_context.width,
        "height": stream.codec_context.height,
        "fps": _rounded(stream.average_rate),
        "fps_real": _rounded(stream.base_rate),
        "duration_seconds": _duration(container, stream),
    }


def _audio_facts(container: Any) -> dict[str, Any]:
    if not container.streams.audio:
        return {}
    stream = container.streams.audio[0]
    return {
        "audio_codec": stream.codec_context.name if stream.codec_context else "unknown",
        "audio_sample_rate": stream.sample_rate,
        "audio_channels": stream.channels,
        "audio_duration_seconds": _duration(container, stream),
    }


def packet_facts(container: Any, stream: Any) -> dict[str, Any]:
    """What only the packets tell: how many, how even, the rotation, and whether the file is cut.

    A file is cut if the packets of all its streams end well before its declared duration; the
    keys `status` and `error` then say so.
    """
    times: list[int] = []
    rotation: int | None = None
    end = 0.0
    # At a cut the demuxer may give up; IndexError is PyAV's end of a file with late streams.
    with suppress(av.error.FFmpegError, IndexError):
        for packet in container.demux():
            if packet.pts is None:
                continue
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index == stream.index:
                times.append(packet.pts)
                if rotation is None:
                    rotation = _first_rotation(packet)
    cut = _cut(container, end=end - (container.start_time or 0) / av.time_base)
    num_packets = len(times)
    times.sort()
    if cut:
        del times[-_REORDERED_FRAMES:]  # their neighbours may be behind the cut
    steps = [(b - a) * float(stream.time_base) for a, b in pairwise(times)]
    return {
        "rotation": (rotation or 0) % 360,
        "vfr": _is_uneven(steps, tick=float(stream.time_base)),
        "frames_declared": stream.frames or num_packets,
        **cut,
    }


def _first_rotation(packet: Any) -> int | None:
    """The display rotation of the first frame that this packet completes, if it completes one."""
    with suppress(av.error.FFmpegError):
        return next((frame.rotation for frame in packet.decode()), None)
    return None


def _cut(container: Any, *, end: float) -> dict[str, str]:
    declared = (container.duration or 0) / av.time_base
    tolerated = min(max(0.5, 0.02 * declared), 5.0)
    if declared - end <= tolerated:
        return {}
    return {"status": "truncated", "error": f"ends at {end:.2f} s of {declared:.2f} s declared"}


def _is_uneven(steps: list[float], *, tick: float) -> bool:
    if len(steps) < 2:
        return False
    middle = sorted(steps)[len(steps) // 2]
    return max(steps) - min(steps) > max(0.1 * middle, 2.5 * tick)


def _duration(container: Any, stream: Any) -> float | str:
    if stream.duration:
        return round(float(stream.duration * stream.time_base), 6)
    return round(container.duration / av.time_base, 6) if container.duration else ""


def _rounded(rate: Fraction | None) -> float | str:
    return round(float(rate), 6) if rate else ""
