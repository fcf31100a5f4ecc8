"""`extract_video`: features of one file in memory, by the code that the workflow runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from typing_extensions import Unpack

from reelstack.config import FeatureSet
from reelstack.errors import ConfigError, DeviceError, VideoError
from reelstack.extract.engine import Arrays
from reelstack.extract.options import SetOptions, set_of
from reelstack.extract.rows import Source
from reelstack.extract.video import extractor_of, video_rows
from reelstack.features import Features, Predictions
from reelstack.ingest.probe import packet_facts
from reelstack.media.frames import open_container, video_stream
from reelstack.models.base import Extractor
from reelstack.models.weights import Request, ensure_checkpoint

Weights = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


def extract_video(
    path: str | os.PathLike[str],
    *,
    model: str,
    weights: Weights | None = None,
    device: str = "auto",
    align: Features | None = None,
    keep_frames: str | os.PathLike[str] | None = None,
    **options: Unpack[SetOptions],
) -> Features:
    """Features of one video, by the code that the workflow runs.

    Args:
        model: a registry name (`python -m reelstack models`).
        weights: a published-format checkpoint, or component → checkpoint; None: the published.
        device: "auto" (the first GPU, else the CPU), "cpu" or a torch device like "cuda:1".
        align: features of the same video whose windows the rows of a sound model share.
        keep_frames: folder to write the frames to that the network reads, as JPEGs.
        options: the keys of a set in the config, e.g. step_size=8, tail="pad", total=20,
            layer="layer4", flow="pwc" (see `SetOptions`); top_k=0 for no predictions.

    Returns T windows; status "too_short" if T is 0, "truncated" if the video ends early.

    Raises:
        VideoError: if the file is missing, unreadable or lacks what the model reads.
        ConfigError, WeightsError, DeviceError: naming what is allowed.
    """
    feature_set = set_of(model, options)
    if align is not None and feature_set.entry.reads != "audio":
        raise ConfigError(f"align is given, but {model} reads frames; allowed: for sound models")
    extractor = open_extractor(feature_set, weights, device=device)
    try:
        return run_video(_source(path, align, keep_frames), extractor, feature_set)
    except VideoError as error:
        raise error.about(path) from None


def _source(
    path: str | os.PathLike[str],
    align: Features | None,
    keep_frames: str | os.PathLike[str] | None,
) -> Source:
    return Source(
        Path(path),
        threads=torch.get_num_threads(),
        windows=None if align is None else (align.time_start, align.time_end),
        pictures=None if keep_frames is None else Path(keep_frames),
    )


def open_extractor(feature_set: FeatureSet, weights: Weights | None, *, device: str) -> Extractor:
    """A loaded extractor; arguments as for `extract_video`."""
    entry = feature_set.entry
    if weights is not None and not isinstance(weights, Mapping):
        weights = {entry.components[0]: weights}
    local = weights or {}
    if unknown := [c for c in local if c not in entry.components]:
        raise ConfigError(
            f"weights has the component {unknown[0]!r}; {entry.name} has: "
            f"{', '.join(entry.components)}"
        )
    extractor = extractor_of(feature_set)
    files = {}
    for component in feature_set.records:
        request = Request.of(entry, component, feature_set.settings, local.get(component))
        files[component] = ensure_checkpoint(request).path
    extractor.load(files, device=_device(device), precision=feature_set.precision)
    return extractor


def run_video(source: Source, extractor: Extractor, feature_set: FeatureSet) -> Features:
    """Features of one video with a loaded extractor; see `extract_video`."""
    run = video_rows(source, feature_set, extractor)
    batches = list(run.rows())
    status, error = run.status, run.error
    if feature_set.entry.reads == "frames":
        with open_container(source.path) as container:
            cut = packet_facts(container, video_stream(container)).get("error", "")
        if cut and status != "truncated":
            status, error = "truncated", cut
    rows = _concatenated(batches, feature_set)
    info = dict(run.facts)
    if "frames_used" in info:
        info["frames"] = info.pop("frames_used")
    predictions = None
    if "class_index" in rows:
        predictions = Predictions(rows["class_index"], rows["score"], extractor.class_names)
    return Features(
        video_id=source.path.stem,
        streams={name: rows[name] for name in feature_set.streams},
        time_start=rows["time_start"],
        time_end=rows["time_end"],
        valid_frames=rows["valid_frames"],
        predictions=predictions,
        status=status,
        error=error,
        info=info,
    )


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device is {device!r}, but torch sees no GPU; use 'auto' or 'cpu'")
    return device


def _concatenated(batches: list[Arrays], feature_set: FeatureSet) -> Arrays:
    if batches:
        return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    width, dtype = feature_set.entry.feature_dim or 0, feature_set.settings["dtype"]
    empty: Arrays = {name: np.empty((0, width), dtype) for name in feature_set.streams}
    empty["time_start"] = empty["time_end"] = np.empty(0)
    return empty | {"valid_frames": np.empty(0, np.int32)}
