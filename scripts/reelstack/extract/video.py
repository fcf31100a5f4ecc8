"""One video, whatever a model reads of it."""

from __future__ import annotations

from reelstack.config import FeatureSet
from reelstack.extract.audio_rows import AudioRows
from reelstack.extract.frame_rows import FrameRows
from reelstack.extract.rows import Source, VideoRows
from reelstack.models.base import Extractor
from reelstack.models.registry import create_extractor


def extractor_of(feature_set: FeatureSet) -> Extractor:
    """The set's extractor, not yet loaded.

    Raises:
        ConfigError: if a package that the family needs is missing.
    """
    extractor = create_extractor(feature_set.entry, feature_set.streams, feature_set.settings)
    extractor.stack_size = feature_set.stack_size
    return extractor


def video_rows(source: Source, feature_set: FeatureSet, extractor: Extractor) -> VideoRows:
    """The rows of what the model reads of a video."""
    kind = AudioRows if feature_set.entry.reads == "audio" else FrameRows
    return kind(source, feature_set, extractor)
