"""VGGish: what a sound is like, per 0.96 s, from its log-mel spectrogram.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from reelstack.models.base import Extractor, Inputs
from reelstack.models.checkpoint import load_state, read_state_dict
from reelstack.models.entry import ModelEntry
from reelstack.models.networks.vggish import VGGish

SAMPLE_RATE = 16_000
"""Hz."""

FRAME_SAMPLES, FRAME_STEP, FRAMES = 400, 160, 96
"""An example has 96 spectra of 25 ms, 10 ms apart."""

EXAMPLE_SAMPLES = (FRAMES - 1) * FRAME_STEP + FRAME_SAMPLES
_FFT = 512
_BANDS = 64
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.01


class VGGishExtractor(Extractor):
    """Samples at 16 kHz → log-mel examples → 128 features each, stream `audio`."""

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        network = VGGish()
        path = weights["audio"]
        load_state(network, read_state_dict(path), path=path, model=self.entry.name)
        self.networks = {"audio": self.prepare(network, torch.channels_last)}

    @override
    def preprocess(self, frames: NDArray[Any], before: NDArray[Any] | None = None) -> Inputs:
        """(B, 15600) float32 mono samples at 16 kHz, in [-1, 1) → `audio` (B, 1, 96, 64).

        What a model of frames gets as `frames` are samples here; `before` has no meaning.
        """
        return {"audio": log_mel(torch.from_numpy(frames).to(self.device))[:, None]}

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        examples = windows["audio"].contiguous(memory_format=torch.channels_last)
        with self.inference():
            features = self.networks["audio"](examples)
        return {"audio": features.float()}


def log_mel(samples: Tensor) -> Tensor:
    """(B, N) float32 samples at 16 kHz → (B, T, 64) log-mel, T = 1 + (N - 400) // 160.

    Magnitudes of the FFT under a periodic Hann window, added up in triangular bands between
    125 and 7500 Hz, spaced evenly on HTK's mel scale.
    """
    window = torch.hann_window(FRAME_SAMPLES, periodic=True, device=samples.device)
    frames = samples.unfold(-1, FRAME_SAMPLES, FRAME_STEP) * window
    magnitudes = torch.fft.rfft(frames, _FFT).abs()
    bands = torch.from_numpy(_mel_bands()).to(samples.device)
    return torch.log(magnitudes @ bands + _LOG_OFFSET)


@cache
def _mel_bands() -> NDArray[np.float32]:
    """(257, 64) weights of the FFT's bins in each band; DC lies below the first."""
    bins = _mel(np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), _BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    weights: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    return weights.astype(np.float32)


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(hertz / 700.0)


def build(
    entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
) -> VGGishExtractor:
    """The family's extractor for `entry`."""
    return VGGishExtractor(entry, streams, settings)
