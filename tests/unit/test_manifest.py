"""The manifest: the schema's columns, and rows that keep to it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from reelstack.errors import VIDEO_STATUSES, StoreError
from reelstack.store.manifest import manifest_schema, read_manifest, write_manifest

ROW = {
    "video_id": "b",
    "feature_set": "r21d",
    "status": "ok",
    "error": "",
    "model": "resnet18",
    "shard": "s000000",
    "num_windows": 3,
    "row_start": 0,
    "row_size": 3,
    "path": "in/b.mp4",
    "key": "00ff",
    "frames_declared": "12",
}


def test_statuses_in_the_schema_are_those_of_the_library() -> None:
    assert manifest_schema()["properties"]["status"]["enum"] == list(VIDEO_STATUSES)


def test_every_column_is_described() -> None:
    schema = manifest_schema()
    Draft202012Validator.check_schema(schema)
    assert all(rule.get("description") for rule in schema["properties"].values())


def test_rows_are_sorted_and_whole_numbers_stay_whole_beside_gaps(tmp_path: Path) -> None:
    gap = ROW | {"video_id": "a", "frames_declared": None, "status": "missing", "row_start": 3}
    write_manifest(tmp_path / "m.csv", [ROW, gap])
    with open(tmp_path / "m.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(manifest_schema()["properties"])
    assert (first["video_id"], first["frames_declared"]) == ("a", "")
    assert (second["video_id"], second["frames_declared"]) == ("b", "12")


def test_an_id_that_looks_like_a_number_or_a_gap_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [ROW | {"video_id": name} for name in ("007", "NA", "1e5")]
    write_manifest(tmp_path / "m.csv", rows)
    assert list(read_manifest(tmp_path / "m.csv")["video_id"]) == ["007", "1e5", "NA"]


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"m\.csv: no such manifest"):
        read_manifest(tmp_path / "m.csv")
