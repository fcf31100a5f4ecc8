"""The engine: decoded frames in, features of batched windows out, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelstack.errors import VideoError
from reelstack.media.frames import Frame
from reelstack.media.windows import Window, Windower
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
        stack_size, step_size, interval: frames (see `Windower`).
        tail: "drop" or "pad".
        top_k: predictions per window; 0 for none.
    """

    stack_size: int
    step_size: int
    tail: str
    top_k: int
    interval: int = 1


Arrays = dict[str, NDArray[Any]]
"""Rows of B windows: one (B, …) array per stream, `time_start` and `time_end` float64 (B,),
`valid_frames` int32 (B,); with predictions also `class_index` int32 and `score` float32 (B, k)."""

Keep = Callable[[int, NDArray[np.uint8]], None]
"""Given the number of a frame and its (H, W, 3) pixels, keeps it for the user to look at."""


def extract_windows(
    frames: Iterable[Frame],
    extractor: Extractor,
    settings: WindowSettings,
    *,
    keep: Keep | None = None,
) -> Iterator[Arrays]:
    """Features of all windows of one video, a batch of windows at a time, in order.

    Args:
        keep: is given every frame that a window reads.
    """
    batch_frames = BATCH_FRAMES if extractor.device.type == "cpu" else GPU_BATCH_FRAMES
    batch_size = max(1, batch_frames // settings.stack_size)
    batch: list[Window[Item]] = []
    for window in _Preprocessing(extractor, settings, keep).windows(frames):
        batch.append(window)
        if len(batch) == batch_size:
            yield _compute(batch, extractor, settings.top_k)
            batch = []
    if batch:
        yield _compute(batch, extractor, settings.top_k)


Item = Mapping[str, Tensor]
"""What the networks read of one frame, by name."""


class _Preprocessing:
    """Frames → items → windows; consecutive frames of one size are preprocessed together."""

    def __init__(self, extractor: Extractor, settings: WindowSettings, keep: Keep | None) -> None:
        self._keep = keep
        self._extractor = extractor
        self._windower: Windower[Item] = Windower(
            stack_size=settings.stack_size,
            step_size=settings.step_size,
            interval=settings.interval,
            extra=extractor.extra_frames,
            tail=settings.tail,
        )
        self._pads = settings.tail == "pad"
        self._chunk: list[tuple[NDArray[np.uint8], Frame]] = []
        self._before: NDArray[np.uint8] | None = None
        self._shapes: dict[str, torch.Size] | None = None

    def windows(self, frames: Iterable[Frame]) -> Iterator[Window[Item]]:
        for position, frame in enumerate(frames):
            if self._windower.wants(position):
                pixels = frame.rgb()
                if self._keep is not None:
                    self._keep(position, pixels)
                chunk = self._chunk
                if chunk and (len(chunk) == CHUNK_FRAMES or chunk[0][0].shape != pixels.shape):
                    yield from self._push()
                chunk.append((pixels, frame))
            else:
                yield from self._push()
                self._before = None
                self._windower.skip()
        yield from self._push()
        yield from self._windower.finish(self._repeated_last())

    def _push(self) -> Iterator[Window[Item]]:
        if not self._chunk:
            return
        inputs = self._extractor.preprocess(
            np.stack([pixels for pixels, _ in self._chunk]), self._before
        )
        self._require_one_shape({name: values.shape[1:] for name, values in inputs.items()})
        for number, (_, frame) in enumerate(self._chunk):
            item = {name: values[number] for name, values in inputs.items()}
            yield from self._windower.push(item, frame.time, frame.duration)
        self._before = self._chunk[-1][0]
        self._chunk.clear()

    def _require_one_shape(self, shapes: dict[str, torch.Size]) -> None:
        """Maps have the size of their frames, and a video can change that between two windows."""
        if self._shapes not in (None, shapes):
            raise VideoError(
                "unreadable",
                "the frame size changes within the video, and rows of this model have the size of "
                "the frames; fps.method: reencode gives all frames one size",
            )
        self._shapes = shapes

    def _repeated_last(self) -> Item | None:
        """The item of a frame that repeats the last one: it has moved nothing since."""
        if not (self._pads and self._extractor.pairwise) or self._before is None:
            return None
        inputs = self._extractor.preprocess(self._before[None], self._before)
        return {name: values[0] for name, values in inputs.items()}


def _compute(batch: list[Window[Item]], extractor: Extractor, top_k: int) -> Arrays:
    windows = {
        name: torch.stack([torch.stack([item[name] for item in w.frames]) for w in batch])
        for name in batch[0].frames[0]
    }
    features = extractor.forward(windows)
    rows = as_arrays(extractor.outputs(features), extractor.settings["dtype"])
    rows["time_start"] = np.array([w.time_start for w in batch])
    rows["time_end"] = np.array([w.time_end for w in batch])
    rows["valid_frames"] = np.array([w.valid_frames for w in batch], np.int32)
    logits = extractor.classify(features) if top_k else None
    return rows if logits is None else rows | best_classes(logits.softmax(1), top_k)


def as_arrays(outputs: Mapping[str, Tensor], dtype: str) -> Arrays:
    """Tensors as arrays of the set's `dtype`."""
    return {name: values.cpu().numpy().astype(np.dtype(dtype)) for name, values in outputs.items()}


def best_classes(scores: Tensor, top_k: int) -> Arrays:
    """(B, classes) probabilities → `class_index` int32 and `score` float32 (B, k), best first."""
    best = scores.topk(min(top_k, scores.shape[1]), dim=1)
    return {"class_index": best.indices.int().cpu().numpy(), "score": best.values.cpu().numpy()}
