"""Tiny sounds for the tests: made on the spot."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from media_factory import run_ffmpeg
from numpy.typing import NDArray
from reelstack.media.audio import AudioBlock, AudioReader

CLICK_SECONDS = 0.004


def noise(num_samples: int, channels: int = 1, *, seed: int = 0) -> NDArray[np.int16]:
    """(N, channels) int16 over the whole range."""
    generator = np.random.default_rng(seed)
    return generator.integers(-32768, 32768, (num_samples, channels), dtype=np.int16)


def tone(frequency: float, rate: int, seconds: float, *, peak: float = 0.5) -> NDArray[np.int16]:
    """(N, 1) int16."""
    times = np.arange(round(rate * seconds)) / rate
    return np.rint(32767 * peak * np.sin(2 * np.pi * frequency * times)).astype(np.int16)[:, None]


def click(rate: int, seconds: float, at: float, *, channels: int = 1) -> NDArray[np.int16]:
    """(N, channels) int16: silence, and a short bump whose middle is at `at` seconds."""
    times = np.arange(round(rate * seconds)) / rate - at
    bump = np.cos(np.pi * np.clip(times / CLICK_SECONDS, -0.5, 0.5)) ** 2
    return np.repeat(np.rint(20000 * bump).astype(np.int16)[:, None], channels, axis=1)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int) -> Path:
    """A PCM file of (N, channels) int16."""
    with wave.open(str(path), "wb") as output:
        output.setnchannels(samples.shape[1])
        output.setsampwidth(2)
        output.setframerate(rate)
        output.writeframes(samples.astype("<i2").tobytes())
    return path


def encoded(wav: Path, name: str, codec: str, *options: object) -> Path:
    """`wav` in another codec; the suffix of `name` chooses the container."""
    target = wav.with_name(name)
    run_ffmpeg("-i", f"file:{wav}", "-c:a", codec, "-strict", "-2", *options, f"file:{target}")
    return target


def with_picture(wav: Path, name: str, codec: str, *, video: str = "mpeg4") -> Path:
    """`wav` and one second of picture that starts with it."""
    target = wav.with_name(name)
    black = ("-f", "lavfi", "-i", "color=size=64x48:duration=1:rate=25")
    streams = ("-map", "0:a", "-map", "1:v", "-c:a", codec, "-c:v", video)
    run_ffmpeg("-i", f"file:{wav}", *black, *streams, f"file:{target}")
    return target


def write_timed(path: Path, pieces: Sequence[tuple[float, NDArray[np.int16]]], rate: int) -> Path:
    """A PCM sound in Matroska; each (N, 1) piece starts at the given seconds."""
    with av.open(f"file:{path}", "w") as output:
        stream = output.add_stream("pcm_s16le", rate=rate, layout="mono")
        stream.codec_context.time_base = Fraction(1, rate)
        for seconds, samples in pieces:
            frame = av.AudioFrame.from_ndarray(samples.T, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(seconds * rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[NDArray[np.float32], float, AudioReader]:
    """All samples, the time of the first one, and the reader; checks that blocks join up."""
    with AudioReader(path) as reader:
        blocks = list(reader)
    for before, after in pairwise(blocks):
        length = len(before.samples) / before.sample_rate
        np.testing.assert_allclose(after.time, before.time + length, rtol=0, atol=1e-9)
    return np.concatenate([block.samples for block in blocks]), blocks[0].time, reader


def click_time(path: Path) -> float:
    """Seconds, when the bump of `click` is loudest."""
    samples, start, reader = read(path)
    energy = samples.astype(np.float64) ** 2
    return float(
        start + (energy * np.arange(len(energy))).sum() / energy.sum() / reader.sample_rate
    )


def in_blocks(
    samples: NDArray[np.float32], rate: int, *, size: int = 1024, start: float = 0.0
) -> list[AudioBlock]:
    """(N,) samples as a reader would give them."""
    return [
        AudioBlock(samples[first : first + size], rate, start + first / rate)
        for first in range(0, len(samples), size)
    ]
