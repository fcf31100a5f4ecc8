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

A set with several streams has `features_<stream>` (obs, feature_<stream>) per stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def features_name(stream: str, streams: Sequence[str]) -> str:
    """Name of a stream's array: `features`, or `features_<stream>` where there are several."""
    return "features" if len(streams) == 1 else f"features_{stream}"


def obs_specs(streams: Sequence[str], *, with_predictions: bool) -> dict[str, ArraySpec]:
    """Array name in a part → spec, for every array along obs; streams under their own names."""
    specs = dict(OBS_SPECS)
    if not with_predictions:
        del specs["class_index"], specs["score"]
    for stream in streams:
        dim = features_name(stream, streams).replace("features", "feature", 1)
        specs[stream] = ArraySpec(
            ("obs", dim),
            "float32",
            f"features of the {stream} stream",
            attributes={"stream": stream, "coordinates": COORDINATES},
        )
    return specs


def create_array(
    group: zarr.Group, name: str, spec: ArraySpec, *, inner: Iterable[int] = ()
) -> zarr.Array[Any]:
    """An empty, growable array: ~1 MB chunks, 64 of them in one file."""
    inner = tuple(inner)
    item_bytes = 16 if spec.dtype == "string" else np.dtype(spec.dtype).itemsize
    rows = max(1, CHUNK_BYTES // (item_bytes * int(np.prod(inner, dtype=int))))
    return group.create_array(
        name,
        shape=(0, *inner),
        dtype=spec.dtype,
        chunks=(rows, *inner),
        shards=(rows * SHARD_CHUNKS, *inner),
        dimension_names=spec.dims,
        attributes={"long_name": spec.long_name, "units": spec.units, **spec.attributes},
    )
