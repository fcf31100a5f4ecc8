"""A family with a checkpoint, inputs of an exact length, and features of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from audio_factory import noise, with_picture, write_wav
from family_cases import Case
from media_factory import run_ffmpeg, write_video
from numpy.typing import NDArray
from reelstack.config import FeatureSet
from reelstack.extract.api import open_extractor, run_video
from reelstack.extract.options import set_of
from reelstack.extract.rows import Source, Times
from reelstack.features import Features
from reelstack.models.base import Extractor
from reelstack.models.registry import model_entry

FPS = 25
HEIGHT, WIDTH = 48, 64
SPECTRUM, SPECTRUM_STEP, RATE = 400, 160, 16_000
"""Samples, and Hz: what VGGish counts in place of frames."""


@dataclass(frozen=True)
class Family:
    """A case with its checkpoint, and a folder for inputs.

    What is measured in frames is measured in spectra where the model reads sound.
    """

    case: Case
    checkpoint: Path
    folder: Path

    @property
    def model(self) -> str:
        return f"hf/{self.checkpoint}" if self.case.model.startswith("hf/") else self.case.model

    @property
    def reads_sound(self) -> bool:
        return model_entry(self.model).reads == "audio"

    @property
    def rate(self) -> float:
        return RATE / SPECTRUM_STEP if self.reads_sound else FPS

    def set(self, **options: Any) -> FeatureSet:
        """A feature set with the case's windows, if `options` do not say otherwise."""
        case = self.case
        windows = {"stack_size": case.stack, "step_size": case.step}
        if case.interval > 1:
            windows["frame_interval"] = case.interval
        own = {} if self.reads_sound else windows
        return set_of(self.model, {"top_k": 3, **own, **case.options, **options})

    def open(self, feature_set: FeatureSet, checkpoint: Path | None = None) -> Extractor:
        weights = {self.case.component: checkpoint or self.checkpoint}
        return open_extractor(feature_set, weights, device="cpu")

    @cached_property
    def extractor(self) -> Extractor:
        return self.open(self.set())

    def run(self, path: Path, *, aligned_with: Times | None = None, **options: Any) -> Features:
        """Features by the extractor that is loaded once; `options` are of windows alone."""
        source = Source(path, windows=aligned_with)
        return run_video(source, self.extractor, self.set(**options))

    def run_anew(self, path: Path, **options: Any) -> Features:
        feature_set = self.set(**options)
        return run_video(Source(path), self.open(feature_set), feature_set)

    @property
    def length(self) -> int:
        """Frames of an input with three windows and a rest of one frame."""
        return self.case.span + 2 * self.case.step + 1

    def input(self, length: int) -> Path:
        """A lossless video of so many frames, or one with sound of so many spectra."""
        path = self.folder / f"{length}.mkv"
        if path.exists():
            return path
        if not self.reads_sound:
            size = {"height": HEIGHT, "width": WIDTH}
            return write_video(path, num_frames=length, fps=FPS, codec="ffv1", **size)
        wav = write_wav(self.folder / f"{length}.wav", _sound(length), RATE)
        return with_picture(wav, path.name, "pcm_s16le")

    def extended(self, length: int, by: int) -> Path:
        """`input` with its last frame repeated, or with silence at its end."""
        target = self.folder / f"{length}+{by}.mkv"
        if not self.reads_sound:
            repeat = ("-vf", f"tpad=stop_mode=clone:stop={by}", "-c:v", "ffv1")
            run_ffmpeg("-i", f"file:{self.input(length)}", *repeat, f"file:{target}")
            return target
        silence = np.zeros((by * SPECTRUM_STEP, 1), np.int16)
        wav = target.with_suffix(".wav")
        write_wav(wav, np.concatenate([_sound(length), silence]), RATE)
        return with_picture(wav, target.name, "pcm_s16le")


def _sound(spectra: int) -> NDArray[np.int16]:
    """Noise that grows louder."""
    samples = noise((spectra - 1) * SPECTRUM_STEP + SPECTRUM)
    return (samples * np.linspace(0.1, 1, len(samples))[:, None]).astype(np.int16)
