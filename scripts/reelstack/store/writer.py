"""Writing the store: appends what is new, rebuilds a group where rows changed or went.

One process writes at a time (the `aggregate` job). Rows go first and the index last; whatever a
killed run wrote beyond the index is cut off by the next one, and readers trust the index only.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from reelstack.extract.parts import Part
from reelstack.store.flow_size import resize_flow
from reelstack.store.layout import (
    CONVENTIONS,
    VIDEO_SPECS,
    create_array,
    features_name,
    obs_specs,
)
from reelstack.store.set_layout import Rows

FLUSH_BYTES = 64 << 20
"""Rows are gathered up to this size per array: one write per file of the store."""


def update_store(
    store: Path, groups: Mapping[str, Rows], attributes: Mapping[str, dict[str, Any]]
) -> None:
    """Make `store` hold exactly `groups`.

    Args:
        store: folder of the Zarr hierarchy; created if missing.
        groups: feature set → its videos.
        attributes: feature set → attributes; those of "" belong to the root.
            `streams`, `arrays` (name → dtype and shape of a row) and `size` say what a set's rows
            look like.
    """
    root = zarr.open_group(store, mode="a")
    for name in set(root.group_keys()) - groups.keys():
        shutil.rmtree(store / name)
    for name, rows in groups.items():
        _update_group(store, name, rows, attributes[name])
    root.attrs.put(attributes[""])


def _update_group(store: Path, name: str, rows: Rows, attributes: dict[str, Any]) -> None:
    layout = {k: attributes[k] for k in ("streams", "arrays", "size")}
    if (store / name).exists():
        group: Any = zarr.open_group(store, mode="a")[name]
        committed = cut_uncommitted(group)
        same_layout = all(group.attrs.get(k) == v for k, v in layout.items())
        if same_layout and _only_additions(group, committed, rows):
            new = [item for video_id, item in rows.items() if video_id not in committed]
            _append(group, new, layout)
            group.attrs.update(attributes)
            return
    fresh = store.parent / ".state" / "store" / name
    shutil.rmtree(fresh, ignore_errors=True)
    group = _create_group(fresh, layout)
    _append(group, list(rows.values()), layout)
    group.attrs.update(attributes)
    _put_in_place(fresh, store / name)


def cut_uncommitted(group: Any) -> dict[str, int]:
    """Shorten every array to what the index covers; returns video_id → position in the index."""
    index = {name: group[name] for name in VIDEO_SPECS}
    count = min(array.shape[0] for array in index.values())
    for array in index.values():
        _resize(array, count)
    end = int(index["row_start"][count - 1] + index["row_size"][count - 1]) if count else 0
    for name, array in group.arrays():
        if name not in VIDEO_SPECS:
            _resize(array, end)
    return {str(video_id): n for n, video_id in enumerate(index["video_id"][:])}


def _only_additions(group: Any, committed: Mapping[str, int], rows: Rows) -> bool:
    """Whether every committed video is still wanted with the same rows and status."""
    keys, statuses = group["key"][:], group["status"][:]
    return all(
        video_id in rows
        and rows[video_id][1]["key"] == keys[n]
        and rows[video_id][1]["status"] == statuses[n]
        for video_id, n in committed.items()
    )


def _create_group(folder: Path, layout: Mapping[str, Any]) -> Any:
    group = zarr.open_group(folder, mode="w", attributes={"Conventions": CONVENTIONS})
    streams, arrays = layout["streams"], layout["arrays"]
    for name, spec in obs_specs(streams, arrays).items():
        target = features_name(name, streams) if name in streams else name
        create_array(group, target, spec, inner=arrays.get(name, {"shape": ()})["shape"])
    for name, spec in VIDEO_SPECS.items():
        create_array(group, name, spec)
    return group


def _append(
    group: Any, items: Sequence[tuple[Part, dict[str, Any]]], layout: Mapping[str, Any]
) -> None:
    if not items:
        return
    streams, size = layout["streams"], layout["size"]
    first_video = group["video_id"].shape[0]
    next_row = group["time_start"].shape[0]
    index: dict[str, list[Any]] = defaultdict(list)
    buffer = _RowBuffer(group)
    for number, (part, row) in enumerate(items, start=first_video):
        count = row.get("num_windows", 0)
        for name, values in part.blocks(row["key"]) if count else ():
            if name not in streams:
                buffer.add(name, values)
                continue
            buffer.add(features_name(name, streams), resize_flow(values, size) if size else values)
        buffer.add("video_index", np.full(count, number, np.int64))
        facts = {"row_start": next_row, "row_size": count}
        for name in VIDEO_SPECS:
            index[name].append(facts.get(name, row.get(name)))
        next_row += count
    buffer.flush()
    for name, spec in VIDEO_SPECS.items():
        dtype = object if spec.dtype == "string" else spec.dtype
        _extend(group[name], np.array(index[name], dtype=dtype))


class _RowBuffer:
    """Gathers rows per array, so that small videos do not rewrite a file of the store each."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._blocks: dict[str, list[NDArray[Any]]] = defaultdict(list)
        self._bytes: dict[str, int] = defaultdict(int)

    def add(self, name: str, values: NDArray[Any]) -> None:
        self._blocks[name].append(values)
        self._bytes[name] += values.nbytes
        if self._bytes[name] >= FLUSH_BYTES:
            self._write(name)

    def flush(self) -> None:
        for name in list(self._blocks):
            self._write(name)

    def _write(self, name: str) -> None:
        _extend(self._group[name], np.concatenate(self._blocks.pop(name)))
        self._bytes[name] = 0


def _extend(array: Any, values: NDArray[Any]) -> None:
    start = array.shape[0]
    _resize(array, start + len(values))
    if len(values):
        array[start:] = values


def _resize(array: Any, length: int) -> None:
    if array.shape[0] != length:
        array.resize((length, *array.shape[1:]))


def _put_in_place(fresh: Path, target: Path) -> None:
    """Replace `target` by `fresh` in one step: a reader finds the old group or the new one."""
    if not target.exists():
        os.replace(fresh, target)
        return
    _exchange(fresh, target)
    shutil.rmtree(fresh)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders, atomically where the system can (Linux's renameat2)."""
    at_cwd, exchange = -100, 2
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call and call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0:
        return
    aside = other.with_name(f".{other.name}.old")
    os.replace(other, aside)
    os.replace(one, other)
    os.replace(aside, one)
