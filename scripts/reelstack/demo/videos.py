"""Write the demo's videos: ``python -m reelstack.demo.videos --out resources/demo/videos``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reelstack.demo.encoding import AudioTrack, Encoding, encode_video
from reelstack.demo.motion import render_motion

# Part of the truncated file that is kept, the index at its front included.
_KEPT_SHARE = 0.55
_SCENES_PER_SEED = 1000
_AUDIO_RATE = 48_000


@dataclass(frozen=True, kw_only=True)
class DemoVideo:
    """One video: its path under the output folder, what it shows, and how it is encoded.

    size is (height, width) in pixels; audio names an FFmpeg encoder; `variable` spaces the frames
    unevenly in time; `truncated` cuts the end of the file off.
    """

    path: str
    label: str
    size: tuple[int, int]
    num_frames: int
    encoding: Encoding
    audio: str | None = None
    variable: bool = False
    truncated: bool = False


def demo_videos() -> tuple[DemoVideo, ...]:
    """Return the plan of all demo videos, the same in every run."""
    return (*_moves(), *_turns_and_zooms(), *_incomplete())


def _x264(container: str, rate: Fraction, *, faststart: bool = False) -> Encoding:
    return Encoding(
        container=container,
        codec="libx264",
        rate=rate,
        options={"crf": "26"},
        mux_options={"movflags": "+faststart"} if faststart else {},
    )


def _x265(container: str, rate: Fraction) -> Encoding:
    parameters = "pools=none:frame-threads=1:log-level=none"
    return Encoding(
        container=container,
        codec="libx265",
        rate=rate,
        options={"crf": "28", "x265-params": parameters},
    )


def _vp9(container: str, rate: Fraction) -> Encoding:
    return Encoding(
        container=container,
        codec="libvpx-vp9",
        rate=rate,
        options={"crf": "38", "b": "0", "cpu-used": "4"},
    )


def _mpeg(container: str, rate: Fraction, *, codec: str, bits_per_second: int) -> Encoding:
    return Encoding(
        container=container, codec=codec, rate=rate, options={"b": str(bits_per_second)}
    )


def _moves() -> Iterator[DemoVideo]:
    yield DemoVideo(
        path="move_left.mp4",
        label="move_left",
        size=(240, 320),
        num_frames=50,
        encoding=_x264("mp4", Fraction(25)),
    )
    yield DemoVideo(
        path="move_right.mkv",
        label="move_right",
        size=(240, 426),
        num_frames=60,
        encoding=_x265("matroska", Fraction(30)),
    )
    # VP9 is the codec here that takes odd sides with 4:2:0 colour.
    yield DemoVideo(
        path="move_up.webm",
        label="move_up",
        size=(181, 241),
        num_frames=50,
        encoding=_vp9("webm", Fraction(25)),
        audio="libopus",
    )
    yield DemoVideo(
        path="move_down.avi",
        label="move_down",
        size=(144, 176),
        num_frames=36,
        encoding=_mpeg("avi", Fraction(15), codec="mpeg4", bits_per_second=350_000),
    )


def _turns_and_zooms() -> Iterator[DemoVideo]:
    yield DemoVideo(
        path="rotate_clockwise.mov",
        label="rotate_clockwise",
        size=(320, 240),
        num_frames=60,
        encoding=_x264("mov", Fraction(30000, 1001)),
        audio="aac",
    )
    yield DemoVideo(
        path="rotate_counterclockwise.ts",
        label="rotate_counterclockwise",
        size=(192, 256),
        num_frames=100,
        encoding=_mpeg("mpegts", Fraction(50), codec="mpeg2video", bits_per_second=500_000),
    )
    yield DemoVideo(
        path="more/zoom_in.mp4",
        label="zoom_in",
        size=(240, 320),
        num_frames=60,
        encoding=_x264("mp4", Fraction(25)),
        variable=True,
    )
    yield DemoVideo(
        path="more/zoom_out.mkv",
        label="zoom_out",
        size=(180, 320),
        num_frames=60,
        encoding=_vp9("matroska", Fraction(24)),
    )


def _incomplete() -> Iterator[DemoVideo]:
    yield DemoVideo(
        path="short_clip.mp4",
        label="move_left",
        size=(144, 176),
        num_frames=8,
        encoding=_x264("mp4", Fraction(25), faststart=True),
    )
    yield DemoVideo(
        path="truncated.mp4",
        label="move_right",
        size=(240, 320),
        num_frames=75,
        encoding=_x264("mp4", Fraction(25), faststart=True),
        truncated=True,
    )


def make_video(video: DemoVideo, *, seed: int) -> bytes:
    """Render and encode one demo video; returns the bytes of its file."""
    milliseconds = _uneven_milliseconds(video.num_frames, seed=seed) if video.variable else None
    frames = render_motion(
        video.label,
        num_frames=video.num_frames,
        fps=float(video.encoding.rate),
        height=video.size[0],
        width=video.size[1],
        seed=seed,
        times=None if milliseconds is None else [stamp / 1000 for stamp in milliseconds],
    )
    audio = None
    if video.audio is not None:
        seconds = video.num_frames / float(video.encoding.rate)
        audio = AudioTrack(samples=_sine_sweep(seconds), rate=_AUDIO_RATE, codec=video.audio)
    data = encode_video(frames, encoding=video.encoding, milliseconds=milliseconds, audio=audio)
    return data[: int(len(data) * _KEPT_SHARE)] if video.truncated else data


def _uneven_milliseconds(num_frames: int, *, seed: int) -> list[int]:
    """Return frame times whose gaps lie between 20 and 60 ms, as from a phone's camera."""
    gaps = np.random.default_rng([seed, 5]).integers(20, 61, num_frames - 1)
    return [0, *np.cumsum(gaps).tolist()]


def _sine_sweep(seconds: float) -> NDArray[np.float32]:
    """Return (n,) float32 samples of a tone rising from 200 Hz to 2 kHz at constant loudness."""
    time = np.arange(int(seconds * _AUDIO_RATE)) / _AUDIO_RATE
    growth = np.log(2000 / 200) / seconds
    phase = 2 * np.pi * 200 * np.expm1(growth * time) / growth
    return np.asarray(0.3 * np.sin(phase), dtype=np.float32)


def write_videos(out: Path, *, seed: int) -> list[Path]:
    """Write every demo video under `out` and return the files; each appears only when complete.

    Raises ValueError for a negative seed and av.FFmpegError where an encoder is missing.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    written = []
    for index, video in enumerate(demo_videos()):
        path = out / video.path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(make_video(video, seed=seed * _SCENES_PER_SEED + index))
        temporary.replace(path)
        written.append(path)
    return written


def main(argv: list[str] | None = None) -> None:
    """Write the videos and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the videos into")
    parser.add_argument("--seed", type=int, default=2026)
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must be 0 or more")
    paths = write_videos(args.out, seed=args.seed)
    for path in paths:
        print(f"{path.stat().st_size:8d} bytes  {path}")
    print(f"{sum(path.stat().st_size for path in paths):8d} bytes in all")


if __name__ == "__main__":
    main()
