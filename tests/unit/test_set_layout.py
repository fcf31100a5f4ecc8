"""What the rows of a set look like in the store: any shape, one per set; flow at one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from reelstack.config import FeatureSet, load_config
from reelstack.errors import StoreError
from reelstack.extract.parts import Part, VideoFolder, write_part
from reelstack.store.flow_size import resize_flow
from reelstack.store.layout import TIME_ROWS
from reelstack.store.reader import open_store
from reelstack.store.set_layout import Rows, set_layout
from reelstack.store.writer import update_store
from store_factory import attributes

RESNET, RAFT = "resnet18", "raft_sintel"


def feature_set(model: str, **settings: Any) -> FeatureSet:
    sets = {"mine": {"model": model, **settings}}
    return load_config({"videos": ["in"], "features": sets}).feature_sets["mine"]


def rows(folder: Path, stream: str = "rgb", **videos: np.ndarray | None) -> Rows:
    """A part with the features of each video; None: a broken one."""
    table, folders = [], {}
    for video_id, values in videos.items():
        key = f"{video_id}-{'' if values is None else values.tobytes().hex()[:40]}"
        row: dict[str, Any] = {"video_id": video_id, "key": key, "status": "ok", "error": ""}
        if values is not None:
            target = VideoFolder(folder, video_id)
            count = len(values)
            times = {
                "time_start": np.arange(count) / 25,
                "time_end": np.arange(1, count + 1) / 25,
                "valid_frames": np.ones(count, np.int32),
            }
            with target as writer:
                writer.append({stream: values} | times)
                row |= {"num_windows": count, "arrays": writer.layout()}
            folders[key] = target.path
        table.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    write_part(folder / "p.npz", table, folders=folders, previous=None, provenance={})
    part = Part(folder / "p.npz")
    return {row["video_id"]: (part, row) for row in part.rows}


def write(store: Path, of_set: FeatureSet, videos: Rows) -> dict[str, Any]:
    """The aggregating job's way from parts to the store; returns the layout."""
    layout = set_layout(of_set, videos)
    described = attributes(model=of_set.model, family=of_set.entry.family) | layout
    update_store(store, {"mine": videos}, {"mine": described, "": {"config": {}}})
    return layout


def values(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


class TestLayout:
    def test_is_read_off_the_rows(self, tmp_path: Path) -> None:
        videos = rows(tmp_path, a=values(3, 512), b=None, c=values(1, 512))
        layout = set_layout(feature_set(RESNET), videos)
        assert layout == {
            "streams": ["rgb"],
            "arrays": {"rgb": {"dtype": "float32", "shape": [512]}} | TIME_ROWS,
            "size": None,
            "feature_dim": 512,
        }

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_without_a_row_it_is_the_registry_s(self, tmp_path: Path, dtype: str) -> None:
        layout = set_layout(feature_set(RESNET, dtype=dtype), rows(tmp_path, a=None))
        assert layout["arrays"]["rgb"] == {"dtype": dtype, "shape": [512]}
        assert layout["feature_dim"] == 512

    def test_videos_whose_rows_differ_are_named(self, tmp_path: Path) -> None:
        videos = rows(tmp_path, first=values(2, 64, 7, 9), other=None, second=values(2, 64, 7, 12))
        with pytest.raises(StoreError) as caught:
            set_layout(feature_set(RESNET, layer="layer1", pool="none"), videos)
        text = str(caught.value)
        assert "set mine: the rows of second (64×7×12) differ from those of first (64×7×9)" in text
        assert "choose pool: mean or max" in text

    @pytest.mark.parametrize("model", [RAFT, "pwc_sintel"])
    def test_flow_without_a_size(self, tmp_path: Path, model: str) -> None:
        with pytest.raises(StoreError) as caught:
            set_layout(feature_set(model), rows(tmp_path, "flow", a=values(3, 2, 6, 8)))
        text = str(caught.value)
        assert "set mine: its flow maps have the size of each video (a: 2×6×8)" in text
        assert f"mine: {{model: {model}, size: [224, 224]}}" in text
        assert "Nothing computed is lost" in text

    def test_flow_with_a_size(self, tmp_path: Path) -> None:
        videos = rows(tmp_path, "flow", a=values(3, 2, 6, 8), b=values(1, 2, 60, 80))
        layout = set_layout(feature_set(RAFT, size=[12, 10]), videos)
        assert layout["arrays"]["flow"] == {"dtype": "float32", "shape": [2, 12, 10]}
        assert (layout["size"], layout["feature_dim"]) == ([12, 10], 2 * 12 * 10)
        assert videos["a"][1]["arrays"]["flow"]["shape"] == [2, 6, 8], "the part's own was changed"

    @pytest.mark.parametrize("model", [RAFT, "timm/resnet18", "hf/owner/name", RESNET])
    def test_a_set_of_broken_videos_is_stored_whatever_the_model(
        self, tmp_path: Path, model: str
    ) -> None:
        """Of some models only a row says how long it is."""
        of_set = feature_set(model)
        write(tmp_path / "s.zarr", of_set, rows(tmp_path / "1", a=None, b=None))
        group = open_store(tmp_path / "s.zarr")["mine"]
        assert list(group) == ["a", "b"]
        assert len(group["a"]) == 0

    def test_the_first_row_after_broken_videos(self, tmp_path: Path) -> None:
        of_set = feature_set("timm/resnet18")
        broken = rows(tmp_path / "1", a=None)
        write(tmp_path / "s.zarr", of_set, broken)
        features = values(3, 7)
        write(tmp_path / "s.zarr", of_set, broken | rows(tmp_path / "2", b=features))
        stored = open_store(tmp_path / "s.zarr")["mine"]
        assert np.array_equal(stored["b"].streams["rgb"], features)
        assert len(stored["a"]) == 0


class TestStore:
    @pytest.mark.parametrize("shape", [(512,), (9, 5), (4, 7, 7), (4, 2, 7, 7)])
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_rows_of_every_shape_and_type_come_back(
        self, tmp_path: Path, shape: tuple[int, ...], dtype: str
    ) -> None:
        of_set = feature_set(RESNET, layer="layer4", pool="none", dtype=dtype)
        arrays = {"a": values(3, *shape, dtype=dtype), "b": values(2, *shape, dtype=dtype)}
        write(tmp_path / "s.zarr", of_set, rows(tmp_path, **arrays))
        stored = open_store(tmp_path / "s.zarr")["mine"]
        for name, array in arrays.items():
            found = stored[name].streams["rgb"]
            assert found.dtype == np.dtype(dtype)
            assert np.array_equal(found, array)
        dataset = xarray.open_zarr(tmp_path / "s.zarr", group="mine", consolidated=False)
        axes = [f"feature_{n}" for n in range(len(shape))] if len(shape) > 1 else ["feature"]
        assert dataset["features"].dims == ("obs", *axes)

    def test_flow_of_every_size_is_stored_at_one(self, tmp_path: Path) -> None:
        arrays = {"a": values(3, 2, 12, 10), "b": values(2, 2, 24, 40), "c": values(1, 2, 6, 5)}
        videos = rows(tmp_path / "1", "flow", **arrays)
        of_set = feature_set(RAFT, size=[12, 10])
        write(tmp_path / "s.zarr", of_set, videos)
        stored = open_store(tmp_path / "s.zarr")["mine"]
        assert np.array_equal(stored["a"].streams["flow"], arrays["a"])
        for name in "bc":
            found = stored[name].streams["flow"]
            assert np.array_equal(found, resize_flow(arrays[name], [12, 10]))

    def test_another_size_is_stored_anew_from_the_same_parts(self, tmp_path: Path) -> None:
        flow = values(3, 2, 12, 10)
        videos = rows(tmp_path / "1", "flow", a=flow)
        for size in ([12, 10], [6, 5]):
            write(tmp_path / "s.zarr", feature_set(RAFT, size=size), videos)
            found = open_store(tmp_path / "s.zarr")["mine"]["a"].streams["flow"]
            assert found.shape == (3, 2, *size)
        assert np.array_equal(found, resize_flow(flow, [6, 5]))


def constant(height: int, width: int, dtype: Any = np.float32) -> np.ndarray:
    """Everything moves by 3 pixels to the right and 2 upwards."""
    flow = np.empty((2, 2, height, width), dtype)
    flow[:, 0], flow[:, 1] = 3, -2
    return flow


class TestFlowSize:
    @pytest.mark.parametrize("size", [(12, 40), (48, 10), (24, 20), (7, 31), (1, 1)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_a_constant_flow_stays_one_in_pixels_of_its_map(
        self, size: tuple[int, int], dtype: Any
    ) -> None:
        resized = resize_flow(constant(24, 20, dtype), size)
        assert (resized.shape, resized.dtype) == ((2, 2, *size), dtype)
        tolerance = 1e-5 if dtype == np.float32 else 2e-3
        assert resized[:, 0] == pytest.approx(3 * size[1] / 20, rel=tolerance)
        assert resized[:, 1] == pytest.approx(-2 * size[0] / 24, rel=tolerance)

    def test_a_map_of_the_right_size_is_not_touched(self) -> None:
        flow = values(2, 2, 24, 20, dtype=np.float16)
        assert resize_flow(flow, [24, 20]) is flow

    def test_the_axes_are_not_mixed_up(self) -> None:
        flow = np.zeros((1, 2, 8, 8), np.float32)
        flow[:, :, :, 4:] = 1  # the right half moves
        resized = resize_flow(flow, (8, 16))
        assert resized[0, 0, :, :6].max() == 0
        assert resized[0, 0, :, -6:] == pytest.approx(2)
        assert resized[0, 1, :, -6:] == pytest.approx(1)

    def test_a_smaller_map_has_means_and_no_samples(self) -> None:
        flow = values(1, 2, 64, 64)
        resized = resize_flow(flow, (8, 8)) * 8
        assert resized.mean((2, 3)) == pytest.approx(flow.mean((2, 3)), abs=0.02)
        assert resized.std() < 0.3 * flow.std()

    def test_rows_are_resized_each_by_itself(self) -> None:
        flow = values(5, 2, 9, 7)
        alone = np.concatenate([resize_flow(flow[n : n + 1], (13, 4)) for n in range(5)])
        assert np.array_equal(resize_flow(flow, (13, 4)), alone)
