"""Parts: rows appended to .npy files, packed, read in blocks, reused."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reelstack.errors import StoreError
from reelstack.extract import parts
from reelstack.extract.parts import Part, RowWriter, VideoFolder, write_part


def arrays(num_rows: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "rgb": generator.normal(size=(num_rows, 5)).astype(np.float32),
        "time_start": np.arange(num_rows) / 25,
        "valid_frames": np.full(num_rows, 16, np.int32),
        "class_index": generator.integers(0, 9, (num_rows, 3)).astype(np.int32),
    }


def row(key: str, num_windows: int) -> dict[str, Any]:
    return {"video_id": key, "key": key, "status": "ok", "error": "", "num_windows": num_windows}


def write_videos(folder: Path, **lengths: int) -> dict[str, Path]:
    folders = {}
    for seed, (key, length) in enumerate(lengths.items()):
        target = VideoFolder(folder, key)
        with target as writer:
            writer.append(arrays(length, seed=seed))
        folders[key] = target.path
    return folders


def pack(path: Path, rows: list, folders: dict, *, previous: Part | None = None) -> Part:
    write_part(path, rows, folders=folders, previous=previous, provenance={"device": "cpu"})
    return Part(path)


def gather(part: Part, key: str) -> dict[str, np.ndarray]:
    blocks: dict[str, list] = {}
    for name, values in part.blocks(key):
        blocks.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in blocks.items()}


@pytest.mark.parametrize("batches", [[1], [3, 1, 7], [0, 4], [1] * 40])
def test_rows_appended_in_batches_equal_rows_saved_at_once(
    tmp_path: Path, batches: list[int]
) -> None:
    whole = arrays(sum(batches))
    writer = RowWriter(tmp_path)
    start = 0
    for size in batches:
        writer.append({name: values[start : start + size] for name, values in whole.items()})
        start += size
    writer.close()
    assert writer.num_rows == sum(batches)
    for name, values in whole.items():
        saved = np.load(tmp_path / f"{name}.npy")
        assert saved.dtype == values.dtype
        assert np.array_equal(saved, values)
        reference = io.BytesIO()
        np.save(reference, values)
        assert (tmp_path / f"{name}.npy").read_bytes() == reference.getvalue()


def test_many_rows_do_not_outgrow_the_header(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path)
    writer.append({"x": np.zeros(1, np.int8)})
    writer.append({"x": np.ones(10_000_000, np.int8)})
    writer.close()
    saved = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert (saved.shape, saved[0], saved[-1]) == ((10_000_001,), 0, 1)


def test_rows_that_are_not_contiguous(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    writer = RowWriter(tmp_path)
    writer.append({"x": values.T})
    writer.append({"x": values[:, ::2].T})
    writer.close()
    expected = np.concatenate([values.T, values[:, ::2].T])
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)


def test_a_video_that_fails_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    old = write_videos(tmp_path, a=3)["a"]
    with pytest.raises(RuntimeError), VideoFolder(tmp_path, "a") as writer:
        writer.append(arrays(9))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert len(np.load(old / "rgb.npy")) == 3


def test_numpy_reads_a_part_as_it_is(tmp_path: Path) -> None:
    folders = write_videos(tmp_path, a=4, b=2)
    pack(tmp_path / "p.npz", [row("a", 4), row("b", 2)], folders)
    with np.load(tmp_path / "p.npz") as archive:
        for number, (seed, length) in enumerate(((0, 4), (1, 2))):
            for name, values in arrays(length, seed=seed).items():
                assert np.array_equal(archive[f"{number}/{name}"], values)
        index = json.loads(archive["index.json"])
    assert [r["video_id"] for r in index["videos"]] == ["a", "b"]
    assert index["provenance"] == {"device": "cpu"}


@pytest.mark.parametrize("block_bytes", [1, 7, 20, 41, 1 << 24])
def test_blocks_put_together_are_the_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    folders = write_videos(tmp_path, a=13)
    part = pack(tmp_path / "p.npz", [row("a", 13)], folders)
    monkeypatch.setattr(parts, "BLOCK_BYTES", block_bytes)
    sizes = [len(values) for name, values in part.blocks("a") if name == "rgb"]
    assert max(sizes) == min(13, max(1, block_bytes // 20)), "a row has 20 bytes"
    for name, values in gather(part, "a").items():
        assert np.array_equal(values, arrays(13)[name]), name
        assert values.dtype == arrays(13)[name].dtype


def test_videos_without_rows_have_a_row_in_the_index_only(tmp_path: Path) -> None:
    rows = [row("a", 0), row("b", 2), {"video_id": "c", "key": "c", "status": "missing"}]
    part = pack(tmp_path / "p.npz", rows, write_videos(tmp_path, b=2))
    assert part.rows == rows
    assert all(key in part for key in "abc")
    assert "d" not in part
    assert list(part.blocks("a")) == []
    assert len(gather(part, "b")["rgb"]) == 2


def test_finished_videos_are_taken_from_the_last_part(tmp_path: Path) -> None:
    first = pack(
        tmp_path / "1.npz", [row("a", 3), row("b", 4)], write_videos(tmp_path / "1", a=3, b=4)
    )
    new = write_videos(tmp_path / "2", unused=1, c=2)
    rows = [row("b", 4), row("c", 2), row("a", 3)]
    second = pack(tmp_path / "2.npz", rows, {"c": new["c"]}, previous=first)
    for key in "ab":
        before, after = gather(first, key), gather(second, key)
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[n], after[n]) for n in before), key
    assert np.array_equal(gather(second, "c")["rgb"], arrays(2, seed=1)["rgb"])


def test_the_same_features_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row("a", 3), row("b", 4)]
    direct = pack(tmp_path / "1.npz", rows, write_videos(tmp_path / "x", a=3, b=4))
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    pack(tmp_path / "2.npz", rows, write_videos(tmp_path / "y", a=3, b=4))
    pack(tmp_path / "3.npz", rows, {}, previous=direct)
    contents = {(tmp_path / f"{n}.npz").read_bytes() for n in (1, 2, 3)}
    assert len(contents) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"no zip", None],
    ids=["empty", "noise", "zip without index"],
)
def test_a_file_that_is_no_part(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.npz"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x", "y")
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"p\.npz cannot be read .*: delete it and run snakemake"):
        Part(path)


def test_a_cut_part(tmp_path: Path) -> None:
    pack(tmp_path / "p.npz", [row("a", 3)], write_videos(tmp_path, a=3))
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError):
        Part(tmp_path / "p.npz")


def test_a_missing_part(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Part(tmp_path / "p.npz")
