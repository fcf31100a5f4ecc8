"""The features of one video: what `extract_video` returns and what a store gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """Top-k classes per window, best first.

    Attributes:
        class_index: (T, k) int32.
        score: (T, k) float32, softmax probabilities.
        labels: class names by index; empty where the checkpoint publishes none.
    """

    class_index: NDArray[np.int32]
    score: NDArray[np.float32]
    labels: tuple[str, ...] = ()

    def names(self, window: int) -> list[str]:
        """The k class names of one window, best first; `class N` where no names are published."""
        return [
            self.labels[index] if index < len(self.labels) else f"class {index}"
            for index in self.class_index[window].tolist()
        ]


@dataclass(frozen=True)
class Features:
    """Features of one video; T is the number of windows.

    Attributes:
        video_id: the video's identifier.
        streams: stream name → (T, D) float32.
        time_start: (T,) float64, seconds: when the first frame of each window is shown.
        time_end: (T,) float64, seconds: when the last real frame of each window ends.
        valid_frames: (T,) int32: frames of the window that are real and not padding.
        predictions: top-k classes per window, None for a model without a classifier.
        status: "ok", or why the video has fewer features than expected (see the manifest).
        error: the message that belongs to `status`, empty for "ok".
        info: facts of the decoded video: `frames`, `fps`, `height`, `width`.
    """

    video_id: str
    streams: dict[str, NDArray[np.float32]]
    time_start: NDArray[np.float64]
    time_end: NDArray[np.float64]
    valid_frames: NDArray[np.int32]
    predictions: Predictions | None = None
    status: str = "ok"
    error: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time_start)
