"""Parts: the features of one shard in one file, written row by row, reused video by video.

A part is an .npz file: `index.json` with a row per video and the provenance, and the arrays of
video number N as `N/<name>.npy`; `numpy.load` reads it as it is. While a shard is being worked
on, each finished video is a folder of .npy files that later goes into the part.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from reelstack.errors import StoreError
from reelstack.files import atomic_path

INDEX = "index.json"
BLOCK_BYTES = 16 << 20


class RowWriter:
    """Appends rows to one .npy file per array; memory does not grow with their number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self.num_rows = 0

    def append(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Add B rows to every array; all arrays of a call have the same first dimension."""
        for name, values in rows.items():
            if name not in self._files:
                self._files[name] = open(self._folder / f"{name}.npy", "wb+")
                self._shapes[name] = (values.dtype, values.shape[1:])
                self._write_header(name)
            self._files[name].write(np.ascontiguousarray(values).data)
        self.num_rows += len(next(iter(rows.values())))

    def layout(self) -> dict[str, dict[str, Any]]:
        """Array name → `dtype` and `shape` of one row."""
        return {
            name: {"dtype": dtype.name, "shape": list(shape)}
            for name, (dtype, shape) in self._shapes.items()
        }

    def close(self) -> None:
        """Write the final shapes and close the files."""
        for name, file in self._files.items():
            file.seek(0)
            self._write_header(name)
            file.close()
        self._files.clear()

    def _write_header(self, name: str) -> None:
        # numpy pads the header for growth along the first axis: the length stays the same
        dtype, shape = self._shapes[name]
        header = {
            "descr": npy.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (self.num_rows, *shape),
        }
        npy.write_array_header_1_0(self._files[name], header)


class VideoFolder:
    """The finished arrays of one video below a shard's private folder."""

    def __init__(self, shard_folder: Path, name: str) -> None:
        self.path = shard_folder / name
        self._temporary = shard_folder / f".{name}.{socket.gethostname()}.{os.getpid()}"

    def __enter__(self) -> RowWriter:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        self._writer = RowWriter(self._temporary)
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.replace(self._temporary, self.path)
        else:
            shutil.rmtree(self._temporary, ignore_errors=True)


class Part:
    """Reads a part; holds no file open, as an aggregation reads thousands of them.

    Attributes:
        path: the file.
        rows: one dictionary per video, in the shard's order: `video_id`, `key`, `status`,
            `error`, `num_windows`, `arrays` (name → dtype and shape of a row) and what else the
            job recorded.
        provenance: versions, device, weights and settings of the job that wrote it.

    Raises:
        StoreError: if the file is missing or is no part.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                index = json.loads(archive.read(INDEX))
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
            raise StoreError(
                f"part {path} cannot be read ({error}): delete it and run snakemake again"
            ) from error
        self.rows: list[dict[str, Any]] = index["videos"]
        self.provenance: dict[str, Any] = index["provenance"]
        self._number = {row["key"]: number for number, row in enumerate(self.rows)}

    def __contains__(self, key: str) -> bool:
        return key in self._number

    def members(self, key: str) -> Iterator[tuple[str, IO[bytes]]]:
        """Array name and .npy stream of the video whose row has `key`."""
        prefix = f"{self._number[key]}/"
        with zipfile.ZipFile(self.path) as archive:
            for name in archive.namelist():
                if name.startswith(prefix):
                    with archive.open(name) as file:
                        yield name.removeprefix(prefix).removesuffix(".npy"), file

    def blocks(self, key: str) -> Iterator[tuple[str, NDArray[Any]]]:
        """Array name and consecutive rows of at most 16 MiB, in order."""
        for name, file in self.members(key):
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=int))
            step = max(1, BLOCK_BYTES // max(1, row_bytes))
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start)
                data = file.read(count * row_bytes)
                yield name, np.frombuffer(data, dtype).reshape(count, *shape[1:])

    def array(self, key: str, name: str) -> NDArray[Any]:
        """One whole array of the video whose row has `key`."""
        return np.concatenate([rows for found, rows in self.blocks(key) if found == name])


def write_part(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    *,
    folders: Mapping[str, Path],
    previous: Part | None,
    provenance: Mapping[str, Any],
) -> None:
    """Pack finished videos into one part, atomically.

    Args:
        rows: the part's rows; `num_windows` > 0 means that the video has arrays.
        folders: key → folder of .npy files, for videos computed since the last part.
        previous: the last part; videos that `folders` lacks are copied from it.
        provenance: stored as it is.
    """
    rows = list(rows)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, row in enumerate(rows):
            if not row.get("num_windows"):
                continue
            if row["key"] in folders:
                for file in sorted(folders[row["key"]].glob("*.npy")):
                    _add(archive, f"{number}/{file.name}", file.open("rb"))
            elif previous is not None:
                for name, stream in previous.members(row["key"]):
                    _add(archive, f"{number}/{name}.npy", stream)
        index = {"videos": rows, "provenance": dict(provenance)}
        archive.writestr(zipfile.ZipInfo(INDEX), json.dumps(index, indent=1))


def _add(archive: zipfile.ZipFile, name: str, stream: IO[bytes]) -> None:
    """Store a stream under a fixed timestamp: the same features give the same bytes."""
    with stream, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
        shutil.copyfileobj(stream, target, BLOCK_BYTES)
