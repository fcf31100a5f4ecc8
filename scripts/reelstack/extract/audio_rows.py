"""The rows of a video's sound."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from reelstack.extract.audio import AudioSettings, extract_audio
from reelstack.extract.engine import Arrays
from reelstack.extract.rows import VideoRows
from reelstack.media.audio import AudioReader


class AudioRows(VideoRows):
    """The rows of a video's sound: examples at a hop, or the windows of another set."""

    @override
    def rows(self) -> Iterator[Arrays]:
        settings = AudioSettings(
            self._set.settings["hop_seconds"], self._set.tail, self._source.windows
        )
        num_rows = 0
        with AudioReader(self._source.path) as sound:
            for batch in extract_audio(sound, self._extractor, settings):
                num_rows += len(batch["time_start"])
                yield batch
        seconds = sound.num_samples / sound.sample_rate
        if num_rows == 0:
            self.status = "too_short"
            self.error = f"{seconds:.3f} s of sound do not fill one example of 0.975 s" + (
                "; tail: pad would add silence" if self._set.tail == "drop" else ""
            )
        if sound.problem:
            self.status, self.error = "truncated", sound.problem
        self.facts = {"audio_seconds": round(seconds, 6), "audio_rate": sound.sample_rate}
