"""The manifest: one row per video and feature set, with everything known about it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from reelstack.config import FeatureSet
from reelstack.errors import StoreError
from reelstack.files import CHECKOUT, atomic_path, digest

SCHEMA_PATH = CHECKOUT / "workflow" / "schemas" / "manifest.schema.yaml"

_FROM_RESULT = "status error frames_decoded frames_used origin key".split()


def manifest_schema() -> dict[str, Any]:
    """The closed schema of a row; its properties are the columns, in order."""
    schema: dict[str, Any] = yaml.safe_load(SCHEMA_PATH.read_text())
    return schema


def write_manifest(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, sorted by video and set, as CSV; whole numbers stay whole beside gaps."""
    columns = manifest_schema()["properties"]
    table = pd.DataFrame(list(rows), columns=list(columns))
    table = table.sort_values(["video_id", "feature_set"], ignore_index=True)
    for column, rule in columns.items():
        if rule.get("type") == "integer":
            table[column] = pd.to_numeric(table[column]).astype("Int64")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def manifest_rows(
    feature_set: FeatureSet,
    probed: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    results: Mapping[str, Mapping[str, Any]],
    feature_dim: int,
    row_starts: Mapping[str, int],
    weights: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """The rows of one feature set.

    Args:
        probed: shard → the rows of its probe table.
        results: video_id → its row of the part.
        feature_dim: values of one row in the store.
        row_starts: video_id → first row in the store.
        weights: component → sha256.
    """
    common = {
        "feature_set": feature_set.name,
        "model": feature_set.model,
        "feature_dim": feature_dim,
        "weights_sha256": " ".join(weights.values()),
        "parameters_hash": digest(feature_set.parameters()),
    }
    for shard, table in probed.items():
        for facts in table:
            result = results[facts["video_id"]]
            known = {k: v for k, v in facts.items() if v != ""} | common
            path = os.fsencode(facts["path"]).decode("utf-8", "backslashreplace")
            start = row_starts[facts["video_id"]]
            yield known | {"path": path, "shard": shard, "row_start": start} | _outcome(result)


def _outcome(result: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that the extraction of a video decides."""
    count, fps = result.get("num_windows", 0), result.get("fps")
    return {
        "num_windows": count,
        "row_size": count,
        "fps_used": None if fps is None else round(fps, 6),
        **{k: result.get(k) for k in _FROM_RESULT},
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
