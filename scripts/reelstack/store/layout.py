"""The store's layout: CF contiguous ragged arrays in Zarr v3, one group per feature set.

    <store>/<set>/features      (obs, feature)  float32   rows of all videos, one after the other
                  time_start    (obs)           seconds
                  time_end      (obs)           seconds
                  valid_frames  (obs)           frames
                  video_index   (obs)           position along `video`
                  class_index   (obs, rank)     top-k classes, best first
                  score         (obs, rank)     their probabilities
                  video_id      (video)
                  row_start     (video)         first row of the video in obs
                  row_size      (video)         its number of rows
                  status, error (video)
                  key           (video)         what the rows were computed from

A row of features can have more axes (`features (obs, feature_0, feature_1, feature_2)`).
A set with several streams has `features_<stream>` (obs, feature_<stream>) per stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr

CHUNK_BYTES = 1 << 20
SHARD_CHUNKS = 64
CONVENTIONS = "CF-1.12"


@dataclass(frozen=True)
class ArraySpec:
    """One array of a group: where it hangs and how it describes itself."""

    dims: tuple[str, ...]
    dtype: Any
    long_name: str
    units: str = "1"
    attributes: dict[str, Any] = field(default_factory=dict)


OBS_SPECS = {
    "time_start": ArraySpec(
        ("obs",), "float64", "time when the window's first frame is shown", "s"
    ),
    "time_end": ArraySpec(("obs",), "float64", "time when the window's last real frame ends", "s"),
    "valid_frames": ArraySpec(("obs",), "int32", "real frames in the window", "frames"),
    "video_index": ArraySpec(("obs",), "int64", "position of the row's video along video"),
    "class_index": ArraySpec(("obs", "rank"), "int32", "predicted classes, best first"),
    "score": ArraySpec(("obs", "rank"), "float32", "softmax probability of the predicted classes"),
}
VIDEO_SPECS = {
    "video_id": ArraySpec(("video",), "string", "identifier of the video"),
    "row_start": ArraySpec(("video",), "int64", "first row of the video along obs"),
    "row_size": ArraySpec(
        ("video",), "int64", "number of rows of the video", attributes={"sample_dimension": "obs"}
    ),
    "status": ArraySpec(("video",), "string", "how the extraction of the video ended"),
    "error": ArraySpec(("video",), "string", "the reason that belongs to the status"),
    "key": ArraySpec(("video",), "string", "digest of content and parameters behind the rows"),
}
COORDINATES = "time_start time_end video_id"

RowShape = dict[str, Any]
"""`dtype` and `shape` of one row of an array."""

TIME_ROWS: dict[str, RowShape] = {
    "time_start": {"dtype": "float64", "shape": []},
    "time_end": {"dtype": "float64", "shape": []},
    "valid_frames": {"dtype": "int32", "shape": []},
}


def features_name(stream: str, streams: Sequence[str]) -> str:
    """Name of a stream's array: `features`, or `features_<stream>` where there are several."""
    return "features" if len(streams) == 1 else f"features_{stream}"


def obs_specs(streams: Sequence[str], arrays: Mapping[str, RowShape]) -> dict[str, ArraySpec]:
    """Array name in a part → spec, for every array along obs; streams under their own names."""
    specs = {name: spec for name, spec in OBS_SPECS.items() if name in (*arrays, "video_index")}
    for stream in streams:
        dim = features_name(stream, streams).replace("features", "feature", 1)
        axes = len(arrays[stream]["shape"])
        dims = [dim] if axes == 1 else [f"{dim}_{axis}" for axis in range(axes)]
        specs[stream] = ArraySpec(
            ("obs", *dims),
            arrays[stream]["dtype"],
            f"features of the {stream} stream",
            attributes={"stream": stream, "coordinates": COORDINATES},
        )
    return specs


def create_array(
    group: zarr.Group, name: str, spec: ArraySpec, *, inner: Iterable[int] = ()
) -> zarr.Array[Any]:
    """An empty, growable array: ~1 MB chunks, 64 of them in one file."""
    inner = tuple(inner)
    chunk = tuple(max(1, extent) for extent in inner)  # 0: the set has no row that would say it
    item_bytes = 16 if spec.dtype == "string" else np.dtype(spec.dtype).itemsize
    rows = max(1, CHUNK_BYTES // (item_bytes * int(np.prod(chunk, dtype=int))))
    return group.create_array(
        name,
        shape=(0, *inner),
        dtype=spec.dtype,
        chunks=(rows, *chunk),
        shards=(rows * SHARD_CHUNKS, *chunk),
        dimension_names=spec.dims,
        attributes={"long_name": spec.long_name, "units": spec.units, **spec.attributes},
    )
