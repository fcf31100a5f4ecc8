"""The engine: decoded frames in, features of batched windows out, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelstack.errors import ConfigError, nearest
from reelstack.media.frames import Frame
from reelstack.media.windows import TAILS, Window, Windower
from reelstack.models.base import Extractor

CHUNK_FRAMES = 16
"""Frames that are preprocessed together."""

BATCH_FRAMES = 16
"""Frames per forward pass on the CPU: more are slower there and take more memory (measured, see
docs/performance.md). Features do not depend on it beyond rounding (~1e-5 of their std)."""

GPU_BATCH_FRAMES = 64
"""The same on a GPU."""


@dataclass(frozen=True)
class WindowSettings:
    """How a video becomes windows, and what is kept of each.

    Attributes:
        stack_size, step_size: frames.
        tail: "drop" or "pad" (see `Windower`).
        top_k: predictions per window; 0 for none.
    """

    stack_size: int
    step_size: int
    tail: str
    top_k: int

    def __post_init__(self) -> None:
        """Raise ConfigError on a value that is not possible."""
        for name, value, least in (
            ("stack_size", self.stack_size, 1),
            ("step_size", self.step_size, 1),
            ("top_k", self.top_k, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} is {value}; allowed: a whole number of {least} or more")
        if self.tail not in TAILS:
            raise ConfigError(
                f"tail is {self.tail!r}; allowed: {', '.join(TAILS)}.{nearest(self.tail, TAILS)}"
            )


Arrays = dict[str, NDArray[Any]]
"""Rows of B windows: one float32 (B, D) array per stream, `time_start` and `time_end` float64 (B,),
`valid_frames` int32 (B,); with predictions also `class_index` int32 and `score` float32 (B, k)."""


def extract_windows(
    frames: Iterable[Frame], extractor: Extractor, settings: WindowSettings
) -> Iterator[Arrays]:
    """Features of all windows of one video, a batch of windows at a time, in order."""
    batch_frames = BATCH_FRAMES if extractor.device.type == "cpu" else GPU_BATCH_FRAMES
    batch_size = max(1, batch_frames // settings.stack_size)
    batch: list[Window[Tensor]] = []
    for window in _windows(frames, extractor, settings):
        batch.append(window)
        if len(batch) == batch_size:
            yield _compute(batch, extractor, settings.top_k)
            batch = []
    if batch:
        yield _compute(batch, extractor, settings.top_k)


def _windows(
    frames: Iterable[Frame], extractor: Extractor, settings: WindowSettings
) -> Iterator[Window[Tensor]]:
    windower: Windower[Tensor] = Windower(
        stack_size=settings.stack_size, step_size=settings.step_size, tail=settings.tail
    )
    chunk: list[tuple[NDArray[np.uint8], Frame]] = []
    for position, frame in enumerate(frames):
        if windower.wants(position):
            pixels = frame.rgb()
            if chunk and (len(chunk) == CHUNK_FRAMES or chunk[0][0].shape != pixels.shape):
                yield from _push(chunk, extractor, windower)
                chunk = []
            chunk.append((pixels, frame))
        else:
            yield from _push(chunk, extractor, windower)
            chunk = []
            windower.skip()
    yield from _push(chunk, extractor, windower)
    yield from windower.finish()


def _push(
    chunk: list[tuple[NDArray[np.uint8], Frame]], extractor: Extractor, windower: Windower[Tensor]
) -> Iterator[Window[Tensor]]:
    if not chunk:
        return
    inputs = extractor.preprocess(np.stack([pixels for pixels, _ in chunk]))
    for tensor, (_, frame) in zip(inputs, chunk, strict=True):
        yield from windower.push(tensor, frame.time, frame.duration)


def _compute(batch: list[Window[Tensor]], extractor: Extractor, top_k: int) -> Arrays:
    windows = torch.stack([torch.stack(window.frames) for window in batch])
    features = extractor.forward(windows)
    rows: Arrays = {name: values.cpu().numpy() for name, values in features.items()}
    rows["time_start"] = np.array([w.time_start for w in batch])
    rows["time_end"] = np.array([w.time_end for w in batch])
    rows["valid_frames"] = np.array([w.valid_frames for w in batch], np.int32)
    if top_k:
        scores = extractor.classify(features).softmax(1)
        best = scores.topk(min(top_k, scores.shape[1]), dim=1)
        rows["class_index"] = best.indices.int().cpu().numpy()
        rows["score"] = best.values.cpu().numpy()
    return rows
