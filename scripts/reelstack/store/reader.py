"""Reading a store: one video at a time, without loading the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr

from reelstack.errors import StoreError, nearest
from reelstack.features import Features, Predictions
from reelstack.store.layout import features_name


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a feature store for reading: `open_store(path)["r21d"]["video_id"]`.

    Raises:
        StoreError: if there is no store at `path`.
    """
    try:
        return Store(zarr.open_group(Path(path), mode="r"))
    except (FileNotFoundError, zarr.errors.GroupNotFoundError) as error:
        raise StoreError(
            f"{os.fspath(path)!r} is no Zarr store; a run writes it to <output>/store.zarr"
        ) from error


class Store(Mapping[str, "FeatureGroup"]):
    """The feature sets of a store by name.

    Attributes:
        config: the configuration of the run that wrote it.
        provenance: versions, commit, devices and weights behind it.
    """

    def __init__(self, root: zarr.Group) -> None:
        self._root = root
        self.config: Any = root.attrs.get("config", {})
        self.provenance: Any = root.attrs.get("provenance", {})

    def __getitem__(self, name: str) -> FeatureGroup:
        if name not in self._root:
            raise KeyError(f"no feature set {name!r}; has: {', '.join(self)}.{nearest(name, self)}")
        return FeatureGroup(self._root[name])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._root.group_keys()))

    def __len__(self) -> int:
        return len(list(self._root.group_keys()))


class FeatureGroup(Mapping[str, Features]):
    """The videos of one feature set by id; reading one touches its rows only.

    Attributes:
        attributes: model, streams, parameters, labels, provenance.
    """

    def __init__(self, group: Any) -> None:
        self._group = group
        self.attributes: dict[str, Any] = dict(group.attrs)

    @cached_property
    def _index(self) -> dict[str, tuple[int, int, str, str]]:
        names = ("video_id", "row_start", "row_size", "status", "error")
        # A run may be appending: what the shortest column covers is committed.
        columns = [self._group[name][:].tolist() for name in names]
        return {
            str(video_id): (start, size, str(status), str(error))
            for video_id, start, size, status, error in zip(*columns, strict=False)
        }

    def __getitem__(self, video_id: str) -> Features:
        if video_id not in self._index:
            raise KeyError(f"no video {video_id!r} in the set.{nearest(video_id, self._index)}")
        start, size, status, error = self._index[video_id]
        streams = self.attributes["streams"]

        def rows(name: str) -> Any:
            return self._group[name][start : start + size]

        predictions = None
        if "class_index" in self._group:
            labels = tuple(self.attributes["labels"])
            predictions = Predictions(rows("class_index"), rows("score"), labels)
        return Features(
            video_id=video_id,
            streams={stream: rows(features_name(stream, streams)) for stream in streams},
            time_start=rows("time_start"),
            time_end=rows("time_end"),
            valid_frames=rows("valid_frames"),
            predictions=predictions,
            status=status,
            error=error,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)
