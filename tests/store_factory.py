"""Parts and stores with known content, for the tests of what reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reelstack.extract.parts import Part, VideoFolder, write_part
from reelstack.store.layout import TIME_ROWS, RowShape
from reelstack.store.set_layout import Rows
from reelstack.store.writer import update_store

DIM, TOP_K = 6, 3


def video_arrays(
    video_id: str, num_windows: int, *, streams: Sequence[str] = ("rgb",), version: int = 1
) -> dict[str, np.ndarray]:
    """What an extractor gives for a video; the same name and version give the same numbers."""
    seed = [version, *video_id.encode()]
    generator = np.random.default_rng(seed)
    features = {s: generator.normal(size=(num_windows, DIM)).astype(np.float32) for s in streams}
    return features | {
        "time_start": np.arange(num_windows) * 0.64,
        "time_end": np.arange(num_windows) * 0.64 + 0.64,
        "valid_frames": np.full(num_windows, 16, np.int32),
        "class_index": generator.integers(0, 8, (num_windows, TOP_K)).astype(np.int32),
        "score": generator.random((num_windows, TOP_K)).astype(np.float32),
    }


def make_rows(
    folder: Path,
    videos: Mapping[str, int],
    *,
    streams: Sequence[str] = ("rgb",),
    versions: Mapping[str, int] | None = None,
    statuses: Mapping[str, str] | None = None,
) -> Rows:
    """A part with `videos` (id → windows), as `update_store` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    folders: dict[str, Path] = {}
    for number, (video_id, count) in enumerate(videos.items()):
        version = (versions or {}).get(video_id, 1)
        key = f"{number}-{version}"
        status = (statuses or {}).get(video_id, "ok")
        error = "" if status == "ok" else f"why {status}"
        facts = {"video_id": video_id, "key": f"{video_id}-{version}", "num_windows": count}
        rows.append(facts | {"status": status, "error": error})
        if count:
            target = VideoFolder(folder, key)
            with target as writer:
                writer.append(video_arrays(video_id, count, streams=streams, version=version))
            folders[rows[-1]["key"]] = target.path
    path = folder / "part.npz"
    write_part(path, rows, folders=folders, previous=None, provenance={})
    part = Part(path)
    return {row["video_id"]: (part, row) for row in part.rows}


def array_shapes(streams: Sequence[str], *, top_k: int = TOP_K) -> dict[str, RowShape]:
    """The rows of `video_arrays`."""
    shapes = {stream: {"dtype": "float32", "shape": [DIM]} for stream in streams} | TIME_ROWS
    if top_k:
        shapes["class_index"] = {"dtype": "int32", "shape": [top_k]}
        shapes["score"] = {"dtype": "float32", "shape": [top_k]}
    return shapes


def attributes(
    *, streams: Sequence[str] = ("rgb",), top_k: int = TOP_K, **changes: Any
) -> dict[str, Any]:
    """Attributes of a feature set as the aggregating job writes them."""
    return {
        "model": "r2plus1d_tiny_motion",
        "family": "r21d",
        "streams": list(streams),
        "arrays": array_shapes(streams, top_k=top_k),
        "size": None,
        "feature_dim": DIM,
        "labels": [f"label {n}" for n in range(8)],
        "parameters": {"frame_interval": 1},
        "provenance": [],
        **changes,
    }


def write_store(store: Path, groups: Mapping[str, Rows], **per_set: dict[str, Any]) -> None:
    """`update_store` with plain attributes; keywords name sets with attributes of their own."""
    described = {name: per_set.get(name, attributes()) for name in groups}
    update_store(store, groups, described | {"": {"config": {"a": 1}, "provenance": {"b": 2}}})
