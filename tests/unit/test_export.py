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
    assert fps == pytest.approx(16 / 0.64), "16 frames a row, rows of 0.64 s"
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
    two = attributes(streams=streams, family="i3d", model="i3d_kinetics400")
    write_store(tmp_path / "s.zarr", {"motion": rows}, motion=two)
    export_store(tmp_path / "s.zarr", tmp_path / "out")
    out = tmp_path / "out" / "i3d"
    assert files(out) == {f"a_{key}.npy" for key in ("rgb", "flow", "fps", "timestamps_ms")}
    expected = video_arrays("a", 3, streams=streams)
    for stream in streams:
        assert np.array_equal(np.load(out / f"a_{stream}.npy"), expected[stream])
    assert np.load(out / "a_timestamps_ms.npy") == pytest.approx(1000 * expected["time_end"])
    assert np.load(out / "a_fps.npy") == pytest.approx(25)


def export_one(folder: Path, *, interval: int = 1, streams: tuple[str, ...], **of_set: str) -> Path:
    """Export three rows of one video in a set of its own."""
    rows = make_rows(folder / "part", {"a": 3}, streams=streams)
    described = attributes(streams=streams, parameters={"frame_interval": interval}, **of_set)
    write_store(folder / "s.zarr", {"one": rows}, one=described)
    export_store(folder / "s.zarr", folder / "out")
    return folder / "out"


def test_one_of_two_streams_keeps_its_name(tmp_path: Path) -> None:
    out = export_one(tmp_path, streams=("flow",), family="i3d", model="i3d_kinetics400")
    assert "i3d/a_flow.npy" in files(out)
    assert "i3d/a_i3d.npy" not in files(out)


def test_the_rate_is_that_of_the_frames_between_the_ones_of_a_window(tmp_path: Path) -> None:
    """16 frames, 3 apart, last (15·3 + 1) / fps seconds."""
    of_set = {"family": "i3d", "model": "i3d_kinetics400"}
    out = export_one(tmp_path, interval=3, streams=("rgb",), **of_set)
    assert np.load(out / "i3d/a_fps.npy") == pytest.approx((15 * 3 + 1) / 0.64)


def test_flow_has_a_time_for_every_frame_and_no_model_s_name(tmp_path: Path) -> None:
    out = export_one(tmp_path, streams=("flow",), family="flow", model="raft_sintel")
    assert files(out) == {f"raft/a_{key}.npy" for key in ("raft", "fps", "timestamps_ms")}
    times = np.load(out / "raft/a_timestamps_ms.npy")
    assert times == pytest.approx([0, 640, 1280, 1280 + 40])


def test_sound_is_float32_as_there(tmp_path: Path) -> None:
    out = export_one(tmp_path, streams=("audio",), family="vggish", model="vggish")
    assert files(out) == {"vggish/a_vggish.npy"}
    values = np.load(out / "vggish/a_vggish.npy")
    assert values.dtype == np.float32
    assert np.array_equal(values, video_arrays("a", 3, streams=("audio",))["audio"])


def test_a_model_with_a_slash_is_its_family_s(tmp_path: Path) -> None:
    out = export_one(tmp_path, streams=("rgb",), family="clip", model="clip/ViT-B-32")
    assert "clip/ViT-B-32/a_clip.npy" in files(out)


def test_models_that_export_to_one_name_would_overwrite_each_other(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "1", {"a": 3}, streams=("flow",))
    sets = {
        name: attributes(streams=("flow",), family="flow", model=name)
        for name in ("raft_sintel", "raft_kitti")
    }
    write_store(tmp_path / "s.zarr", dict.fromkeys(sets, rows), **sets)
    with pytest.raises(StoreError, match="--set NAME --out FOLDER"):
        export_store(tmp_path / "s.zarr", tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
