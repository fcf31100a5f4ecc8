"""`extract_video`: features of one file in memory, by the code that the workflow runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reelstack.errors import ConfigError, DeviceError
from reelstack.extract.engine import Arrays, WindowSettings, extract_windows
from reelstack.features import Features, Predictions
from reelstack.ingest.probe import packet_facts
from reelstack.media.frames import VideoReader, open_container, video_stream
from reelstack.models.base import Extractor
from reelstack.models.labels import class_names
from reelstack.models.registry import ModelEntry, create_extractor, model_entry
from reelstack.models.weights import ensure_weights

Weights = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


def extract_video(
    path: str | os.PathLike[str],
    *,
    model: str,
    weights: Weights | None = None,
    streams: Sequence[str] | None = None,
    stack_size: int | None = None,
    step_size: int | None = None,
    fps: float | None = None,
    tail: str = "drop",
    device: str = "auto",
    precision: str = "fp32",
    top_k: int = 5,
) -> Features:
    """Features of one video, by the code that the workflow runs.

    Args:
        model: a registry name (`python -m reelstack models`).
        weights: a published-format checkpoint, or component → checkpoint; None: the published.
        streams, stack_size, step_size: None for all of the model's, and its own (in frames).
        fps: pick frames at this constant rate, without re-encoding; None keeps every frame.
        tail: "drop" frames that fill no last window, or "pad" them by repeating the last.
        device: "auto" (the first GPU, else the CPU), "cpu" or a torch device like "cuda:1".
        precision: "fp32" or "bf16".
        top_k: predictions per window; 0 for none.

    Returns T windows; status "too_short" if T is 0, "truncated" if the video ends early.

    Raises:
        VideoError: if the file is missing, unreadable or has no video stream.
        ConfigError, WeightsError, DeviceError: naming what is allowed.
    """
    entry = model_entry(model)
    chosen = _streams(entry, streams)
    stack = entry.stack_size if stack_size is None else stack_size
    step = entry.step_size if step_size is None else step_size
    settings = WindowSettings(stack, step, tail, top_k)
    extractor = open_extractor(entry, weights=weights, device=device, precision=precision)
    return run_video(Path(path), extractor, settings, streams=chosen, fps=fps)


def open_extractor(
    entry: ModelEntry, *, weights: Weights | None, device: str, precision: str
) -> Extractor:
    """A loaded extractor; arguments as for `extract_video`."""
    if weights is not None and not isinstance(weights, Mapping):
        weights = {entry.components[0]: weights}
    local = {component: os.fspath(file) for component, file in (weights or {}).items()}
    if unknown := [c for c in local if c not in entry.components]:
        raise ConfigError(
            f"weights has the component {unknown[0]!r}; {entry.name} has: "
            f"{', '.join(entry.components)}"
        )
    checkpoints = ensure_weights(entry, local)
    extractor = create_extractor(entry)
    files = {component: checkpoint.path for component, checkpoint in checkpoints.items()}
    extractor.load(files, device=_device(device), precision=precision)
    return extractor


def run_video(
    path: Path,
    extractor: Extractor,
    settings: WindowSettings,
    *,
    streams: Sequence[str],
    fps: float | None = None,
) -> Features:
    """Features of one video with a loaded extractor; see `extract_video`."""
    if fps is not None and not 0 < fps <= 1000:
        raise ConfigError(f"fps is {fps}; allowed: a number above 0 and up to 1000, or None")
    with open_container(path) as container:
        cut = packet_facts(container, video_stream(container)).get("error", "")
    with VideoReader(path, sample_fps=fps, threads=torch.get_num_threads()) as reader:
        counted = CountedFrames(reader)
        batches = list(extract_windows(counted, extractor, settings))
    rows = _concatenated(batches, streams, extractor.entry)
    problem = reader.problem or cut
    status, error = window_status(
        num_windows=len(rows["time_start"]), num_frames=counted.count, settings=settings
    )
    if problem:
        status, error = "truncated", problem
    return Features(
        video_id=path.stem,
        streams={name: rows[name] for name in streams},
        time_start=rows["time_start"],
        time_end=rows["time_end"],
        valid_frames=rows["valid_frames"],
        predictions=_predictions(rows, extractor.entry),
        status=status,
        error=error,
        info={
            "frames": counted.count,
            "fps": fps or reader.fps,
            "height": reader.height,
            "width": reader.width,
        },
    )


def _predictions(rows: Arrays, entry: ModelEntry) -> Predictions | None:
    if "class_index" not in rows:
        return None
    return Predictions(rows["class_index"], rows["score"], class_names(entry))


class CountedFrames:
    """Passes frames through and counts them."""

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self.count = 0

    def __iter__(self) -> Any:
        for frame in self._reader:
            self.count += 1
            yield frame


def window_status(
    *, num_windows: int, num_frames: int, settings: WindowSettings
) -> tuple[str, str]:
    """The status "ok", or "too_short" with the reason for a video without any window."""
    if num_windows:
        return "ok", ""
    return "too_short", (
        f"{num_frames} frames do not fill one window of {settings.stack_size}; "
        "tail: pad would repeat the last frame"
    )


def _streams(entry: ModelEntry, streams: Sequence[str] | None) -> tuple[str, ...]:
    chosen = entry.streams if streams is None else tuple(streams)
    if unknown := [s for s in chosen if s not in entry.streams]:
        raise ConfigError(
            f"streams has {unknown[0]!r}; {entry.name} computes: {', '.join(entry.streams)}"
        )
    return chosen


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device is {device!r}, but torch sees no GPU; use 'auto' or 'cpu'")
    return device


def _concatenated(batches: list[Arrays], streams: Sequence[str], entry: ModelEntry) -> Arrays:
    if batches:
        return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    empty: Arrays = {name: np.empty((0, entry.feature_dim), np.float32) for name in streams}
    empty["time_start"] = empty["time_end"] = np.empty(0)
    return empty | {"valid_frames": np.empty(0, np.int32)}
