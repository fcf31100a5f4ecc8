"""Export in the names and types of video_features."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from reelstack.errors import StoreError
from reelstack.store.export import export_store
from store_factory import attributes, make_rows, video_arrays, write_store

MODEL = "r2plus1d_tiny_motion"


def files(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    videos = {"a": 3, "sub/b c": 1, "short": 0, "cut": 2, "bad": 0}
    statuses = {"short": "too_short", "cut": "truncated", "bad": "unreadable"}
    rows = make_rows(tmp_path / "1", videos, statuses=statuses)
    resnet = attributes(family="resnet", model="resnet50")
    write_store(tmp_path / "store.zarr", {"motion": rows, "frames": rows}, frames=resnet)
    return tmp_path / "store.zarr"


def test_windowed_features_as_npy(tmp_path: Path, store: Path) -> None:
    out = tmp_path / "out"
    assert export_store(store, out, sets=["motion"]) == 4
    folder = f"r21d/{MODEL}"
    assert files(out) == {
        f"{folder}/a_r21d.npy",
        f"{folder}/sub/b c_r21d.npy",
        f"{folder}/short_r21d.npy",
        f"{folder}/cut_r21d.npy",
    }
    values = np.load(out / folder / "a_r21d.npy")
    assert values.dtype == np.float64
    assert np.array_equal(values, video_arrays("a", 3)["rgb"].astype(np.float64))
    empty = np.load(out / folder / "short_r21d.npy")
    assert (empty.shape, empty.dtype) == ((0,), np.float64)


def test_frame_wise_features_have_rate_and_times(tmp_path: Path, store: Path) -> None:
    out = tmp_path / "out"
    assert export_store(store, out, sets=["frames"]) == 12
    folder = out / "resnet" / "resnet50"
    assert {"a_resnet.npy", "a_fps.npy", "a_timestamps_ms.npy"} <= files(folder)
    fps = np.load(folder / "a_fps.npy")
    assert (fps.shape, fps.dtype) == ((), np.float64)
    assert fps == pytest.approx(1 / 0.64)
    assert np.load(folder / "a_timestamps_ms.npy") == pytest.approx([0.0, 640.0, 1280.0])


def test_as_pickle(tmp_path: Path, store: Path) -> None:
    out = tmp_path / "out"
    export_store(store, out, file_format="pickle", sets=["motion"])
    with open(out / "r21d" / MODEL / "cut_r21d.pkl", "rb") as file:
        values = pickle.load(file)
    assert values.dtype == np.float64
    assert np.array_equal(values, video_arrays("cut", 2)["rgb"].astype(np.float64))


def test_all_sets_by_default(tmp_path: Path, store: Path) -> None:
    assert export_store(store, tmp_path / "out") == 4 + 12


def test_two_streams_are_named_by_stream(tmp_path: Path) -> None:
    streams = ("rgb", "flow")
    rows = make_rows(tmp_path / "1", {"a": 3}, streams=streams)
    two = attributes(streams=list(streams), family="i3d", model="i3d_x")
    write_store(tmp_path / "s.zarr", {"motion": rows}, motion=two)
    export_store(tmp_path / "s.zarr", tmp_path / "out")
    assert files(tmp_path / "out" / "i3d" / "i3d_x") >= {"a_rgb.npy", "a_flow.npy"}


def test_sets_of_one_model_would_overwrite_each_other(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "1", {"a": 3})
    write_store(tmp_path / "s.zarr", {"x": rows, "y": rows})
    with pytest.raises(StoreError, match=f"the sets x, y have the model {MODEL}") as caught:
        export_store(tmp_path / "s.zarr", tmp_path / "out")
    assert "--set NAME --out FOLDER" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert export_store(tmp_path / "s.zarr", tmp_path / "out", sets=["y"]) == 1


def test_an_unknown_set(tmp_path: Path, store: Path) -> None:
    with pytest.raises(StoreError, match="no feature set 'moton'; the store has: frames, motion"):
        export_store(store, tmp_path / "out", sets=["moton"])
