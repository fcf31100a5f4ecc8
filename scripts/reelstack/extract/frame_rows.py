"""The rows of a video's frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from reelstack.config import FeatureSet
from reelstack.extract.engine import Arrays, WindowSettings, extract_windows
from reelstack.extract.rows import VideoRows
from reelstack.extract.views import extract_views
from reelstack.media.frames import Frame, VideoReader
from reelstack.media.selection import shown_seconds, spread
from reelstack.models.base import Extractor

JPEG_QUALITY = 95


class FrameRows(VideoRows):
    """The rows of a video's frames."""

    _num_used = 0
    _seconds = 0.0

    @override
    def rows(self) -> Iterator[Arrays]:
        settings = window_settings(self._set, self._extractor)
        if self._set.total is not None:
            self._seconds = shown_seconds(self._source.path)
        num_rows = 0
        with self._reader() as video:
            for batch in self._batches(self._counted(video), settings):
                num_rows += len(batch["time_start"])
                yield batch
        if num_rows == 0:
            self.status, self.error = "too_short", self._shortage(settings)
        if video.problem:
            self.status, self.error = "truncated", video.problem
        self.facts = {
            "frames_used": self._num_used,
            "frames_decoded": video.num_source_frames,
            "fps": self._rate(video),
            "height": video.height,
            "width": video.width,
        }

    def _reader(self) -> VideoReader:
        return VideoReader(
            self._source.path,
            sample_fps=self._set.fps if self._set.fps_method == "sample" else None,
            own_clock=self._source.own_clock,
            threads=self._source.threads,
        )

    def _count(self) -> int:
        with self._reader() as video:
            return sum(1 for _ in self._selected(video))

    def _selected(self, video: VideoReader) -> Iterable[Frame]:
        if self._set.total is None:
            return video
        return spread(video, total=self._set.total, seconds=self._seconds)

    def _batches(self, frames: Iterator[Frame], settings: WindowSettings) -> Iterator[Arrays]:
        keep = self._save_picture if self._source.pictures else None
        if self._set.settings.get("clips"):
            return extract_views(
                frames, self._extractor, settings, num_frames=self._count(), keep=keep
            )
        return extract_windows(frames, self._extractor, settings, keep=keep)

    def _counted(self, video: VideoReader) -> Iterator[Frame]:
        for frame in self._selected(video):
            self._num_used += 1
            yield frame

    def _save_picture(self, number: int, pixels: NDArray[np.uint8]) -> None:
        assert self._source.pictures is not None
        (picture,) = self._extractor.resized(pixels[None])
        path = self._source.pictures / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(picture)).save(path, quality=JPEG_QUALITY)

    def _rate(self, video: VideoReader) -> float:
        if self._set.total is not None:
            return self._set.total / self._seconds if self._seconds else 0.0
        return self._set.fps or video.fps

    def _shortage(self, settings: WindowSettings) -> str:
        needed = settings.stack_size + self._extractor.extra_frames
        apart = f", {settings.interval} frames apart" if settings.interval > 1 else ""
        shortage = f"{self._num_used} frames do not fill one window of {needed}{apart}"
        return shortage + "; tail: pad would repeat the last frame"


def window_settings(feature_set: FeatureSet, extractor: Extractor) -> WindowSettings:
    """The set's windows; what it leaves open is the checkpoint's."""
    stack = feature_set.stack_size or extractor.stack_size
    assert stack is not None
    return WindowSettings(
        stack,
        feature_set.step_size or stack,
        feature_set.tail,
        feature_set.top_k,
        feature_set.frame_interval,
    )
