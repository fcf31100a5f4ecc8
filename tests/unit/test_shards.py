"""The shard plan: append-only, idempotent, safe against a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from reelstack.errors import ReelstackError
from reelstack.files import read_csv
from reelstack.ingest.inputs import Video
from reelstack.ingest.shards import live_shards, request_store, update_plan


def videos(*names: str, size: int = 10, mtime_ns: int = 1) -> list[Video]:
    return [Video(name, f"in/{name}.mp4", size, mtime_ns) for name in names]


def plan(folder: Path, found: list[Video], *, max_videos: int = 2, max_bytes: int = 1000) -> list:
    return update_plan(found, folder, max_videos=max_videos, max_bytes=max_bytes)


def assignment(folder: Path) -> dict[str, str]:
    return {row["video_id"]: row["shard"] for row in read_csv(folder / "shards.csv")}


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and mtime of everything but the lock."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.suffix != ".lock"]
    return {str(f): (f.read_bytes(), f.stat().st_mtime_ns) for f in files}


def test_videos_fill_shards_in_order(tmp_path: Path) -> None:
    assert plan(tmp_path, videos("b", "a", "e", "d", "c")) == ["s000000", "s000001", "s000002"]
    shards = assignment(tmp_path)
    assert [shards[n] for n in "abcde"] == ["s000000"] * 2 + ["s000001"] * 2 + ["s000002"]
    assert read_csv(tmp_path / "plan" / "s000001.csv") == [
        {"video_id": "c", "path": "in/c.mp4", "fingerprint": "10:1"},
        {"video_id": "d", "path": "in/d.mp4", "fingerprint": "10:1"},
    ]


def test_new_videos_fill_the_last_shard_first_and_touch_no_other(tmp_path: Path) -> None:
    plan(tmp_path, videos("b", "c", "d"))
    before = snapshot(tmp_path)
    old_lines = (tmp_path / "shards.csv").read_bytes()
    assert plan(tmp_path, videos("a", "b", "c", "d", "e", "f")) == [f"s00000{n}" for n in range(3)]
    shards = assignment(tmp_path)
    assert [shards[n] for n in "bcd"] == ["s000000", "s000000", "s000001"], "old ones moved"
    assert [shards[n] for n in "aef"] == ["s000001", "s000002", "s000002"]
    assert (tmp_path / "shards.csv").read_bytes().startswith(old_lines)
    first = str(tmp_path / "plan" / "s000000.csv")
    assert snapshot(tmp_path)[first] == before[first]


def test_planning_again_changes_no_byte_and_no_mtime(tmp_path: Path) -> None:
    plan(tmp_path, videos("a", "b", "c"))
    for file in tmp_path.rglob("*.csv"):
        os.utime(file, ns=(1, 1))
    before = snapshot(tmp_path)
    plan(tmp_path, videos("c", "b", "a"))
    assert snapshot(tmp_path) == before


def test_a_shard_is_bounded_by_bytes(tmp_path: Path) -> None:
    found = [*videos("a", size=600), *videos("b", size=500), *videos("c", size=400)]
    plan(tmp_path, found, max_videos=100, max_bytes=1000)
    assert assignment(tmp_path) == {"a": "s000000", "b": "s000001", "c": "s000001"}


def test_one_large_video_is_a_shard_of_its_own(tmp_path: Path) -> None:
    found = [*videos("a"), *videos("b", size=5000), *videos("c")]
    plan(tmp_path, found, max_videos=100, max_bytes=1000)
    assert assignment(tmp_path) == {"a": "s000000", "b": "s000001", "c": "s000002"}


def test_the_bounds_of_a_later_run_leave_old_shards_alone(tmp_path: Path) -> None:
    plan(tmp_path, videos("a", "b", "c"), max_videos=2)
    plan(tmp_path, videos("a", "b", "c", "d", "e"), max_videos=1)
    shards = assignment(tmp_path)
    assert [shards[n] for n in "abc"] == ["s000000", "s000000", "s000001"]
    assert [shards[n] for n in "de"] == ["s000002", "s000003"]


def test_a_video_that_comes_back_has_its_old_shard(tmp_path: Path) -> None:
    plan(tmp_path, videos("a", "b", "c"))
    assert plan(tmp_path, videos("c")) == ["s000001"]
    assert live_shards(tmp_path) == ["s000001"]
    assert plan(tmp_path, videos("a", "c")) == ["s000000", "s000001"]
    assert assignment(tmp_path) == {"a": "s000000", "b": "s000000", "c": "s000001"}
    listed = [row["video_id"] for row in read_csv(tmp_path / "plan" / "s000000.csv")]
    assert listed == ["a"], "an absent video is in no plan"


def test_changed_content_shows_in_its_shards_plan_only(tmp_path: Path) -> None:
    plan(tmp_path, videos("a", "b", "c"))
    before = snapshot(tmp_path)
    plan(tmp_path, [*videos("a", "b"), *videos("c", mtime_ns=0)])  # older, yet changed
    after = snapshot(tmp_path)
    changed = {Path(name).name for name in after if after[name] != before[name]}
    assert changed == {"s000001.csv"}


def test_a_torn_last_line_is_planned_again(tmp_path: Path) -> None:
    plan(tmp_path, videos("a", "b", "c"))
    whole = (tmp_path / "shards.csv").read_bytes()
    (tmp_path / "shards.csv").write_bytes(whole[:-4])  # killed while writing the line of "c"
    assert plan(tmp_path, videos("a", "b", "c")) == ["s000000", "s000001"]
    assert (tmp_path / "shards.csv").read_bytes() == whole


def test_a_torn_header_is_planned_again(tmp_path: Path) -> None:
    (tmp_path / "shards.csv").write_bytes(b"video_id,sh")
    plan(tmp_path, videos("a"))
    assert assignment(tmp_path) == {"a": "s000000"}


def test_ids_with_commas_quotes_and_newlines(tmp_path: Path) -> None:
    names = ('a, "b"', "line\nbreak", "ünï", r"odd\xff")
    plan(tmp_path, videos(*names))
    plan(tmp_path, videos(*names, "z"))
    assert set(assignment(tmp_path)) == {*names, "z"}


def test_paths_that_are_no_utf8_survive(tmp_path: Path) -> None:
    path = os.fsdecode(b"in/\xff.mp4")
    plan(tmp_path, [Video("x", path, 1, 1)])
    assert read_csv(tmp_path / "plan" / "s000000.csv")[0]["path"] == path


def test_a_job_before_any_plan_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReelstackError, match=r"live\.txt is missing: start snakemake"):
        live_shards(tmp_path)


def test_the_store_is_asked_for_only_when_it_went(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    stamp = tmp_path / "plan" / "store.stamp"
    request_store(tmp_path)
    assert stamp.exists()
    os.utime(stamp, (100, 100))
    request_store(tmp_path)
    assert stamp.stat().st_mtime == 100, "no run has finished yet: nothing is lost"
    manifest = tmp_path / "manifest.csv"
    manifest.touch()
    (tmp_path / "store.zarr").mkdir()
    request_store(tmp_path)
    assert stamp.stat().st_mtime == 100, "the store is there"
    (tmp_path / "store.zarr").rmdir()
    os.utime(manifest, (200, 200))
    request_store(tmp_path)
    asked = stamp.stat().st_mtime
    assert asked > 200, "the store went: aggregate has to run"
    os.utime(stamp, (300, 300))
    request_store(tmp_path)
    assert stamp.stat().st_mtime == 300, "asked once, also by a dry run"
