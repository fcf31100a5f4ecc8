"""Several feature sets of a video on one time grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelstack.errors import ConfigError, StoreError, nearest
from reelstack.store.reader import FeatureGroup

TIE_SECONDS = 1e-6
"""Times that differ by less are one time: rounding must not decide which row is nearer."""

Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AlignedVideo:
    """Rows of one video from several sets, at the same T times.

    Attributes:
        video_id: the video's identifier.
        times: (T,) float64, seconds: centres of the grid's cells.
        time_start, time_end: (T,) float64, seconds: where the cells start and end.
        arrays: (T, …) of the set's dtype under the set's name, or under `<set>.<stream>` for a
            set with several streams, in the order that was asked for.
        statuses: set → "ok", or why it has fewer rows than expected ("truncated").
    """

    video_id: str
    times: Times
    time_start: Times
    time_end: Times
    arrays: dict[str, NDArray[Any]]
    statuses: dict[str, str]

    def __len__(self) -> int:
        return len(self.times)

    def concatenated(self) -> NDArray[np.float32]:
        """(T, sum of all D) float32: the arrays side by side, in their order.

        Raises:
            StoreError: if a row of one of them is no vector.
        """
        for name, values in self.arrays.items():
            if values.ndim != 2:
                raise StoreError(
                    f"a row of {name} has the shape {'×'.join(map(str, values.shape[1:]))}; only "
                    f"vectors go side by side: reduce arrays[{name!r}] to (T, D), or extract the "
                    "set with pool: mean or max"
                )
        return np.concatenate(list(self.arrays.values()), axis=1, dtype=np.float32)


class Aligned:
    """The videos that have rows in every set; iterates over `AlignedVideo`s by sorted id.

    `len` counts them, `aligned[video_id]` reads one, `video_id in aligned` says whether it is
    there. Reading a video touches its rows only; see `Store.aligned` for the rules and errors.

    Attributes:
        video_ids: ids in the order of iteration.
        excluded: video_id → which sets have no rows of the video, and why.
    """

    def __init__(
        self,
        store: Mapping[str, FeatureGroup],
        sets: Sequence[str],
        *,
        method: str = "nearest",
        step: float | None = None,
        grid: str | None = None,
    ) -> None:
        _check(store, sets, method=method, step=step, grid=grid)
        self._groups = {name: store[name] for name in sets}
        self._resample = METHODS[method]
        self._step = step
        self._grid = sets[0] if grid is None else grid
        self.excluded = _excluded(self._groups)
        everywhere = set[str]().union(*self._groups.values()) - self.excluded.keys()
        self.video_ids = tuple(sorted(everywhere))
        self._known = frozenset(everywhere)

    def __getitem__(self, video_id: str) -> AlignedVideo:
        if video_id in self.excluded:
            raise KeyError(f"video {video_id!r} is excluded: {self.excluded[video_id]}")
        if video_id not in self._known:
            raise KeyError(f"no video {video_id!r} in the sets.{nearest(video_id, self.video_ids)}")
        videos = {name: group[video_id] for name, group in self._groups.items()}
        if self._step is None:
            cells = videos[self._grid].time_start, videos[self._grid].time_end
        else:
            cells = _regular_cells(self._step, max(v.time_end.max() for v in videos.values()))
        times = _centres(*cells)
        arrays = {}
        for name, features in videos.items():
            centres = _centres(features.time_start, features.time_end)
            for stream, values in features.streams.items():
                key = name if len(features.streams) == 1 else f"{name}.{stream}"
                arrays[key] = self._resample(values, centres, times)
        statuses = {name: features.status for name, features in videos.items()}
        return AlignedVideo(video_id, times, *cells, arrays, statuses)

    def __iter__(self) -> Iterator[AlignedVideo]:
        return (self[video_id] for video_id in self.video_ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._known

    def __len__(self) -> int:
        return len(self.video_ids)


def _check(
    store: Mapping[str, FeatureGroup],
    sets: Sequence[str],
    *,
    method: str,
    step: float | None,
    grid: str | None,
) -> None:
    if not sets:
        raise ConfigError(f"sets is empty; the store has: {', '.join(store)}")
    for name in sets:
        if name not in store:
            raise StoreError(
                f"no feature set {name!r}; the store has: {', '.join(store)}.{nearest(name, store)}"
            )
    if repeated := [name for n, name in enumerate(sets) if name in sets[:n]]:
        raise ConfigError(f"sets has {repeated[0]!r} twice; name every set once")
    if method not in METHODS:
        raise ConfigError(
            f"method is {method!r}; allowed: {', '.join(METHODS)}.{nearest(method, METHODS)}"
        )
    if step is not None and not 0 < step < math.inf:
        raise ConfigError(f"step is {step}; it has to be more than 0 seconds")
    if grid is not None and step is not None:
        raise ConfigError(f"both grid ({grid!r}) and step ({step}) are given; allowed: one of them")
    if grid is not None and grid not in sets:
        raise ConfigError(
            f"grid is {grid!r}; allowed: one of the sets {', '.join(sets)}.{nearest(grid, sets)}"
        )


def _excluded(groups: Mapping[str, FeatureGroup]) -> dict[str, str]:
    """video_id → reasons, for every video without rows in one set or more."""
    outcomes = {name: group.outcomes() for name, group in groups.items()}
    reasons: dict[str, list[str]] = {}
    for video_id in sorted(set[str]().union(*outcomes.values())):
        for name, of_set in outcomes.items():
            size, status, error = of_set.get(video_id, (0, "not in the set", ""))
            if size == 0:
                reason = f"{name}: {status}" + (f" ({error})" if error else "")
                reasons.setdefault(video_id, []).append(reason)
    return {video_id: "; ".join(each) for video_id, each in reasons.items()}


def _centres(time_start: Times, time_end: Times) -> Times:
    return (time_start + time_end) / 2


def _regular_cells(step: float, end: float) -> tuple[Times, Times]:
    """Start and end of the cells [k·step, (k + 1)·step) whose centre lies before `end`."""
    count = max(1, math.ceil(end / step - 0.5))
    edges: Times = step * np.arange(count + 1, dtype=np.float64)
    return edges[:-1], edges[1:]


def _neighbours(centres: Times, times: Times) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The last row before and the first one at or after each time; the end rows beyond them."""
    after = np.searchsorted(centres, times)
    last = len(centres) - 1
    return np.clip(after - 1, 0, last), np.minimum(after, last)


def _nearest_rows(centres: Times, times: Times) -> NDArray[np.intp]:
    """(T,) index of the row whose centre is nearest; the earlier of two equally near ones."""
    before, after = _neighbours(centres, times)
    is_before = times - centres[before] <= centres[after] - times + TIE_SECONDS
    return np.where(is_before, before, after)


def _same_axis(centres: Times, times: Times) -> bool:
    return len(centres) == len(times) and bool((np.abs(centres - times) < TIE_SECONDS).all())


def _resample_nearest(values: NDArray[Any], centres: Times, times: Times) -> NDArray[Any]:
    """(N, …) rows at `centres` → (T, …): for each of `times` the nearest row."""
    if _same_axis(centres, times):
        return values
    return values[_nearest_rows(centres, times)]


def _resample_linear(values: NDArray[Any], centres: Times, times: Times) -> NDArray[Any]:
    """(N, …) rows at `centres` → (T, …): between neighbours; the end rows beyond them.

    A time that is a row's centre gets that row, unchanged.
    """
    if _same_axis(centres, times):
        return values
    rows = _nearest_rows(centres, times)
    before, after = _neighbours(centres, times)
    inside = (centres[before] < times) & (times < centres[after])
    between = inside & (np.abs(times - centres[rows]) >= TIE_SECONDS)
    left, right = before[between], after[between]
    weight = (times[between] - centres[left]) / (centres[right] - centres[left])
    precise = np.promote_types(values.dtype, np.float32)  # float16 would round every product
    weight = weight.astype(precise).reshape(-1, *[1] * (values.ndim - 1))
    resampled = values[rows]
    resampled[between] = (1 - weight) * values[left] + weight * values[right]
    return resampled


METHODS: dict[str, Callable[[NDArray[Any], Times, Times], NDArray[Any]]] = {
    "nearest": _resample_nearest,
    "linear": _resample_linear,
}
