"""Reading a store: one video at a time, without loading the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from reelstack.errors import StoreError, nearest
from reelstack.features import Features, Predictions
from reelstack.store.layout import features_name

if TYPE_CHECKING:
    from reelstack.store.aligned import Aligned


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

    def aligned(
        self,
        sets: Sequence[str],
        *,
        method: str = "nearest",
        step: float | None = None,
        grid: str | None = None,
    ) -> Aligned:
        """Several sets on one time grid per video: `for video in store.aligned(["r21d", "i3d"])`.

        A row lies at the centre of its window, (time_start + time_end) / 2. A set whose rows lie
        at the grid's times is given as it is stored.

        Args:
            sets: names of feature sets, each once.
            method: "nearest" takes the row whose centre is nearest (the earlier of two), "linear"
                interpolates between neighbouring centres; both repeat the end rows beyond them.
            step: seconds; the grid is step/2, 3·step/2, … up to where the last set's rows end, at
                least one. For readers that take a stride and a window in frames both are step·fps.
            grid: the set whose rows are the grid, where there is no `step`; None for the first.

        Raises:
            StoreError: for a set that is not in the store.
            ConfigError: for no set or one twice, another method, a step of 0 or less, a grid that
                is none of the sets or beside a step.
        """
        from reelstack.store.aligned import Aligned

        return Aligned(self, sets, method=method, step=step, grid=grid)


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

    def outcomes(self) -> dict[str, tuple[int, str, str]]:
        """video_id → number of rows, status and error, without reading a row."""
        return {
            video_id: (size, status, error)
            for video_id, (_, size, status, error) in self._index.items()
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
