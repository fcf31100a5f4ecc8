"""The rows of one video: where it is, what comes out, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelstack.config import FeatureSet
from reelstack.extract.engine import Arrays
from reelstack.models.base import Extractor

Times = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Start and end of windows, in seconds."""


@dataclass(frozen=True)
class Source:
    """Where one video is, and how to read it.

    Attributes:
        own_clock: see `VideoReader`.
        threads: decoder threads.
        windows: those of the set that an audio set is aligned with.
        pictures: folder for the frames that the network reads (`keep_frames`).
    """

    path: Path
    own_clock: bool = False
    threads: int = 1
    windows: Times | None = None
    pictures: Path | None = None


class VideoRows(ABC):
    """The rows of one video.

    Attributes, known once `rows` has ended:
        status, error: "ok", "too_short" or "truncated", with the reason.
        facts: what was read: for frames `frames_used`, `frames_decoded`, `fps`, `height`, `width`.
    """

    def __init__(self, source: Source, feature_set: FeatureSet, extractor: Extractor) -> None:
        self._source = source
        self._set = feature_set
        self._extractor = extractor
        self.status, self.error = "ok", ""
        self.facts: dict[str, Any] = {}

    @abstractmethod
    def rows(self) -> Iterator[Arrays]:
        """A batch of windows at a time.

        Raises:
            VideoError: if the video has nothing that the model reads, or it cannot be decoded.
        """
