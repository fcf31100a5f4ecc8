"""Export to the files that video_features writes, for tools that read those.

`<out>/<feature_type>[/<model>]/<video_id>_<key>.npy|.pkl` with float64 arrays (VGGish: float32);
frame-wise sets, I3D and RAFT also have `fps` and `timestamps_ms`. A video without windows gives an
array of shape (0,), as there.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reelstack.errors import BROKEN_STATUSES, StoreError, nearest
from reelstack.features import Features
from reelstack.files import atomic_path
from reelstack.models.entry import ModelEntry
from reelstack.models.registry import model_entry
from reelstack.store.reader import FeatureGroup, open_store

WITHOUT_MODEL_NAME = ("i3d", "s3d", "vggish", "flow")
"""Families of which video_features knows one model, so that it names the type only."""


def export_store(
    store: str | os.PathLike[str],
    out: Path,
    *,
    file_format: str = "npy",
    sets: Sequence[str] | None = None,
) -> int:
    """Write one file per video and array; returns their number.

    Unreadable videos give no file (the manifest has their reason).

    Args:
        file_format: "npy" or "pickle".
        sets: feature sets; None for all.

    Raises:
        StoreError: for an unknown set, or two sets whose files would have the same names.
    """
    opened = open_store(store)
    names = list(opened) if sets is None else list(sets)
    if unknown := [name for name in names if name not in opened]:
        raise StoreError(
            f"no feature set {unknown[0]!r}; the store has: {', '.join(opened)}."
            f"{nearest(unknown[0], opened)}"
        )
    models = {name: opened[name].attributes["model"] for name in names}
    folders = {name: _folder(model_entry(model)) for name, model in models.items()}
    if repeated := [folder for folder, count in Counter(folders.values()).items() if count > 1]:
        clash = [name for name in names if folders[name] == repeated[0]]
        raise StoreError(
            f"the sets {', '.join(clash)} have the model "
            f"{' and '.join(dict.fromkeys(models[name] for name in clash))}: their files would "
            "have the same names. Export them one by one with --set NAME --out FOLDER."
        )
    return sum(_export_set(opened[name], out, file_format=file_format) for name in names)


def _export_set(group: FeatureGroup, out: Path, *, file_format: str) -> int:
    entry = model_entry(group.attributes["model"])
    folder = out / _folder(entry)
    count = 0
    for video_id, features in group.items():
        if features.status in BROKEN_STATUSES and not len(features):
            continue
        for key, values in _arrays(features, entry, group.attributes["parameters"]).items():
            _write(folder / f"{video_id}_{key}", values, file_format=file_format)
            count += 1
    return count


def _folder(entry: ModelEntry) -> Path:
    kind = feature_type(entry)
    return Path(
        kind, "" if entry.family in WITHOUT_MODEL_NAME else entry.name.removeprefix(f"{kind}/")
    )


def feature_type(entry: ModelEntry) -> str:
    """What video_features calls the family."""
    return entry.name.partition("_")[0] if entry.family == "flow" else entry.family


def _arrays(features: Features, entry: ModelEntry, parameters: Mapping[str, Any]) -> dict[str, Any]:
    dtype = np.float32 if entry.reads == "audio" else np.float64
    by_stream = len(entry.streams) > 1
    arrays: dict[str, Any] = {
        stream if by_stream else feature_type(entry): (
            values.astype(dtype) if len(values) else np.empty(0)
        )
        for stream, values in features.streams.items()
    }
    if entry.timestamps is not None:
        lengths = features.time_end - features.time_start
        spans = (features.valid_frames - 1) * parameters["frame_interval"] + 1
        fps = np.median(spans / lengths) if len(lengths) else np.nan
        times = features.time_end if entry.timestamps == "end" else features.time_start
        if entry.family == "flow" and len(times):  # video_features has one a frame, not one a pair
            times = np.append(times, times[-1] + 1 / fps)
        arrays["fps"] = np.float64(fps)
        arrays["timestamps_ms"] = times * 1000
    return arrays


def _write(path: Path, values: Any, *, file_format: str) -> None:
    suffix = ".npy" if file_format == "npy" else ".pkl"
    target = path.with_name(path.name + suffix)
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        if file_format == "npy":
            np.save(file, values)
        else:
            pickle.dump(values, file)
