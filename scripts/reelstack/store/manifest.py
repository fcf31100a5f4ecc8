"""The manifest: one row per video and feature set, with everything known about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reelstack.config import FeatureSet
from reelstack.errors import StoreError
from reelstack.files import atomic_path, digest

MANIFEST_COLUMNS = (
    "video_id feature_set status error model shard num_windows feature_dim row_start "
    "row_size path sha256 size_bytes container codec pix_fmt width height rotation fps "
    "fps_real vfr frames_declared frames_decoded frames_used fps_used duration_seconds "
    "audio_codec audio_sample_rate audio_channels audio_duration_seconds weights_sha256 "
    "parameters_hash origin key"
).split()

_WHOLE_NUMBERS = (
    "num_windows feature_dim row_start row_size size_bytes width height rotation "
    "frames_declared frames_decoded frames_used audio_sample_rate audio_channels"
).split()


def write_manifest(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, sorted by video and set, as CSV; whole numbers stay whole beside gaps."""
    table = pd.DataFrame(list(rows), columns=MANIFEST_COLUMNS)
    table = table.sort_values(["video_id", "feature_set"], ignore_index=True)
    for column in _WHOLE_NUMBERS:
        table[column] = pd.to_numeric(table[column]).astype("Int64")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def manifest_rows(
    feature_set: FeatureSet,
    *,
    probed: Mapping[str, Mapping[str, str]],
    shards: Mapping[str, str],
    results: Mapping[str, Mapping[str, Any]],
    row_starts: Mapping[str, int],
    weights: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """The rows of one feature set.

    Args:
        probed: video_id → its row of the probe table.
        shards: video_id → shard.
        results: video_id → its row of the part.
        row_starts: video_id → first row in the store.
        weights: component → sha256.
    """
    for video_id, result in results.items():
        facts = {k: v for k, v in probed[video_id].items() if v != ""}
        path = facts["path"].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        count = result.get("num_windows", 0)
        yield facts | {
            "path": path,
            "feature_set": feature_set.name,
            "status": result["status"],
            "error": result["error"],
            "model": feature_set.model,
            "shard": shards[video_id],
            "num_windows": count,
            "feature_dim": feature_set.entry.feature_dim,
            "row_start": row_starts[video_id],
            "row_size": count,
            "frames_decoded": result.get("frames_decoded"),
            "frames_used": result.get("frames_used"),
            "fps_used": result.get("fps"),
            "weights_sha256": " ".join(weights.values()),
            "parameters_hash": digest(feature_set.parameters()),
            "origin": result.get("origin"),
            "key": result["key"],
        }


def read_manifest(path: Path | str) -> pd.DataFrame:
    """The manifest as a table; texts are never read as numbers or gaps.

    Raises:
        StoreError: if there is none.
    """
    if not Path(path).is_file():
        raise StoreError(f"{path}: no such manifest; a finished run writes it")
    texts = dict.fromkeys(("video_id", "feature_set", "path", "error", "sha256", "key"), str)
    return pd.read_csv(path, dtype=texts, keep_default_na=False)
