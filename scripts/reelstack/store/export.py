"""Export to the files that video_features writes, for tools that read those.

`<out>/<feature_type>/<model>/<video_id>_<key>.npy|.pkl` with float64 arrays; frame-wise sets also
have `fps` and `timestamps_ms`. A video without windows gives an array of shape (0,), as there.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reelstack.errors import BROKEN_STATUSES, StoreError, nearest
from reelstack.features import Features
from reelstack.files import atomic_path
from reelstack.store.reader import FeatureGroup, open_store

FRAME_WISE = ("resnet",)


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
    models = Counter(opened[name].attributes["model"] for name in names)
    if repeated := [model for model, count in models.items() if count > 1]:
        clash = [n for n in names if opened[n].attributes["model"] == repeated[0]]
        raise StoreError(
            f"the sets {', '.join(clash)} have the model {repeated[0]}: their files would have the "
            "same names. Export them one by one with --set NAME --out FOLDER."
        )
    return sum(_export_set(opened[name], out, file_format=file_format) for name in names)


def _export_set(group: FeatureGroup, out: Path, *, file_format: str) -> int:
    family, model = group.attributes["family"], group.attributes["model"]
    count = 0
    for video_id, features in group.items():
        if features.status in BROKEN_STATUSES and not len(features):
            continue
        for key, values in _arrays(features, family).items():
            _write(out / family / model / f"{video_id}_{key}", values, file_format=file_format)
            count += 1
    return count


def _arrays(features: Features, family: str) -> dict[str, Any]:
    single = len(features.streams) == 1
    arrays: dict[str, Any] = {
        family if single else stream: values.astype(np.float64) if len(values) else np.empty(0)
        for stream, values in features.streams.items()
    }
    if family in FRAME_WISE:
        steps = np.diff(features.time_start)
        arrays["fps"] = np.float64(1 / np.median(steps)) if len(steps) else np.float64("nan")
        arrays["timestamps_ms"] = features.time_start * 1000
    return arrays


def _write(path: Path, values: Any, *, file_format: str) -> None:
    suffix = ".npy" if file_format == "npy" else ".pkl"
    target = path.with_name(path.name + suffix)
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        if file_format == "npy":
            np.save(file, values)
        else:
            pickle.dump(values, file)
