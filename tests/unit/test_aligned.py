"""Several sets on one time grid: against loops row by row, and at every edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from reelstack.errors import ConfigError, StoreError
from reelstack.extract.parts import Part, VideoFolder, write_part
from reelstack.store.layout import TIME_ROWS, VIDEO_SPECS
from reelstack.store.reader import Store, open_store
from reelstack.store.writer import update_store

Arrays = dict[str, np.ndarray]
Video = Arrays | tuple[str, str]
"""What a video has in a set: its rows, or a status and its error."""


def rows(
    start: Any, length: Any, *, streams: tuple[str, ...] = ("rgb",), **options: Any
) -> dict[str, np.ndarray]:
    """Random features of windows that start at `start` and last `length` seconds."""
    start = np.asarray(start, np.float64)
    shape, dtype = options.get("shape", (3,)), options.get("dtype", np.float32)
    generator = np.random.default_rng(options.get("seed", 0))
    features = {s: generator.normal(size=(len(start), *shape)).astype(dtype) for s in streams}
    valid = {"valid_frames": np.full(len(start), 16, np.int32)}
    return features | {"time_start": start, "time_end": start + length} | valid


def random_rows(generator: np.random.Generator, **options: Any) -> dict[str, np.ndarray]:
    """Windows at uneven times, overlapping or with gaps, of uneven lengths."""
    count = int(generator.integers(1, 30))
    start = generator.uniform(-0.1, 0.5) + np.cumsum(generator.uniform(0.05, 1.5, count))
    ends = np.maximum.accumulate(start + generator.uniform(0.1, 2.0, count))
    seed = int(generator.integers(1 << 30))
    return rows(start, ends - start, seed=seed, **options)


def make_store(folder: Path, sets: Mapping[str, Mapping[str, Video]]) -> Store:
    described = {name: write_set(folder / name, videos) for name, videos in sets.items()}
    attributes = {name: layout for name, (_, layout) in described.items()}
    groups = {name: of_set for name, (of_set, _) in described.items()}
    update_store(folder / "store.zarr", groups, {**attributes, "": {}})
    return open_store(folder / "store.zarr")


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Mapping[str, Mapping[str, Video]]], Store]:
    return partial(make_store, tmp_path)


def write_set(folder: Path, videos: Mapping[str, Video]) -> tuple[Any, dict[str, Any]]:
    table, folders, arrays = [], {}, {}
    for number, (video_id, video) in enumerate(videos.items()):
        status, error = ("ok", "") if isinstance(video, dict) else video
        row = {"video_id": video_id, "key": f"k{number}", "status": status, "error": error}
        if isinstance(video, dict):
            target = VideoFolder(folder, f"k{number}")
            with target as writer:
                writer.append(video)
            arrays, folders[f"k{number}"] = writer.layout(), target.path
            row["num_windows"] = writer.num_rows
        table.append(row)
    folder.mkdir(exist_ok=True)
    write_part(folder / "part.npz", table, folders=folders, previous=None, provenance={})
    part = Part(folder / "part.npz")
    arrays = arrays or {"rgb": {"dtype": "float32", "shape": [3]}, **TIME_ROWS}
    streams = [name for name in arrays if name not in TIME_ROWS]
    layout = {"streams": streams, "arrays": arrays, "size": None}
    return {row["video_id"]: (part, row) for row in part.rows}, layout


def centres(video: Arrays) -> list[float]:
    return [(a + b) / 2 for a, b in zip(video["time_start"], video["time_end"], strict=True)]


def expected_nearest(values: np.ndarray, at: list[float], times: np.ndarray) -> np.ndarray:
    return np.stack([values[min(range(len(at)), key=lambda i: abs(at[i] - t))] for t in times])


def expected_linear(values: np.ndarray, at: list[float], times: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1).astype(np.float64)
    columns = [np.interp(times, at, flat[:, d]) for d in range(flat.shape[1])]
    return np.stack(columns, axis=1).reshape(len(times), *values.shape[1:])


@pytest.fixture(scope="module")
def random_sets() -> dict[str, dict[str, Arrays]]:
    generator = np.random.default_rng(7)
    options: dict[str, dict[str, Any]] = {
        "a": {},
        "b": {"streams": ("rgb", "flow"), "shape": (4,)},
        "maps": {"shape": (2, 3, 5)},
        "half": {"dtype": np.float16},
    }
    return {
        name: {f"v{n}": random_rows(generator, **of_set) for n in range(8)}
        for name, of_set in options.items()
    }


@pytest.fixture(scope="module")
def random_store(random_sets: Any, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("random"), random_sets)


class TestAgainstLoops:
    @pytest.mark.parametrize("grid", [{}, {"grid": "maps"}, {"step": 0.37}, {"step": 100.0}])
    @pytest.mark.parametrize("method", ["nearest", "linear"])
    def test_random_stores(
        self, random_store: Store, random_sets: Any, method: str, grid: dict[str, Any]
    ) -> None:
        aligned = random_store.aligned(list(random_sets), method=method, **grid)
        assert len(aligned) == 8
        for video in aligned:
            assert list(video.arrays) == ["a", "b.rgb", "b.flow", "maps", "half"]
            for key, values in video.arrays.items():
                name, _, stream = key.partition(".")
                of_set = random_sets[name][video.video_id]
                stored, at = of_set[stream or "rgb"], centres(of_set)
                assert values.shape == (len(video), *stored.shape[1:])
                assert values.dtype == stored.dtype
                if method == "nearest":
                    expected = expected_nearest(stored, at, video.times)
                    assert np.array_equal(values, expected), key
                else:
                    expected = expected_linear(stored, at, video.times)
                    # a weight and two products rounded to float32, then once to the dtype
                    tolerance = 2e-6 + np.spacing(np.abs(values)).astype(np.float64) / 2
                    assert (np.abs(values - expected) <= tolerance).all(), key

    @pytest.mark.parametrize("grid", ["a", "maps"])
    def test_the_grid_is_a_sets_rows(
        self, random_store: Store, random_sets: Any, grid: str
    ) -> None:
        options = {} if grid == "a" else {"grid": grid}
        for video in random_store.aligned(list(random_sets), **options):
            stored = random_sets[grid][video.video_id]
            assert np.array_equal(video.times, centres(stored))
            assert video.times.dtype == np.float64
            assert np.array_equal(video.time_start, stored["time_start"])
            assert np.array_equal(video.time_end, stored["time_end"])
            assert np.array_equal(video.arrays[grid], stored["rgb"])


class TestStep:
    @pytest.mark.parametrize(
        ("ends", "step", "count"),
        [
            ((10.0, 9.5), 1.0, 10),
            ((10.0, 10.4), 1.0, 10),  # a cell without its centre is none
            ((9.0, 10.6), 1.0, 11),  # as long as any set has rows
            ((0.64 * 50, 1.0), 0.64, 50),
            ((0.4, 0.3), 1.0, 1),
        ],
    )
    def test_cells_start_at_zero(
        self, make: Any, ends: tuple[float, float], step: float, count: int
    ) -> None:
        """Row i is at (i + ½)·step whatever the rows start at: readers know nothing else."""
        a, b = ({"v": rows([0.1, end - 0.25], 0.25)} for end in ends)
        video = make({"a": a, "b": b}).aligned(["a", "b"], step=step)["v"]
        assert np.allclose(video.times, [(i + 0.5) * step for i in range(count)], atol=1e-12)
        assert np.allclose(video.time_start, [i * step for i in range(count)], atol=1e-12)
        assert np.array_equal(video.time_start[1:], video.time_end[:-1])
        assert all(len(values) == count for values in video.arrays.values())

    def test_rows_at_the_cells_are_untouched(self, make: Any) -> None:
        stored = rows(np.arange(100) * 16 / 25, 16 / 25)
        video = make({"a": {"v": stored}}).aligned(["a"], step=0.64, method="linear")["v"]
        assert np.array_equal(video.arrays["a"], stored["rgb"])


@pytest.mark.parametrize("method", ["nearest", "linear"])
class TestEdges:
    def test_the_same_axis_is_bit_identical(self, make: Any, method: str) -> None:
        """Also where a time comes twice, a row is missing at the end, or times differ by noise."""
        start = np.array([0.0, 0.64, 0.64, 1.28, 1.92])
        a, b, c = (rows(start, 0.64, seed=n) for n in range(3))
        c["time_start"] = c["time_start"] + 1e-12
        shorter = rows(start[:-1] + 1e-12, 0.64, seed=3)
        shorter["rgb"][2] = shorter["rgb"][1]  # rows of one time are rows of one frame
        sets = {"a": {"v": a}, "b": {"v": b}, "c": {"v": c}, "shorter": {"v": shorter}}
        arrays = make(sets).aligned(list(sets), method=method)["v"].arrays
        for name, stored in (("a", a), ("b", b), ("c", c)):
            assert np.array_equal(arrays[name], stored["rgb"]), name
        assert np.array_equal(arrays["shorter"], shorter["rgb"][[0, 1, 2, 3, 3]])

    def test_gaps_between_windows(self, make: Any, method: str) -> None:
        sparse = rows([0.0, 10.0, 20.0], 0.5)
        sets = {"dense": {"v": rows(np.arange(22), 1.0)}, "sparse": {"v": sparse}}
        values = make(sets).aligned(["dense", "sparse"], method=method)["v"].arrays["sparse"]
        reference = expected_nearest if method == "nearest" else expected_linear
        expected = reference(sparse["rgb"], centres(sparse), np.arange(22) + 0.5)
        assert np.allclose(values, expected, rtol=0, atol=1e-6)

    def test_a_single_row_is_repeated(self, make: Any, method: str) -> None:
        one = rows([3.0], 1.0)
        store = make({"many": {"v": rows(np.arange(8), 1.0)}, "one": {"v": one}})
        video = store.aligned(["many", "one"], method=method)["v"]
        assert np.array_equal(video.arrays["one"], np.repeat(one["rgb"], 8, axis=0))
        video = store.aligned(["one", "many"], method=method)["v"]
        assert video.arrays["many"].shape == (1, 3)

    def test_end_rows_go_on(self, make: Any, method: str) -> None:
        inner = rows([5.0, 6.0], 1.0)
        sets = {"outer": {"v": rows(np.arange(12), 1.0)}, "inner": {"v": inner}}
        values = make(sets).aligned(["outer", "inner"], method=method)["v"].arrays["inner"]
        assert np.array_equal(values, inner["rgb"][[0] * 6 + [1] * 6])

    def test_an_infinite_row_spoils_no_other(self, make: Any, method: str) -> None:
        stored = rows(np.arange(4), 1.0, dtype=np.float16)
        stored["rgb"][1] = np.inf
        sets = {"a": {"v": rows(np.arange(5), 1.0)}, "b": {"v": stored}}
        values = make(sets).aligned(["a", "b"], method=method)["v"].arrays["b"]
        assert np.array_equal(values, stored["rgb"][[0, 1, 2, 3, 3]])


@pytest.mark.parametrize("fps", [24, 25, 30, 30000 / 1001])
def test_rounding_decides_no_tie(make: Any, fps: float) -> None:
    """Two rows lie equally far from each cell's centre: always the earlier, never now and then."""
    stored = rows(np.arange(2000) * 8 / fps, 8 / fps)
    grid = rows(np.arange(1000) * 16 * (1 / fps), 16 * (1 / fps))
    video = make({"grid": {"v": grid}, "fine": {"v": stored}}).aligned(["grid", "fine"])["v"]
    assert np.array_equal(video.arrays["fine"], stored["rgb"][::2])


class TestVideos:
    @pytest.fixture
    def store(self, make: Any) -> Store:
        video = rows([0.0, 1.0], 1.0)
        a = {"z": video, "short": ("too_short", "5 of 16 frames"), "m": video, "quiet": video}
        b = {"quiet": ("no_audio", ""), "m": video, "extra": video, "z": video}
        return make({"a": a, "b": b, "none": {}})

    def test_order_is_that_of_the_ids(self, store: Store) -> None:
        for names in (["a", "b"], ["b", "a"]):
            aligned = store.aligned(names)
            assert aligned.video_ids == ("m", "z")
            assert [video.video_id for video in aligned] == ["m", "z"]
            assert len(aligned) == 2
            assert [i for i in ("m", "quiet", "nothing") if i in aligned] == ["m"]

    def test_who_is_left_out_and_why(self, store: Store) -> None:
        assert store.aligned(["a", "b"]).excluded == {
            "extra": "a: not in the set",
            "quiet": "b: no_audio",
            "short": "a: too_short (5 of 16 frames); b: not in the set",
        }
        assert store.aligned(["a"]).excluded == {"short": "a: too_short (5 of 16 frames)"}
        nothing = store.aligned(["a", "none"])
        assert list(nothing) == []
        assert set(nothing.excluded) == {"m", "quiet", "short", "z"}

    def test_ids_that_are_not_there(self, store: Store) -> None:
        aligned = store.aligned(["a", "b"])
        with pytest.raises(KeyError, match="'quiet' is excluded: b: no_audio"):
            aligned["quiet"]
        with pytest.raises(KeyError, match="no video 'mm' in the sets"):
            aligned["mm"]

    def test_a_truncated_set_is_told(self, tmp_path: Path) -> None:
        video = {"v": rows(np.arange(3), 1.0)}
        whole, layout = write_set(tmp_path / "a", video)
        cut, _ = write_set(tmp_path / "b", video)
        cut["v"][1]["status"] = "truncated"
        sets = {"whole": whole, "cut": cut}
        update_store(tmp_path / "s.zarr", sets, {"": {}, "whole": layout, "cut": layout})
        video = open_store(tmp_path / "s.zarr").aligned(["whole", "cut"])["v"]
        assert video.statuses == {"whole": "ok", "cut": "truncated"}

    def test_only_the_rows_of_a_video_are_read(
        self, make: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sets = {n: {"u": rows([0.0], 1.0), "v": rows(np.arange(5), 1.0)} for n in ("a", "b", "c")}
        store = make(sets)
        read: list[tuple[str, str, Any]] = []
        plain = zarr.Array.__getitem__

        def recorded(self: Any, selection: Any) -> Any:
            group, _, name = self.path.partition("/")
            if name not in VIDEO_SPECS:
                read.append((group, name, selection))
            return plain(self, selection)

        monkeypatch.setattr(zarr.Array, "__getitem__", recorded)
        videos = iter(store.aligned(["a", "c"]))
        assert read == []
        assert next(videos).video_id == "u"
        assert {group for group, _, _ in read} == {"a", "c"}
        assert {name for _, name, _ in read} >= {"features", "time_start", "time_end"}
        assert all(selection == slice(0, 1) for _, _, selection in read)


class TestConcatenated:
    def test_side_by_side(self, make: Any) -> None:
        start = np.arange(4)
        a = rows(start, 1.0, streams=("rgb", "flow"), shape=(5,))
        b = rows(start, 1.0, shape=(2,), dtype=np.float16, seed=1)
        video = make({"a": {"v": a}, "b": {"v": b}}).aligned(["b", "a"])["v"]
        joined = video.concatenated()
        assert joined.dtype == np.float32
        assert np.array_equal(joined, np.concatenate([b["rgb"], a["rgb"], a["flow"]], axis=1))

    def test_maps_have_no_side(self, make: Any) -> None:
        maps = {"v": rows([0.0], 1.0, streams=("rgb", "flow"), shape=(2, 7, 7))}
        video = make({"a": {"v": rows([0.0], 1.0)}, "maps": maps}).aligned(["a", "maps"])["v"]
        with pytest.raises(StoreError, match=r"maps\.rgb has the shape 2×7×7; .*pool: mean or max"):
            video.concatenated()


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Store:
    sets = {name: {"v": rows([0.0], 1.0)} for name in ("r21d", "i3d")}
    return make_store(tmp_path_factory.mktemp("two"), sets)


@pytest.mark.parametrize(
    ("sets", "options", "error", "message"),
    [
        ([], {}, ConfigError, "sets is empty; the store has: i3d, r21d"),
        (["r21d", "i3"], {}, StoreError, r"no feature set 'i3'; .*: i3d, r21d\. Did you .*'i3d'"),
        (["i3d", "i3d"], {}, ConfigError, "sets has 'i3d' twice"),
        (["i3d"], {"method": "lin"}, ConfigError, "method is 'lin'; .*nearest, linear.*'linear'"),
        (["i3d"], {"step": 0}, ConfigError, "step is 0; it has to be more than 0 seconds"),
        (["i3d"], {"step": float("nan")}, ConfigError, "step is nan"),
        (["i3d"], {"step": float("inf")}, ConfigError, "step is inf"),
        (["i3d"], {"grid": "r21d"}, ConfigError, "grid is 'r21d'; allowed: one of the sets i3d"),
        (["i3d"], {"grid": "i3d", "step": 1.0}, ConfigError, r"both grid \('i3d'\) and step \(1"),
    ],
)
def test_wrong_arguments(
    two_sets: Store, sets: list[str], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        two_sets.aligned(sets, **options)
