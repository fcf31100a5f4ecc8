"""Clips and crops averaged to one row a video, against the whole video held in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reelstack.extract.engine import WindowSettings
from reelstack.extract.views import extract_views
from reelstack.media.clips import clip_indices
from reelstack.models.base import Extractor, Inputs
from reelstack.models.entry import ModelEntry
from torch import Tensor

CLASSES = 5
START = 0.5
ENTRY = ModelEntry("clips", "none", 4, 4, 3, CLASSES, None, None, settings={"clips": 0, "crops": 3})


@dataclass(frozen=True)
class Coloured:
    """A frame of 6×9 noise of its own, shown from 0.5 s on at 10 frames/s."""

    number: int

    @property
    def time(self) -> float:
        return START + self.number / 10

    @property
    def duration(self) -> float:
        return 0.1

    def rgb(self) -> NDArray[np.uint8]:
        generator = np.random.default_rng(self.number)
        return generator.integers(0, 256, (6, 9, 3), np.uint8)


class Crops(Extractor):
    """Resized: every third column. Crops: one column each. Features: nonlinear means."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(ENTRY, ("rgb",), {**ENTRY.settings, **settings})
        self.alive = self.most_alive = 0
        self.forwards: list[tuple[int, ...]] = []

    def load_networks(self, weights: Any) -> None:
        raise NotImplementedError

    def preprocess(self, frames: Any, before: Any = None) -> Inputs:
        raise NotImplementedError

    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        smaller = [np.array(frame[:, ::3]) for frame in frames]
        for array in smaller:
            self.alive += 1
            weakref.finalize(array, self._died)
        self.most_alive = max(self.most_alive, self.alive)
        return smaller

    def _died(self) -> None:
        self.alive -= 1

    def views(self, frames: NDArray[np.uint8]) -> Tensor:
        crops = [frames[:, :, n : n + 1] for n in range(self.settings["crops"])]
        return torch.from_numpy(np.stack(crops)).permute(0, 1, 4, 2, 3).float()

    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        self.forwards.append(tuple(windows["rgb"].shape))
        order = torch.arange(1.0, 1 + windows["rgb"].shape[1]).view(1, -1, 1, 1, 1)
        return {"rgb": ((windows["rgb"] / 255) ** order).mean((1, 3, 4))}

    def classify(self, features: Mapping[str, Tensor]) -> Tensor:
        return features["rgb"] @ torch.linspace(-9, 9, 3 * CLASSES).view(3, CLASSES)


def run(
    num_frames: int, extractor: Crops, *, stack: int, interval: int = 1, top_k: int = CLASSES
) -> list[dict[str, np.ndarray]]:
    frames: Any = map(Coloured, range(num_frames))
    settings = WindowSettings(stack, 99, "pad", top_k, interval)
    return list(extract_views(frames, extractor, settings, num_frames=num_frames))


def by_hand(
    num_frames: int, *, stack: int, interval: int, clips: int, crops: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean feature and mean softmax over all clips and crops, one forward each."""
    extractor = Crops(clips=clips, crops=crops)
    pixels = np.stack([Coloured(n).rgb()[:, ::3] for n in range(num_frames)])
    features, scores = [], []
    for clip in clip_indices(num_frames, stack, interval, clips):
        for view in extractor.views(pixels[clip]):
            feature = extractor.forward({"rgb": view[None]})
            features.append(feature["rgb"][0].numpy())
            scores.append(extractor.classify(feature).softmax(1)[0].numpy())
    assert len(features) == clips * crops
    return np.mean(features, 0), np.mean(scores, 0)


@pytest.mark.parametrize(
    ("num_frames", "stack", "interval", "clips", "crops"),
    [
        (100, 8, 2, 10, 3),  # apart from each other
        (30, 8, 2, 10, 3),  # overlapping
        (15, 8, 2, 10, 3),  # exactly one clip, ten times
        (10, 8, 2, 10, 3),  # shorter than a clip: it goes on at the start
        (3, 8, 2, 4, 1),
        (1, 8, 2, 10, 3),
        (50, 4, 1, 1, 1),  # the one in the middle
        (50, 4, 7, 3, 2),
    ],
)
def test_means_are_those_of_all_views(
    num_frames: int, stack: int, interval: int, clips: int, crops: int
) -> None:
    extractor = Crops(clips=clips, crops=crops)
    (row,) = run(num_frames, extractor, stack=stack, interval=interval)
    feature, scores = by_hand(num_frames, stack=stack, interval=interval, clips=clips, crops=crops)
    assert row["rgb"].shape == (1, 3)
    assert row["rgb"].dtype == np.float32
    assert row["rgb"][0] == pytest.approx(feature, abs=1e-6)
    order = np.argsort(-scores)
    assert row["class_index"][0].tolist() == order.tolist()
    assert row["score"][0] == pytest.approx(scores[order], abs=1e-6)
    assert extractor.forwards == [(crops, stack, 3, 6, 1)] * clips


def test_the_mean_of_probabilities_is_not_that_of_logits() -> None:
    """Otherwise the test above could not tell them apart."""
    feature, scores = by_hand(100, stack=8, interval=2, clips=10, crops=3)
    logits = Crops().classify({"rgb": torch.from_numpy(feature)[None]})
    assert np.abs(logits.softmax(1)[0].numpy() - scores).max() > 1e-3


def test_the_row_spans_the_video_and_counts_the_frames_it_has_seen() -> None:
    (row,) = run(100, Crops(clips=3), stack=4, interval=2)
    assert row["time_start"].tolist() == [START]
    assert row["time_end"] == pytest.approx([START + 10.0])
    assert row["valid_frames"].tolist() == [12]
    (row,) = run(3, Crops(clips=3), stack=4, interval=2)
    assert row["valid_frames"].tolist() == [3]
    assert (row["time_start"].dtype, row["valid_frames"].dtype) == (np.float64, np.int32)


def test_without_predictions() -> None:
    (row,) = run(20, Crops(clips=2), stack=4, top_k=0)
    assert row.keys() == {"rgb", "time_start", "time_end", "valid_frames"}
    (row,) = run(20, Crops(clips=2), stack=4, top_k=2)
    assert row["score"].shape == (1, 2)


def test_half_precision_is_that_of_the_mean() -> None:
    (exact,) = run(20, Crops(clips=4), stack=4)
    (half,) = run(20, Crops(clips=4, dtype="float16"), stack=4)
    assert half["rgb"].dtype == np.float16
    assert np.array_equal(half["rgb"], exact["rgb"].astype(np.float16))


def test_a_video_without_frames_has_no_row() -> None:
    assert run(0, Crops(clips=4), stack=4) == []


@pytest.mark.parametrize(
    ("num_frames", "clips", "most"),
    [(500, 10, 4), (500, 1, 4), (40, 10, 8)],  # clips of 4 frames, 2 apart, 7 long
)
def test_frames_are_held_for_incomplete_clips_only(num_frames: int, clips: int, most: int) -> None:
    gc.collect()
    extractor = Crops(clips=clips)
    (row,) = run(num_frames, extractor, stack=4, interval=2)
    assert 4 <= extractor.most_alive <= most + 1  # and the one that is being read
    assert row["valid_frames"][0] <= clips * 4
    gc.collect()
    assert extractor.alive == 0


def test_only_frames_of_clips_are_resized() -> None:
    resized: list[int] = []

    class Counted(Crops):
        def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
            resized.append(len(frames))
            return super().resized(frames)

    def numbered() -> Iterator[Coloured]:
        yield from map(Coloured, range(300))

    settings = WindowSettings(4, 4, "drop", 0)
    frames: Any = numbered()
    list(extract_views(frames, Counted(clips=5), settings, num_frames=300))
    assert sum(resized) == 20
