"""What the rows of a feature set look like, read off the parts that hold them."""

from __future__ import annotations

from typing import Any

from reelstack.config import FeatureSet
from reelstack.errors import StoreError
from reelstack.extract.parts import Part
from reelstack.store.layout import TIME_ROWS, RowShape

Rows = dict[str, tuple[Part, dict[str, Any]]]
"""video_id → the part that holds it and its row there."""


def set_layout(feature_set: FeatureSet, rows: Rows) -> dict[str, Any]:
    """`streams`, `arrays` (name → dtype and shape of a row in the store), `size`, `feature_dim`.

    Raises:
        StoreError: if the videos' rows differ in shape, naming the key `size` that mends it.
    """
    arrays = _agreed(feature_set, rows)
    size = feature_set.settings.get("size")
    if size is not None:
        for stream in feature_set.streams:
            arrays[stream] = arrays[stream] | {"shape": [2, *size]}
    width = 1
    for extent in arrays[feature_set.streams[0]]["shape"]:
        width *= extent
    streams = list(feature_set.streams)
    return {"streams": streams, "arrays": arrays, "size": size, "feature_dim": width}


def _agreed(feature_set: FeatureSet, rows: Rows) -> dict[str, RowShape]:
    shapes = {
        video_id: row["arrays"] for video_id, (_, row) in rows.items() if row.get("num_windows")
    }
    if not shapes:
        dtype = feature_set.settings["dtype"]
        one = {"dtype": dtype, "shape": [feature_set.entry.feature_dim or 0]}
        return dict.fromkeys(feature_set.streams, one) | TIME_ROWS
    first = next(iter(shapes))
    if "size" in feature_set.settings:
        _require_size(feature_set, first, shapes[first])
        return dict(shapes[first])
    for video_id, arrays in shapes.items():
        if arrays != shapes[first]:
            raise StoreError(
                f"set {feature_set.name}: the rows of {video_id} ({_text(feature_set, arrays)}) "
                f"differ from those of {first} ({_text(feature_set, shapes[first])}), but a store "
                "holds one shape per set; choose pool: mean or max"
            )
    return dict(shapes[first])


def _require_size(feature_set: FeatureSet, video_id: str, arrays: dict[str, RowShape]) -> None:
    if feature_set.settings["size"] is None:
        raise StoreError(
            f"set {feature_set.name}: its flow maps have the size of each video ({video_id}: "
            f"{_text(feature_set, arrays)}), but a store holds one size per set. Nothing "
            "computed is lost: give the set a size, e.g. "
            f"{feature_set.name}: {{model: {feature_set.model}, size: [224, 224]}}, and run again"
        )


def _text(feature_set: FeatureSet, arrays: dict[str, RowShape]) -> str:
    return ", ".join("×".join(map(str, arrays[stream]["shape"])) for stream in feature_set.streams)
