"""The store: appends, rebuilds, describes itself, and gives back what went in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from reelstack.errors import StoreError
from reelstack.features import Features
from reelstack.store import writer
from reelstack.store.reader import FeatureGroup, open_store
from store_factory import attributes, make_rows, video_arrays, write_store


def assert_holds(group: FeatureGroup, videos: dict[str, int], **versions: int) -> None:
    assert list(group) == list(videos)
    for video_id, count in videos.items():
        expected = video_arrays(video_id, count, version=versions.get(video_id, 1))
        assert_equal(group[video_id], expected)


def assert_equal(features: Features, expected: dict[str, np.ndarray]) -> None:
    for name in ("time_start", "time_end", "valid_frames"):
        assert np.array_equal(getattr(features, name), expected[name]), name
        assert getattr(features, name).dtype == expected[name].dtype
    for stream, values in features.streams.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, expected[stream]), stream
    assert features.predictions is not None
    assert np.array_equal(features.predictions.class_index, expected["class_index"])
    assert np.array_equal(features.predictions.score, expected["score"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.zarr"


def test_what_went_in_comes_out(tmp_path: Path, store: Path) -> None:
    videos = {"a": 3, "sub/ünï b": 1, "empty": 0, "z": 40}
    rows = make_rows(tmp_path / "p", videos, statuses={"empty": "too_short", "a": "truncated"})
    write_store(store, {"motion": rows})
    opened = open_store(store)
    assert list(opened) == ["motion"]
    assert len(opened) == 1
    assert (opened.config, opened.provenance) == ({"a": 1}, {"b": 2})
    group = opened["motion"]
    assert len(group) == 4
    assert_holds(group, videos)
    assert (group["a"].status, group["a"].error) == ("truncated", "why truncated")
    assert (group["z"].status, group["z"].error) == ("ok", "")
    assert group["empty"].status == "too_short"
    assert group["empty"].streams["rgb"].shape == (0, 6)
    first = int(group["a"].predictions.class_index[0, 0])
    assert group["a"].predictions.names(0)[0] == f"label {first}"


def test_names_that_are_not_there(tmp_path: Path, store: Path) -> None:
    write_store(store, {"motion": make_rows(tmp_path / "p", {"holiday": 1})})
    opened = open_store(store)
    with pytest.raises(KeyError, match=r"no feature set 'motoin'; has: motion\. Did you mean"):
        opened["motoin"]
    with pytest.raises(KeyError, match=r"no video 'holliday' in the set\. Did you mean 'holiday'"):
        opened["motion"]["holliday"]
    with pytest.raises(StoreError, match=r"is no Zarr store; a run writes it to"):
        open_store(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_new_videos_are_appended_and_old_chunks_not_written(tmp_path: Path, store: Path) -> None:
    old = make_rows(tmp_path / "1", {"b": 3, "a": 2})
    write_store(store, {"motion": old})
    inode = (store / "motion").stat().st_ino
    before = zarr.open_group(store, mode="r")["motion"]
    kept = {name: before[name][:] for name in ("features", "row_start", "video_id")}
    write_store(store, {"motion": old | make_rows(tmp_path / "2", {"A": 4, "c": 0})})
    after = zarr.open_group(store, mode="r")["motion"]
    for name, values in kept.items():
        assert np.array_equal(after[name][: len(values)], values), name
    assert_holds(open_store(store)["motion"], {"b": 3, "a": 2, "A": 4, "c": 0})
    assert (store / "motion").stat().st_ino == inode, "rebuilt instead of appended to"


def test_an_append_leaves_full_files_alone(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reelstack.store.layout.CHUNK_BYTES", 48)  # 2 rows a chunk
    monkeypatch.setattr("reelstack.store.layout.SHARD_CHUNKS", 2)  # 4 rows a file
    old = make_rows(tmp_path / "1", {"a": 8})
    write_store(store, {"motion": old})
    files = {k: v for k, v in contents(store / "motion/features").items() if "c/" in k}
    assert len(files) == 2
    mtimes = {k: (store / "motion/features" / k).stat().st_mtime_ns for k in files}
    write_store(store, {"motion": old | make_rows(tmp_path / "2", {"b": 5})})
    assert {k: (store / "motion/features" / k).stat().st_mtime_ns for k in files} == mtimes
    assert_holds(open_store(store)["motion"], {"a": 8, "b": 5})


def test_the_same_again_changes_no_byte(tmp_path: Path, store: Path) -> None:
    rows = make_rows(tmp_path / "1", {"a": 2, "b": 3})
    write_store(store, {"motion": rows})
    before = contents(store)
    write_store(store, {"motion": rows})
    assert contents(store) == before


def test_a_changed_video_rebuilds_its_set_and_no_other(tmp_path: Path, store: Path) -> None:
    rows = make_rows(tmp_path / "1", {"a": 2, "b": 3})
    write_store(store, {"motion": rows, "other": rows})
    other = contents(store / "other")
    changed = make_rows(tmp_path / "2", {"a": 5, "b": 3}, versions={"a": 2})
    write_store(store, {"motion": changed, "other": rows})
    assert_holds(open_store(store)["motion"], {"a": 5, "b": 3}, a=2)
    assert contents(store / "other") == other


def test_a_changed_status_is_seen(tmp_path: Path, store: Path) -> None:
    write_store(store, {"motion": make_rows(tmp_path / "1", {"a": 2})})
    rows = make_rows(tmp_path / "2", {"a": 2}, statuses={"a": "truncated"})
    write_store(store, {"motion": rows})
    assert open_store(store)["motion"]["a"].status == "truncated"


def test_a_removed_video_goes(tmp_path: Path, store: Path) -> None:
    write_store(store, {"motion": make_rows(tmp_path / "1", {"a": 2, "b": 3, "c": 1})})
    write_store(store, {"motion": make_rows(tmp_path / "2", {"a": 2, "c": 1})})
    assert_holds(open_store(store)["motion"], {"a": 2, "c": 1})
    assert zarr.open_group(store, mode="r")["motion"]["features"].shape == (3, 6)


def test_a_removed_set_goes(tmp_path: Path, store: Path) -> None:
    rows = make_rows(tmp_path / "1", {"a": 2})
    write_store(store, {"motion": rows, "other": rows})
    write_store(store, {"motion": rows})
    assert list(open_store(store)) == ["motion"]
    assert not (store / "other").exists()


@pytest.mark.parametrize("change", [{"top_k": 0}, {"streams": ["rgb", "flow"]}])
def test_another_layout_rebuilds(tmp_path: Path, store: Path, change: dict[str, Any]) -> None:
    rows = make_rows(tmp_path / "1", {"a": 2}, streams=("rgb", "flow"))
    plain = make_rows(tmp_path / "2", {"a": 2})
    write_store(store, {"motion": plain})
    if "top_k" in change:
        for _, row in (rows := make_rows(tmp_path / "3", {"b": 0})).values():
            row["num_windows"] = 0
    write_store(store, {"motion": rows}, motion=attributes(**change))
    group = zarr.open_group(store, mode="r")["motion"]
    names = set(group.array_keys())
    if "top_k" in change:
        assert not names & {"class_index", "score"}
        assert open_store(store)["motion"]["b"].predictions is None
    else:
        assert {"features_rgb", "features_flow"} <= names
        assert "features" not in names
        expected = video_arrays("a", 2, streams=("rgb", "flow"))
        assert_equal(open_store(store)["motion"]["a"], expected)
        dims = [group[n].metadata.dimension_names for n in ("features_rgb", "features_flow")]
        assert dims == [("obs", "feature_rgb"), ("obs", "feature_flow")]


def test_attributes_follow_every_run(tmp_path: Path, store: Path) -> None:
    rows = make_rows(tmp_path / "1", {"a": 2})
    write_store(store, {"motion": rows})
    write_store(store, {"motion": rows}, motion=attributes(provenance=["new"]))
    assert open_store(store)["motion"].attributes["provenance"] == ["new"]


def test_a_set_without_any_video_or_row(tmp_path: Path, store: Path) -> None:
    write_store(store, {"none": {}, "empty": make_rows(tmp_path / "1", {"a": 0, "b": 0})})
    opened = open_store(store)
    assert dict(opened["none"]) == {}
    assert [len(features) for features in opened["empty"].values()] == [0, 0]
    write_store(store, {"none": make_rows(tmp_path / "2", {"c": 2}), "empty": {}})
    assert_holds(open_store(store)["none"], {"c": 2})
    assert len(open_store(store)["empty"]) == 0


def test_rows_are_gathered_before_they_are_written(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FLUSH_BYTES", 100)
    videos = {f"v{n}": n % 7 for n in range(30)}
    write_store(store, {"motion": make_rows(tmp_path / "1", videos)})
    assert_holds(open_store(store)["motion"], videos)


class TestXarray:
    """Opens with no code of ours, and says what everything is."""

    @pytest.fixture
    def dataset(self, tmp_path: Path, store: Path) -> xarray.Dataset:
        rows = make_rows(tmp_path / "1", {"a": 3, "empty": 0, "b": 2})
        write_store(store, {"motion": rows})
        return xarray.open_zarr(store, group="motion", consolidated=False)

    def test_opens_with_its_dimensions(self, dataset: xarray.Dataset) -> None:
        assert dict(dataset.sizes) == {"obs": 5, "feature": 6, "rank": 3, "video": 3}
        assert dataset.attrs["Conventions"].startswith("CF-")

    def test_everything_has_units_and_a_long_name(self, dataset: xarray.Dataset) -> None:
        for name, variable in dataset.variables.items():
            assert variable.attrs.get("long_name") or variable.encoding.get("long_name"), name
            assert variable.attrs.get("units") or variable.encoding.get("units"), name

    def test_times_are_coordinates_in_seconds(self, dataset: xarray.Dataset) -> None:
        assert {"time_start", "time_end", "video_id"} <= set(dataset.coords)
        for name in ("time_start", "time_end"):
            assert dataset[name].dtype == np.float64, "taken for dates"
            assert dataset[name].attrs["units"] == "s"

    def test_ragged_rows_follow_the_convention(self, dataset: xarray.Dataset) -> None:
        assert dataset["row_size"].attrs["sample_dimension"] == "obs"
        sizes, starts = dataset["row_size"].values, dataset["row_start"].values
        assert sizes.tolist() == [3, 0, 2]
        assert starts.tolist() == [0, 3, 3]
        assert dataset["video_index"].values.tolist() == [0, 0, 0, 2, 2]
        assert dataset["video_id"].values.tolist() == ["a", "empty", "b"]
        rows = dataset["features"].values[starts[2] : starts[2] + sizes[2]]
        assert np.array_equal(rows, video_arrays("b", 2)["rgb"])
