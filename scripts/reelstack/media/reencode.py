"""Re-encoding to a constant frame rate with ffmpeg, one encoder thread per video."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from reelstack.errors import ReelstackError, VideoError
from reelstack.files import atomic_path
from reelstack.media.frames import DEMUX_OPTIONS, truncation

REENCODE_COLUMNS = (
    "video_id status error frames_in frames_out fps seconds size_bytes ffmpeg_version "
    "ffmpeg_arguments file key"
).split()

_MIN_TIMEOUT_SECONDS = 600.0
_TIMEOUT_PER_VIDEO_SECOND = 30.0
_IN, _OUT = "file:IN", "file:OUT"
"""Put in place of the paths: ffmpeg-python takes no name that is not valid UTF-8."""
_FEW_DECODED = 69
"""ffmpeg's exit status where most packets could not be decoded; what could is encoded."""


def ffmpeg_executable() -> str:
    """`ffmpeg` from PATH, else the one in the imageio-ffmpeg wheel."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


@functools.cache
def ffmpeg_version(executable: str) -> str:
    """The version string ffmpeg prints, e.g. "7.0.2-static"."""
    banner = subprocess.run([executable, "-version"], capture_output=True, text=True, check=True)
    return banner.stdout.split()[2]


@functools.cache
def require_encoder(executable: str, codec: str) -> None:
    """Raise ReelstackError unless this ffmpeg has the encoder `codec`."""
    listing = subprocess.run(
        [executable, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
    )
    if not re.search(rf"^ V\S+ {re.escape(codec)} ", listing.stdout, re.MULTILINE):
        raise ReelstackError(
            f"fps.encoder.codec is {codec!r}, which {executable} ({ffmpeg_version(executable)}) "
            "cannot encode: choose another codec or put a fuller ffmpeg on PATH"
        )


def arguments(*, fps: float, encoder: dict[str, Any], width: int, height: int) -> list[str]:
    """ffmpeg's arguments, without the executable and with placeholders for the paths.

    The encoder gets one thread because x264's output depends on their number. An odd width or
    height loses its last column or row: 4:2:0 video cannot hold it.
    """
    stream = ffmpeg.input(_IN, threads=1, protocol_whitelist=DEMUX_OPTIONS["protocol_whitelist"])[
        "V:0"
    ]
    stream = stream.filter("fps", fps=repr(fps), round="near")
    if width % 2 or height % 2:
        stream = stream.filter("crop", "trunc(iw/2)*2", "trunc(ih/2)*2", 0, 0)
    output = stream.output(
        _OUT,
        vcodec=encoder["codec"],
        preset=encoder["preset"],
        crf=encoder["crf"],
        pix_fmt=encoder["pix_fmt"],
        threads=1,
        map_metadata=-1,
        fflags="+bitexact",
        format="mp4",
    )
    options = ("-nostdin", "-hide_banner", "-loglevel", "level+verbose", "-filter_threads", "1")
    return list(ffmpeg.get_args(output.global_args(*options).overwrite_output()))


def reencode_video(
    source: str,
    target: Path,
    *,
    fps: float,
    encoder: dict[str, Any],
    width: int,
    height: int,
    frames_declared: int,
    duration_seconds: float,
) -> dict[str, Any]:
    """Re-encode one video to `target` (MP4, constant `fps`, no audio): columns of its table row.

    Raises:
        VideoError: "unreadable" where nothing could be decoded, "timeout", "missing".
        ReelstackError: where ffmpeg cannot do it for any video (no encoder, disk full).
    """
    executable = ffmpeg_executable()
    require_encoder(executable, encoder["codec"])
    started = time.monotonic()
    settings: dict[str, Any] = {"fps": fps, "encoder": encoder, "width": width, "height": height}
    with atomic_path(target) as temporary:
        paths = {_IN: f"file:{source}", _OUT: f"file:{temporary}"}
        command = [executable, *(paths.get(part, part) for part in arguments(**settings))]
        code, log = _run(command, source=source, duration_seconds=duration_seconds)
        frames_in, frames_out, errors = _counts(log)
        if code not in (0, _FEW_DECODED) or not frames_out or not temporary.exists():
            raise _failure(code, log, codec=encoder["codec"], frames_out=frames_out)
    problem = truncation(declared=frames_declared, decoded=frames_in, errors=errors)
    return {
        "status": "truncated" if problem else "ok",
        "error": problem,
        "frames_in": frames_in,
        "frames_out": frames_out,
        "fps": fps,
        "seconds": round(time.monotonic() - started, 2),
        "size_bytes": target.stat().st_size,
        "ffmpeg_version": ffmpeg_version(executable),
        "ffmpeg_arguments": " ".join(arguments(**settings)),
    }


def _run(command: list[str], *, source: str, duration_seconds: float) -> tuple[int, str]:
    if not os.path.isfile(source):
        raise VideoError("missing", f"{source}: no such file")
    timeout = max(_MIN_TIMEOUT_SECONDS, _TIMEOUT_PER_VIDEO_SECOND * duration_seconds)
    with tempfile.TemporaryFile() as log:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise VideoError("timeout", f"ffmpeg gave up after {timeout:.0f} s") from error
        log.seek(0)
        return code, log.read().decode("utf-8", "replace")


def _counts(log: str) -> tuple[int, int, int]:
    """Frames decoded, frames encoded and decoding errors, from ffmpeg's closing statistics."""
    decoded = re.findall(r"(\d+) frames decoded", log)
    encoded = re.findall(r"(\d+) frames encoded", log)
    errors = re.findall(r"(\d+) decode errors", log)
    return (
        sum(map(int, decoded)),
        sum(map(int, encoded)),
        sum(map(int, errors)) + log.count("corrupt decoded frame"),
    )


def _failure(code: int, log: str, *, codec: str, frames_out: int) -> Exception:
    """Whose fault a failed run is: the video's, or the machine's or the settings'."""
    lines = [
        re.sub(r"^(\[[^]]*\] )*", "", s)
        for s in log.splitlines()
        if "[error]" in s or "[fatal]" in s
    ]
    said = "; ".join(dict.fromkeys(lines)) or f"ffmpeg ended with status {code}"
    machine = (
        "No space left on device",
        "Permission denied",
        "Cannot allocate memory",
        "received signal",
    )
    refused = f"[{codec}" in log.partition("[error]")[2]
    killed = code == -signal.SIGKILL
    if frames_out or killed or refused or any(text in log for text in machine):
        return ReelstackError(f"ffmpeg failed: {said}")
    return VideoError("unreadable", f"ffmpeg could decode no frame: {said}"[:500])
