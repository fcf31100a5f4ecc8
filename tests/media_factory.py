"""Tiny videos for the tests: made on the spot, a few kilobytes each."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def moving_frames(num_frames: int, *, height: int = 48, width: int = 64, seed: int = 0) -> Frames:
    """(T, H, W, 3) uint8: a smooth texture that moves and brightens; no two frames are equal."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 160, (height // 8 + 2, width // 8 + 2, 3))
    texture = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
    moved = [np.roll(texture, 2 * t, axis=1) + (t * 7) % 90 for t in range(num_frames)]
    return np.stack(moved).astype(np.uint8)


def write_video(
    path: Path,
    *,
    num_frames: int = 30,
    fps: Fraction | float = 25,
    height: int = 48,
    width: int = 64,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    options: Mapping[str, str] | None = None,
    mux_options: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Write `moving_frames` to `path` and return it; with `times_ms` frame k is shown then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = moving_frames(num_frames, height=height, width=width, seed=seed)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(
        f"file:{path}",
        "w",
        format=container,
        container_options={"fflags": "+bitexact", **(mux_options or {})},
    ) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        # x264's macroblock tree makes the bytes differ from run to run, even on one thread.
        repeatable = {"threads": "1"} | ({"mbtree": "0"} if codec == "libx264" else {})
        stream.options = repeatable | dict(options or {})
        tick = Fraction(1, 1000) if times_ms is not None else 1 / rate
        stream.codec_context.time_base = tick
        for number, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = number if times_ms is None else times_ms[number]
            picture.time_base = tick
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


def uneven_times(num_frames: int) -> list[int]:
    """Strictly growing times in ms with steps of 20, 40, 90 and 160."""
    steps = [20, 40, 40, 160, 20, 90, 40]
    return [sum(steps[i % len(steps)] for i in range(n)) for n in range(num_frames)]


def run_ffmpeg(*arguments: object) -> bytes:
    """The ffmpeg command line; returns its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    answer = subprocess.run([*command, *map(str, arguments)], capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr.decode("utf-8", "replace")
    return answer.stdout


def ffmpeg_frames(path: Path, *, height: int, width: int, filters: str = "null") -> Frames:
    """What the ffmpeg command line decodes, (T, H, W, 3) RGB, each frame once."""
    raw = run_ffmpeg(
        *("-threads", 1, "-i", f"file:{path}", "-map", "0:V:0", "-vf", filters),
        *("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def add_audio(
    video: Path, target: Path, *, seconds: float = 1.2, video_delay_seconds: float = 0.0
) -> Path:
    """A copy of `video` with a mono AAC tone; the picture starts `video_delay_seconds` later."""
    tone = f"sine=frequency=440:sample_rate=16000:duration={seconds}"
    run_ffmpeg(
        *("-f", "lavfi", "-i", tone, "-itsoffset", video_delay_seconds, "-i", f"file:{video}"),
        *("-map", "1:v", "-map", "0:a", "-c:v", "copy", "-c:a", "aac", f"file:{target}"),
    )
    return target


def rotated(video: Path, target: Path, degrees: int) -> Path:
    """A copy of `video` with rotation metadata (counter-clockwise, as ffmpeg counts)."""
    turn = ("-display_rotation", degrees, "-i", f"file:{video}")
    run_ffmpeg(*turn, "-c", "copy", f"file:{target}")
    return target


def audio_only(target: Path) -> Path:
    """A file with a tone and no picture."""
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:duration=0.5")
    run_ffmpeg(*tone, "-c:a", "aac", f"file:{target}")
    return target


def with_cover(target: Path) -> Path:
    """A sound file with a cover picture, which is no video."""
    cover = write_video(
        target.with_name("cover.jpg"),
        num_frames=1,
        codec="mjpeg",
        pix_fmt="yuvj420p",
        container="image2",
    )
    run_ffmpeg(
        *("-f", "lavfi", "-i", "sine=frequency=440:duration=0.5", "-i", f"file:{cover}"),
        *("-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v:0", "attached_pic"),
        f"file:{target}",
    )
    cover.unlink()
    return target


def cut(video: Path, target: Path, share: float) -> Path:
    """The first `share` of a file's bytes, as an interrupted copy leaves it."""
    content = video.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target
