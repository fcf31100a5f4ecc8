"""Video-level features: a few clips spread over the video, several crops of each, averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelstack.extract.engine import Arrays, Keep, WindowSettings, as_arrays, best_classes
from reelstack.media.clips import clip_indices
from reelstack.media.frames import Frame
from reelstack.models.base import Extractor


def extract_views(
    frames: Iterable[Frame],
    extractor: Extractor,
    settings: WindowSettings,
    *,
    num_frames: int,
    keep: Keep | None = None,
) -> Iterator[Arrays]:
    """One row: features and class probabilities averaged over all clips and crops.

    Held are the resized frames of clips that are not complete yet.

    Args:
        num_frames: how many there are: where the clips lie depends on it.
        keep: is given every frame that a clip reads.
        extractor: one with `views(frames)`, (T, H, W, 3) → (crops, T, C, h, w).
        settings: `stack_size` and `interval` are the clips'; `tail` and `step_size` do not apply.
    """
    clips = clip_indices(
        num_frames, settings.stack_size, settings.interval, extractor.settings["clips"]
    )
    start: float | None = None
    end = 0.0
    outputs: list[dict[str, Tensor]] = []
    scores: list[Tensor] = []
    for frame, complete in _complete_clips(frames, extractor, clips, keep):
        start = frame.time if start is None else start
        end = frame.time + frame.duration
        for clip in complete:
            features = extractor.forward({"rgb": extractor.views(clip)})
            outputs.append(extractor.outputs(features))
            logits = extractor.classify(features) if settings.top_k else None
            scores += [] if logits is None else [logits.softmax(1)]
    if start is None:
        return
    means = {name: torch.cat([o[name] for o in outputs]).mean(0)[None] for name in outputs[0]}
    rows = as_arrays(means, extractor.settings["dtype"])
    rows["time_start"], rows["time_end"] = np.array([start]), np.array([end])
    rows["valid_frames"] = np.array([len(np.unique(clips))], np.int32)
    yield rows | best_classes(torch.cat(scores).mean(0)[None], settings.top_k) if scores else rows


def _complete_clips(
    frames: Iterable[Frame],
    extractor: Extractor,
    clips: NDArray[np.int64],
    keep: Keep | None,
) -> Iterator[tuple[Frame, list[NDArray[np.uint8]]]]:
    """Every frame with the clips that it completes, (T, h, w, 3) each."""
    last_use: dict[int, int] = {}
    for clip in clips.tolist():
        for index in clip:
            last_use[index] = max(last_use.get(index, 0), *clip)
    held: dict[int, NDArray[np.uint8]] = {}
    for number, frame in enumerate(frames):
        if number in last_use:
            pixels = frame.rgb()
            if keep is not None:
                keep(number, pixels)
            held[number] = extractor.resized(pixels[None])[0]
        yield frame, [np.stack([held[i] for i in c]) for c in clips.tolist() if max(c) == number]
        for index in [i for i in held if last_use[i] <= number]:
            del held[index]
