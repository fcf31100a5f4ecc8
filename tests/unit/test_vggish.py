"""VGGish: spectrograms, network, and how a sound becomes rows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_factory import in_blocks, tone
from numpy.typing import NDArray
from reelstack.errors import ConfigError, WeightsError
from reelstack.extract import audio
from reelstack.extract.audio import AudioSettings, extract_audio
from reelstack.media.audio import AudioBlock
from reelstack.models.base import Extractor, Inputs
from reelstack.models.networks import vggish as networks
from reelstack.models.networks.vggish import VGGish
from reelstack.models.registry import create_extractor, model_entry
from reelstack.models.vggish import EXAMPLE_SAMPLES, SAMPLE_RATE, log_mel
from torch import Tensor
from typing_extensions import override

PUBLISHED = {
    "features.0": (64, 1, 3, 3),
    "features.3": (128, 64, 3, 3),
    "features.6": (256, 128, 3, 3),
    "features.8": (256, 256, 3, 3),
    "features.11": (512, 256, 3, 3),
    "features.13": (512, 512, 3, 3),
    "embeddings.0": (4096, 12288),
    "embeddings.2": (4096, 4096),
    "embeddings.4": (128, 4096),
}


class TestLogMel:
    def test_silence(self) -> None:
        spectra = log_mel(torch.zeros(2, EXAMPLE_SAMPLES))
        assert spectra.shape == (2, 96, 64)
        torch.testing.assert_close(spectra, torch.full_like(spectra, np.log(0.01)))

    def test_a_tone_is_loudest_in_its_band(self) -> None:
        """Centres of 64 bands between 125 and 7500 Hz, evenly spaced in 1127 ln(1 + f / 700)."""
        edges = np.linspace(*(1127 * np.log(1 + np.array([125, 7500]) / 700)), 66)
        centres = 700 * (np.exp(edges[1:-1] / 1127) - 1)
        for band in (5, 20, 40, 63):
            samples = tone(centres[band], SAMPLE_RATE, 0.975)[:, 0].astype(np.float32) / 32768
            spectra = log_mel(torch.from_numpy(samples)[None])[0]
            assert set(spectra.argmax(1).tolist()) == {band}

    def test_numbers_are_those_of_a_fourier_sum(self) -> None:
        samples = np.random.default_rng(0).uniform(-1, 1, 560)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
        waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
        magnitudes = np.abs(waves @ (samples[160:] * hann))
        mel = 1127 * np.log(1 + np.arange(257) * 31.25 / 700)
        low, high = (1127 * np.log(1 + f / 700) for f in (125, 7500))
        width = (high - low) / 65
        for band in (0, 13, 63):
            centre = low + (band + 1) * width
            triangle = np.clip(1 - np.abs(mel - centre) / width, 0, None)
            expected = np.log(magnitudes @ triangle + 0.01)
            spectra = log_mel(torch.from_numpy(samples.astype(np.float32))[None])
            assert spectra.shape == (1, 2, 64)
            assert float(spectra[0, 1, band]) == pytest.approx(expected, abs=1e-5)

    def test_a_constant_is_not_heard(self) -> None:
        loud = log_mel(torch.ones(1, EXAMPLE_SAMPLES)).exp() - 0.01
        assert float(loud.max()) < 0.02 * 200  # what the window leaks; the constant itself is 200


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkpoint of random weights; the network has few channels as long as this is in use."""
    monkeypatch.setattr(networks, "_CHANNELS", ((3,), (4,), (5, 5), (6, 6)))
    monkeypatch.setattr(networks, "_HIDDEN", 32)
    torch.manual_seed(0)
    torch.save(VGGish().state_dict(), tmp_path / "small.pth")
    return tmp_path / "small.pth"


def opened(path: Path, **settings: Any) -> Extractor:
    extractor = create_extractor(model_entry("vggish"), settings=settings)
    extractor.load({"audio": path}, device="cpu", precision=settings.pop("precision", "fp32"))
    return extractor


def example_noise(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (count, EXAMPLE_SAMPLES)).astype(np.float32)


class TestNetwork:
    def test_keys_and_shapes_are_the_published_ones(self) -> None:
        with torch.device("meta"):
            state = VGGish().state_dict()
        weights = {name: (shape, shape[:1]) for name, shape in PUBLISHED.items()}
        expected = {f"{n}.weight": s[0] for n, s in weights.items()}
        expected |= {f"{n}.bias": s[1] for n, s in weights.items()}
        assert {key: tuple(value.shape) for key, value in state.items()} == expected

    def test_maps_are_flattened_with_channels_last(self, small: Path) -> None:
        network = VGGish()
        network.load_state_dict(torch.load(small))
        examples = torch.rand(2, 1, 96, 64)
        maps = network.features(examples)
        assert maps.shape == (2, 6, 6, 4)
        flat = torch.stack([maps[:, :, y, x] for y in range(6) for x in range(4)], dim=1).flatten(1)
        torch.testing.assert_close(network(examples), network.embeddings(flat))

    def test_features(self, small: Path) -> None:
        extractor = opened(small)
        inputs = extractor.preprocess(example_noise(3))
        assert inputs["audio"].shape == (3, 1, 96, 64)
        features = extractor.forward(inputs)
        assert features["audio"].shape == (3, 128)
        assert features["audio"].dtype == torch.float32
        assert float(features["audio"].min()) == 0.0, "after the last ReLU"
        assert extractor.classify(features) is None
        assert extractor.class_names == ()

    def test_half_precision_is_close(self, small: Path) -> None:
        exact, rounded = (
            e.forward(e.preprocess(example_noise(4)))["audio"]
            for e in (opened(small), opened(small, precision="bf16"))
        )
        assert not torch.equal(exact, rounded)
        torch.testing.assert_close(exact, rounded, rtol=0.1, atol=0.02)

    def test_inner_layers(self, small: Path) -> None:
        blocks = in_blocks(example_noise(1)[0], SAMPLE_RATE)
        (rows,) = extract_audio(blocks, opened(small, layer="features.3"), AudioSettings())
        assert rows["audio"].shape == (1, 4)
        assert rows["audio"].min() < 0, "before the ReLU that follows"

    def test_a_checkpoint_of_another_size_is_refused(
        self, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(networks, "_HIDDEN", 16)
        with pytest.raises(WeightsError, match="wrong shape"):
            opened(small)


class Positions(Extractor):
    """Features are the first, the middle and the last sample: where an example lies."""

    def load_networks(self, weights: Mapping[str, Path]) -> None:
        pass

    @override
    def preprocess(self, frames: NDArray[Any], before: NDArray[Any] | None = None) -> Inputs:
        assert frames.shape[1:] == (EXAMPLE_SAMPLES,)
        assert frames.dtype == np.float32
        return {"audio": torch.from_numpy(frames)}

    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        return {"audio": windows["audio"][:, [0, EXAMPLE_SAMPLES // 2, EXAMPLE_SAMPLES - 1]]}


MIDDLE, LAST = EXAMPLE_SAMPLES // 2, EXAMPLE_SAMPLES - 1


def ramp(count: int, *, size: int = 1024, start: float = 0.0) -> list[AudioBlock]:
    """A sound at 16 kHz whose sample number i has the value i + 1."""
    return in_blocks(np.arange(1, count + 1, dtype=np.float32), SAMPLE_RATE, size=size, start=start)


def rows_of(
    blocks: Iterable[AudioBlock], settings: AudioSettings | None = None, **options: Any
) -> dict[str, NDArray[Any]]:
    """All rows, with the positions as features."""
    entry = model_entry("vggish")
    extractor = Positions(entry, entry.streams, {**entry.settings, **options})
    batches = list(extract_audio(blocks, extractor, settings or AudioSettings()))
    if not batches:
        return {"audio": np.empty((0, 3))}
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def aligned(*windows: tuple[float, float]) -> AudioSettings:
    starts, ends = np.array(windows, np.float64).reshape(-1, 2).T
    return AudioSettings(windows=(starts, ends))


class TestRows:
    def test_examples_side_by_side(self) -> None:
        rows = rows_of(ramp(2 * 15_360 + EXAMPLE_SAMPLES + 15_359, start=0.25))
        starts = np.array([0, 15_360, 30_720])
        assert np.array_equal(rows["audio"], starts[:, None] + [1, MIDDLE + 1, LAST + 1])
        np.testing.assert_allclose(rows["time_start"], [0.25, 1.21, 2.17], rtol=0, atol=1e-9)
        np.testing.assert_allclose(rows["time_end"], [1.21, 2.17, 3.13], rtol=0, atol=1e-9)
        assert rows["valid_frames"].tolist() == [96, 96, 96]
        assert rows["audio"].dtype == np.float32
        assert rows["time_start"].dtype == rows["time_end"].dtype == np.float64
        assert rows["valid_frames"].dtype == np.int32

    @pytest.mark.parametrize("hop", [1 / 16_000, 0.1, 1 / 3, 0.5, 0.97, 2.0, 7.0])
    def test_hops(self, hop: float) -> None:
        count = 60_000 if hop > 0.01 else EXAMPLE_SAMPLES + 20
        rows = rows_of(ramp(count), AudioSettings(hop_seconds=hop))
        expected = [k for k in range(count) if round(k * hop * 16_000) + EXAMPLE_SAMPLES <= count]
        assert len(rows["audio"]) == len(expected)
        positions = rows["audio"][:, 0].astype(np.float64) - 1
        np.testing.assert_allclose(positions, np.array(expected) * hop * 16_000, atol=0.5)
        np.testing.assert_allclose(rows["time_start"], positions / 16_000, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("rate", [8_000, 22_051, 48_000])
    def test_other_rates_have_the_same_times(self, rate: int) -> None:
        samples = np.zeros(3 * rate, np.float32)
        rows = rows_of(in_blocks(samples, rate, start=0.5))
        assert rows["time_start"].tolist() == pytest.approx([0.5, 1.46, 2.42])

    def test_a_tail_is_dropped_or_padded(self) -> None:
        count = EXAMPLE_SAMPLES + 5 * 160
        assert len(rows_of(ramp(count))["audio"]) == 1
        rows = rows_of(ramp(count), AudioSettings(tail="pad"))
        assert rows["audio"][1].tolist() == [15_361, 0, 0]
        assert rows["valid_frames"].tolist() == [96, 5]
        assert rows["time_end"][1] == pytest.approx(0.96 + 0.05)

    @pytest.mark.parametrize(
        ("count", "hop", "valid"),
        [
            (0, 0.96, []),
            (1, 0.96, []),
            (399, 0.96, []),
            (400, 0.96, [1]),
            (EXAMPLE_SAMPLES - 1, 0.96, [95]),
            (EXAMPLE_SAMPLES, 0.96, [96]),
            (EXAMPLE_SAMPLES + 159, 0.96, [96]),
            (EXAMPLE_SAMPLES + 160, 0.96, [96, 1]),
            (EXAMPLE_SAMPLES + 160, 0.48, [96, 49]),
            (EXAMPLE_SAMPLES + 100, 0.48, [96]),
            (EXAMPLE_SAMPLES + 160, 2.0, [96]),
            (32_000 + 399, 2.0, [96]),
            (32_000 + 400, 2.0, [96, 1]),
        ],
    )
    def test_padding_covers_every_spectrum_once(
        self, count: int, hop: float, valid: list[int]
    ) -> None:
        rows = rows_of(ramp(count), AudioSettings(hop_seconds=hop, tail="pad"))
        assert rows.get("valid_frames", np.empty(0)).tolist() == valid

    def test_too_short_gives_no_row(self) -> None:
        assert len(rows_of(ramp(EXAMPLE_SAMPLES - 1))["audio"]) == 0
        assert len(rows_of([])["audio"]) == 0

    def test_blocks_and_batches_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = [
            AudioSettings(hop_seconds=0.3, tail="pad"),
            aligned((0.0, 0.4), (0.1, 3.0), (2.0, 2.1), (3.5, 9.0)),
        ]
        for each in settings:
            expected = rows_of(ramp(70_000), each)
            for size, batch in ((7, 3), (333, 1), (70_000, 64)):
                monkeypatch.setattr(audio, "BATCH_EXAMPLES", batch)
                rows = rows_of(ramp(70_000, size=size), each)
                for name, values in expected.items():
                    assert np.array_equal(rows[name], values), name

    def test_dtype(self) -> None:
        rows = rows_of(ramp(1600 * 10), dtype="float16")
        assert rows["audio"].dtype == np.float16


class TestAlignment:
    def test_own_windows_give_the_own_rows(self) -> None:
        plain = rows_of(ramp(100_000, start=-0.064))
        windows = (plain["time_start"], plain["time_end"])
        rows = rows_of(ramp(100_000, start=-0.064), AudioSettings(windows=windows))
        for name, values in plain.items():
            assert np.array_equal(rows[name], values), name

    def test_a_short_window_has_one_example_around_its_middle(self) -> None:
        rows = rows_of(ramp(80_000, start=0.5), aligned((2.0, 2.04), (2.0, 3.2)))
        assert rows["audio"][:, 0].tolist() == [16_641, 25_921]
        assert rows["time_start"].tolist() == [2.0, 2.0]
        assert rows["time_end"].tolist() == [2.04, 3.2]
        assert rows["valid_frames"].tolist() == [96, 96]

    @pytest.mark.parametrize(
        ("length", "starts"),
        [
            (1.43, [0.235]),
            (1.45, [0.0, 0.49]),
            (1.92, [0.0, 0.96]),
            (2.56, [0.0, 0.8, 1.6]),
            (4.8, [0.0, 0.96, 1.92, 2.88, 3.84]),
        ],
    )
    def test_a_long_window_has_the_mean_of_its_examples(
        self, length: float, starts: list[float]
    ) -> None:
        rows = rows_of(ramp(160_000), aligned((1.0, 1.0 + length)))
        positions = np.rint(16_000 * (1.0 + np.array(starts)))
        assert rows["audio"][0, 0] == pytest.approx(positions.mean() + 1, abs=0.51)
        assert rows["valid_frames"].tolist() == [96 * len(starts)]

    def test_outside_of_the_sound_is_silence(self) -> None:
        sound = ramp(EXAMPLE_SAMPLES, start=5.0)
        windows = [(0.0, 0.96), (4.5, 5.46), (5.0, 5.96), (5.5, 6.46), (6.0, 6.96), (90.0, 99.6)]
        rows = rows_of(sound, aligned(*windows))
        assert rows["time_start"].tolist() == [start for start, _ in windows]
        assert rows["time_end"].tolist() == [end for _, end in windows]
        assert rows["valid_frames"].tolist() == [0, 46, 96, 46, 0, 0]
        assert rows["audio"][:, 0].tolist() == [0, 0, 1, 8001, 0, 0]
        assert rows["audio"][:, 2].tolist() == [0, LAST + 1 - 8000, LAST + 1, 0, 0, 0]

    def test_without_any_sound_every_window_has_a_row(self) -> None:
        rows = rows_of([], aligned((0.0, 2.0), (1.0, 3.0)))
        assert rows["valid_frames"].tolist() == [0, 0]
        assert not rows["audio"].any()

    def test_no_windows_no_rows(self) -> None:
        assert len(rows_of(ramp(50_000), aligned())["audio"]) == 0

    def test_windows_in_any_order(self) -> None:
        windows = [(3.0, 4.0), (0.5, 5.0), (0.2, 0.3), (3.0, 4.0), (2.0, 1.0)]
        rows = rows_of(ramp(90_000), aligned(*windows))
        for number, window in enumerate(windows):
            alone = rows_of(ramp(90_000), aligned(window))
            assert {n: v[number].tolist() for n, v in rows.items()} == {
                n: v[0].tolist() for n, v in alone.items()
            }


class TestSettings:
    @pytest.mark.parametrize("hop", [0.0, -1.0, float("nan"), float("inf"), 1e-6])
    def test_hop(self, hop: float) -> None:
        with pytest.raises(ConfigError, match=r"hop_seconds is .*; allowed: .*6.25e-05"):
            AudioSettings(hop_seconds=hop)

    def test_tail(self) -> None:
        with pytest.raises(ConfigError, match=r"tail is 'padd'.*Did you mean 'pad'\?"):
            AudioSettings(tail="padd")

    @pytest.mark.parametrize(
        "windows",
        [(np.zeros(3), np.zeros(2)), (np.zeros((2, 2)), np.zeros((2, 2))), (np.zeros(2),)],
    )
    def test_shapes_of_windows(self, windows: Any) -> None:
        with pytest.raises(ConfigError, match="windows have the shapes"):
            AudioSettings(windows=windows)

    def test_windows_have_finite_times(self) -> None:
        with pytest.raises(ConfigError, match="no finite number"):
            AudioSettings(windows=(np.array([np.nan]), np.array([1.0])))


@pytest.mark.parametrize("align", [False, True])
def test_memory_does_not_grow_with_the_length(align: bool) -> None:
    rate, seconds = 44_100, 300

    def sound() -> Iterator[AudioBlock]:
        for second in range(seconds):
            yield AudioBlock(np.full(rate, second, np.float32), rate, float(second))

    starts = np.arange(0.0, seconds, 5.0)
    settings = AudioSettings(windows=(starts, starts + 1) if align else None, hop_seconds=5.0)
    entry = model_entry("vggish")
    extractor = Positions(entry, entry.streams, entry.settings)
    list(extract_audio(in_blocks(np.zeros(rate * 2, np.float32), rate), extractor, settings))
    tracemalloc.start()
    rows = sum(len(batch["audio"]) for batch in extract_audio(sound(), extractor, settings))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 60
    assert peak < 8e6, "5 minutes at 16 kHz alone are 19 MB"
