"""Which encoder settings to re-encode with: speed, size, and what the loss does to features.

    python tests/bench/encoder.py [--rounds 3] [--presets veryfast,medium] [--crf 18,23]

Every setting re-encodes whole videos at 25 fps with one encoder thread. Its features are compared
with those of `fps.method: sample`, which shows the networks the same frames without a second loss.
The reference line is what `ffmpeg -i IN -filter:v fps=fps=25 OUT.mp4` gives (x264 medium, crf 23,
audio kept) with 3 encoder threads. Speed is frames per CPU second of ffmpeg, decoding included:
other programs on the machine disturb it less than they disturb the time on the clock.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    REAL_VIDEOS,
    bench_set,
    bench_videos,
    bench_weights,
    print_machine,
    print_table,
)
from reelstack.extract.api import open_extractor
from reelstack.extract.engine import WindowSettings, extract_windows
from reelstack.ingest.probe import probe_video
from reelstack.media.frames import VideoReader
from reelstack.media.reencode import ffmpeg_executable, reencode_video
from reelstack.models.base import Extractor

FPS = 25.0
PRESETS = "ultrafast,superfast,veryfast,faster,medium"
CRFS = "18,20,23,28"

WINDOWS = {
    "r2plus1d_18_16_kinetics": WindowSettings(16, 64, "drop", 0),
    "resnet50": WindowSettings(1, 25, "drop", 0),
    "r2plus1d_tiny_motion": WindowSettings(16, 16, "drop", 0),
}
"""Windows all over the videos, few enough to be quick."""

Encode = Callable[[Path, Path, dict[str, Any]], None]


@dataclass
class Setting:
    """One way to encode, and what was measured of it."""

    name: str
    encode: Encode
    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    size_bytes: int = 0
    features: dict[str, np.ndarray] = field(default_factory=dict)


def as_reelstack(preset: str, crf: int) -> Encode:
    encoder = {"codec": "libx264", "preset": preset, "crf": crf, "pix_fmt": "yuv420p"}

    def encode(source: Path, target: Path, facts: dict[str, Any]) -> None:
        reencode_video(
            str(source),
            target,
            fps=FPS,
            encoder=encoder,
            width=facts["width"],
            height=facts["height"],
            frames_declared=facts["frames_declared"],
            duration_seconds=facts["duration_seconds"],
        )

    return encode


def as_video_features(source: Path, target: Path, _: dict[str, Any]) -> None:
    command = [ffmpeg_executable(), "-nostdin", "-y", "-loglevel", "error", "-i", str(source)]
    command += ["-filter:v", f"fps=fps={FPS:g}", "-threads", "3", str(target)]
    subprocess.run(command, check=True)


def measure_encoding(
    settings: list[Setting], videos: list[Path], folder: Path, rounds: int
) -> None:
    """Encode every video with every setting, `rounds` times in turn."""
    facts = {video: probe_video(video) for video in videos}
    for _ in range(rounds):
        for setting in settings:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.perf_counter()
            for video in videos:
                setting.encode(video, encoded(folder, setting, video), facts[video])
            setting.wall_seconds.append(time.perf_counter() - started)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            setting.cpu_seconds.append(
                after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            )
    for setting in settings:
        setting.size_bytes = sum(encoded(folder, setting, v).stat().st_size for v in videos)


def encoded(folder: Path, setting: Setting, video: Path) -> Path:
    target = folder / setting.name.replace(" ", "_") / f"{video.stem}.mp4"
    target.parent.mkdir(exist_ok=True)
    return target


def features(extractor: Extractor, files: list[Path], *, sample_fps: float | None) -> np.ndarray:
    rows = []
    for file in files:
        with VideoReader(file, sample_fps=sample_fps, own_clock=sample_fps is None) as reader:
            batches = extract_windows(reader, extractor, WINDOWS[extractor.entry.name])
            rows += [batch["rgb"] for batch in batches]
    return np.concatenate(rows)


def drift(found: np.ndarray, expected: np.ndarray) -> tuple[float, float, float]:
    """max|d|/std, mean|d|/std and the mean over windows of |d|₂ / |expected|₂."""
    difference = np.abs(found - expected)
    relative = np.linalg.norm(difference, axis=1) / np.linalg.norm(expected, axis=1)
    std = expected.std()
    return difference.max() / std, difference.mean() / std, relative.mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="encodings of each, in turn")
    parser.add_argument("--presets", default=PRESETS)
    parser.add_argument("--crf", default=CRFS)
    arguments = parser.parse_args()
    videos = bench_videos(*REAL_VIDEOS, "mmaction2_demo.mp4")
    print_machine("torch", "av")
    print(f"{', '.join(v.name for v in videos)} at {FPS:g} fps; {arguments.rounds} rounds\n")

    reference = Setting("video_features' way", as_video_features)
    grid = itertools.product(arguments.presets.split(","), map(int, arguments.crf.split(",")))
    settings = [reference, *(Setting(f"{p} crf {c}", as_reelstack(p, c)) for p, c in grid)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measure_encoding(settings, videos, folder, arguments.rounds)
        expected = {}
        for model in WINDOWS:
            weights = bench_weights(model)
            extractor = open_extractor(bench_set(model), weights=weights, device="cpu")
            expected[model] = features(extractor, videos, sample_fps=FPS)
            for setting in settings:
                print(f"{model}: {setting.name}", file=sys.stderr, flush=True)
                files = [encoded(folder, setting, video) for video in videos]
                setting.features[model] = features(extractor, files, sample_fps=None)
        num_frames = sum(
            int(probe_video(encoded(folder, reference, v))["frames_declared"]) for v in videos
        )

    source_bytes = sum(video.stat().st_size for video in videos)
    reference_cpu = statistics.median(reference.cpu_seconds)
    header = ["x264 setting", "frames per CPU s", "speed ratio", "frames/s", "size / source"]
    header += ["max Δ/std", "mean Δ/std", "rel. L2", "drift ratio"]
    header += ["ResNet-50 rel. L2", "tiny rel. L2"]
    rows = []
    main_model, *others = WINDOWS
    reference_drift = drift(reference.features[main_model], expected[main_model])[2]
    for setting in settings:
        cpu = statistics.median(setting.cpu_seconds)
        largest, mean, relative = drift(setting.features[main_model], expected[main_model])
        rest = [drift(setting.features[m], expected[m])[2] for m in others]
        rows.append(
            [
                setting.name,
                f"{num_frames / cpu:.0f}",
                f"{reference_cpu / cpu:.2f}",
                f"{num_frames / statistics.median(setting.wall_seconds):.0f}",
                f"{setting.size_bytes / source_bytes:.2f}",
                f"{largest:.2f}",
                f"{mean:.3f}",
                f"{relative:.3f}",
                f"{relative / reference_drift:.2f}",
                *(f"{value:.3f}" for value in rest),
            ]
        )
    print_table(header, rows)


if __name__ == "__main__":
    main()
