"""A store whose writer was killed: readers see what is committed, the next run repairs it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from reelstack.store import writer
from reelstack.store.layout import VIDEO_SPECS
from reelstack.store.reader import open_store
from reelstack.store.writer import cut_uncommitted
from store_factory import make_rows, video_arrays, write_store

OLD = {"a": 3, "b": 2}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store.zarr"
    write_store(store, {"motion": make_rows(tmp_path / "old", OLD)})
    return store


def open_group(store: Path, mode: str = "r+") -> Any:
    return zarr.open_group(store, mode=mode)["motion"]


def assert_holds(store: Path, videos: dict[str, int]) -> None:
    group = open_store(store)["motion"]
    assert list(group) == list(videos)
    for video_id, count in videos.items():
        expected = video_arrays(video_id, count)
        assert np.array_equal(group[video_id].streams["rgb"], expected["rgb"]), video_id
        assert np.array_equal(group[video_id].time_start, expected["time_start"]), video_id


def add_rows(store: Path, count: int) -> None:
    """What a run leaves that was killed before it wrote the index."""
    group = open_group(store)
    for name, array in group.arrays():
        if name not in VIDEO_SPECS:
            array.resize((array.shape[0] + count, *array.shape[1:]))
            array[-count:] = 7


@pytest.mark.parametrize("columns", range(len(VIDEO_SPECS) + 1))
def test_a_kill_while_the_index_was_written(tmp_path: Path, store: Path, columns: int) -> None:
    """Killed after `columns` of the index had grown, for each of them."""
    add_rows(store, 4)
    group = open_group(store)
    for name in list(VIDEO_SPECS)[:columns]:
        array = group[name]
        array.resize((3,))
        array[2:] = np.array(["torn"], dtype=object) if array.dtype.kind in "OTU" else [5]
    if columns < len(VIDEO_SPECS) - 1:  # `key`, the last, is not for readers
        assert_holds(store, OLD)
        assert "torn" not in open_store(store)["motion"]
    rows = make_rows(tmp_path / "old", OLD) | make_rows(tmp_path / "new", {"c": 4})
    write_store(store, {"motion": rows})
    assert_holds(store, OLD | {"c": 4})
    assert open_group(store)["features"].shape[0] == 9, "rows of the killed run are left"


def test_a_kill_while_rows_were_written(tmp_path: Path, store: Path) -> None:
    """The arrays of rows have different lengths then."""
    group = open_group(store)
    for name, extra in (("features", 9), ("time_start", 4)):
        array = group[name]
        array.resize((array.shape[0] + extra, *array.shape[1:]))
    assert_holds(store, OLD)
    rows = make_rows(tmp_path / "old", OLD) | make_rows(tmp_path / "new", {"c": 1, "d": 0})
    write_store(store, {"motion": rows})
    assert_holds(store, OLD | {"c": 1, "d": 0})
    lengths = {n: a.shape[0] for n, a in open_group(store).arrays() if n not in VIDEO_SPECS}
    assert set(lengths.values()) == {6}


def test_rows_without_an_index_are_cut_off(store: Path) -> None:
    add_rows(store, 4)
    assert cut_uncommitted(open_group(store)) == {"a": 0, "b": 1}
    assert {a.shape[0] for n, a in open_group(store).arrays() if n not in VIDEO_SPECS} == {5}


def test_a_kill_before_the_first_index(tmp_path: Path, store: Path) -> None:
    group = open_group(store)
    for name in VIDEO_SPECS:
        group[name].resize((0,))
    assert len(open_store(store)["motion"]) == 0
    write_store(store, {"motion": make_rows(tmp_path / "old", OLD)})
    assert_holds(store, OLD)
    assert open_group(store)["features"].shape[0] == 5


def test_a_kill_while_a_set_was_rebuilt(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old set stays readable until the new one is complete."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    changed = make_rows(tmp_path / "new", {"a": 6}, versions={"a": 1})
    monkeypatch.setattr(writer, "_put_in_place", killed)
    with pytest.raises(KeyboardInterrupt):
        write_store(store, {"motion": changed})
    assert_holds(store, OLD)
    assert list(open_store(store)) == ["motion"]
    monkeypatch.undo()
    write_store(store, {"motion": changed})
    assert_holds(store, {"a": 6})


def test_groups_are_swapped_without_the_system_s_help(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    write_store(store, {"motion": make_rows(tmp_path / "new", {"z": 4})})
    assert_holds(store, {"z": 4})
    assert sorted(p.name for p in store.iterdir()) == ["motion", "zarr.json"]


def test_nothing_is_left_beside_the_groups(tmp_path: Path, store: Path) -> None:
    write_store(store, {"motion": make_rows(tmp_path / "new", {"z": 4})})
    assert sorted(p.name for p in store.iterdir()) == ["motion", "zarr.json"]
    assert list((tmp_path / ".state" / "store").iterdir()) == []


def test_a_reader_that_is_open_keeps_its_videos_while_others_are_appended(
    tmp_path: Path, store: Path
) -> None:
    group = open_store(store)["motion"]
    assert len(group) == 2
    rows = make_rows(tmp_path / "old", OLD) | make_rows(tmp_path / "new", {"c": 4})
    write_store(store, {"motion": rows})
    assert np.array_equal(group["b"].streams["rgb"], video_arrays("b", 2)["rgb"])
    assert list(group) == ["a", "b"]
