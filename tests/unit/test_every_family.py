"""What all families have in common: rows, windows, times, tails, predictions and inner layers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from audio_factory import noise, write_wav
from family_cases import CASES, made_small, save_checkpoint
from family_factory import HEIGHT, WIDTH, Family
from media_factory import write_video
from numpy.typing import NDArray
from reelstack.errors import ConfigError, VideoError
from reelstack.extract import audio, engine
from reelstack.features import Features
from reelstack.models.entries import ENTRIES, OPEN_ENTRIES
from reelstack.models.registry import model_entry

TOP_K = 3
GRID = {"stack_size": 14, "step_size": 5, "fps": 16}
"""Windows that all families read but those of one fixed length; a sixteenth has exact multiples."""


@pytest.fixture(scope="module", params=CASES)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Family]:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with made_small(case):
        checkpoint = save_checkpoint(case, folder)
        yield Family(case, checkpoint, tmp_path_factory.mktemp("inputs"))
    for file in folder.iterdir():
        file.unlink()  # pytest keeps the folders of three runs


@pytest.fixture(scope="module")
def rows(family: Family) -> Features:
    """Three windows, and a frame that fills none."""
    return family.run(family.input(family.length))


@pytest.fixture(scope="module")
def padded(family: Family) -> Features:
    """Consecutive frames: two windows, and a third that lacks all but its first ones."""
    return family.run(family.input(padded_length(family)), **consecutive(family), tail="pad")


def consecutive(family: Family) -> dict[str, int]:
    return {"frame_interval": 1} if family.case.interval > 1 else {}


def padded_length(family: Family) -> int:
    return family.case.stack + family.case.step + 1


def values(features: Features) -> NDArray[np.float32]:
    (stream,) = features.streams.values()
    return stream


def assert_close(found: Features, expected: Features) -> None:
    """Within rounding, which is far less than what tells the rows apart."""
    assert values(found).shape == values(expected).shape
    difference = abs(values(found).astype(np.float64) - values(expected)).max()
    assert difference < 1e-4 * values(expected).std()


def assert_equal(found: Features, expected: Features) -> None:
    """Bit for bit."""
    assert found.streams.keys() == expected.streams.keys()
    np.testing.assert_array_equal(values(found), values(expected))
    for name in ("time_start", "time_end", "valid_frames"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    if expected.predictions is None:
        assert found.predictions is None
        return
    assert found.predictions is not None
    np.testing.assert_array_equal(found.predictions.class_index, expected.predictions.class_index)
    np.testing.assert_array_equal(found.predictions.score, expected.predictions.score)


def test_every_family_has_a_case() -> None:
    assert CASES.keys() == {entry.family for entry in (*ENTRIES, *OPEN_ENTRIES)}
    for name, case in CASES.items():
        assert model_entry(case.model).family == name


class TestRows:
    def test_shape_and_values(self, family: Family, rows: Features) -> None:
        entry = model_entry(family.model)
        assert tuple(rows.streams) == family.set().streams
        shape = (2, HEIGHT, WIDTH) if family.case.model == "pwc_sintel" else values(rows).shape[1:]
        assert values(rows).shape == (len(rows), *shape)
        assert entry.feature_dim is None or shape == (entry.feature_dim,)
        assert values(rows).dtype == np.float32
        assert np.isfinite(values(rows)).all()
        differences = abs(np.diff(values(rows), axis=0)).reshape(len(rows) - 1, -1)
        assert (differences.max(1) > 0.02 * values(rows).std()).all(), "rows are alike"

    def test_half_precision_rows(self, family: Family, rows: Features) -> None:
        half = family.run_anew(family.input(family.length), dtype="float16")
        assert values(half).dtype == np.float16
        np.testing.assert_array_equal(values(half), values(rows).astype(np.float16))

    def test_the_same_bits_again(self, family: Family, rows: Features) -> None:
        assert_equal(family.run(family.input(family.length)), rows)

    def test_another_extractor_gives_the_same_bits(self, family: Family, rows: Features) -> None:
        assert_equal(family.run_anew(family.input(family.length)), rows)

    @pytest.mark.parametrize(("size", "chunk"), [(1, 3), (1000, 1)])
    def test_batches_do_not_matter(
        self,
        family: Family,
        rows: Features,
        size: int,
        chunk: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(engine, "BATCH_FRAMES", size)
        monkeypatch.setattr(engine, "CHUNK_FRAMES", chunk)
        monkeypatch.setattr(audio, "BATCH_EXAMPLES", size)
        assert_close(family.run(family.input(family.length)), rows)


class TestWindows:
    def test_as_many_as_fit(self, family: Family, rows: Features) -> None:
        case = family.case
        assert len(rows) == (family.length - case.span) // case.step + 1
        assert rows.status == "ok"
        assert rows.valid_frames.tolist() == [case.stack] * len(rows)
        assert rows.valid_frames.dtype == np.int32

    def test_times_are_those_of_their_frames(self, family: Family, rows: Features) -> None:
        case = family.case
        first = np.arange(len(rows)) * case.step
        last = first + (case.stack - 1) * case.interval
        np.testing.assert_allclose(rows.time_start, first / family.rate, rtol=0, atol=1e-6)
        np.testing.assert_allclose(rows.time_end, (last + 1) / family.rate, rtol=0, atol=1e-6)

    def test_a_later_start_is_a_window_alone(self, family: Family, rows: Features) -> None:
        """A row depends on its own frames and on nothing before them."""
        case = family.case
        sparse = {"hop_seconds": 0.64} if family.reads_sound else {"step_size": 2 * case.step}
        every_other = family.run(family.input(family.length), **sparse)
        assert len(every_other) == -(-len(rows) // 2)
        np.testing.assert_array_equal(every_other.time_start, rows.time_start[::2])
        expected = values(rows)[::2]
        assert abs(values(every_other) - expected).max() < 1e-4 * expected.std()

    @pytest.mark.parametrize("tail", ["drop", "pad"])
    def test_one_grid_for_all(self, family: Family, tail: str) -> None:
        """45 frames at 25 per second are 29 at 16, with which the fourth window of 14 ends."""
        case = family.case
        stack = case.stack if model_entry(family.model).fixed_stack else GRID["stack_size"]
        count = (29 - stack - (case.extra if tail == "drop" else 0)) // GRID["step_size"] + 1
        starts = np.arange(count) * GRID["step_size"]
        ends = (starts + stack) / GRID["fps"]
        if family.reads_sound:
            found = family.run(family.input(45), aligned_with=(starts / GRID["fps"], ends))
        else:
            options = {**GRID, "stack_size": stack, **consecutive(family), "tail": tail}
            found = family.run_anew(family.input(45), **options)
        np.testing.assert_array_equal(found.time_start, starts / GRID["fps"])
        np.testing.assert_array_equal(found.time_end, ends)


class TestTails:
    def test_every_frame_is_covered(self, family: Family, padded: Features) -> None:
        case, length = family.case, padded_length(family)
        starts = np.arange(len(padded)) * case.step
        assert len(padded) == 1 + -(-(length - case.stack) // case.step)
        assert padded.valid_frames.tolist() == np.minimum(case.stack, length - starts).tolist()
        assert starts[-1] + padded.valid_frames[-1] == length
        ends = (starts + padded.valid_frames) / family.rate
        np.testing.assert_allclose(padded.time_start, starts / family.rate, rtol=0, atol=1e-6)
        np.testing.assert_allclose(padded.time_end, ends, rtol=0, atol=1e-6)

    def test_padding_is_as_if_the_video_went_on(self, family: Family, padded: Features) -> None:
        case, length = family.case, padded_length(family)
        needed = (len(padded) - 1) * case.step + case.stack + case.extra
        longer = family.extended(length, needed - length)
        expected = family.run(longer, **consecutive(family), tail="drop")
        np.testing.assert_allclose(padded.time_start, expected.time_start, rtol=0, atol=1e-6)
        assert_close(padded, expected)

    def test_one_frame(self, family: Family, rows: Features) -> None:
        dropped = family.run(family.input(1), tail="drop")
        assert (len(dropped), dropped.status) == (0, "too_short")
        assert values(dropped).dtype == np.float32
        row = family.run(family.input(1), tail="pad")
        assert (len(row), row.status, row.error) == (1, "ok", "")
        assert row.valid_frames.tolist() == [1]
        assert row.time_start[0] == 0
        assert row.time_end[0] == pytest.approx(1 / family.rate)
        assert np.isfinite(values(row)).all()
        whole = values(rows)[0]  # that of the same frame and the next ones
        assert abs(values(row)[0] - whole).max() > 0.01 * whole.std(), "other frames do not matter"

    def test_a_frame_too_few(self, family: Family) -> None:
        short = family.run(family.input(family.case.span - 1))
        assert (len(short), short.status, short.predictions) == (0, "too_short", None)
        amount = "0.965 s" if family.reads_sound else f"{family.case.span - 1} frames"
        assert amount in short.error
        assert "tail: pad" in short.error
        assert len(family.run(family.input(family.case.span))) == 1


def test_what_the_model_reads_is_missing(family: Family) -> None:
    if family.reads_sound:
        other, status = write_video(family.folder / "silent.mp4", num_frames=3), "no_audio"
    else:
        wav = write_wav(family.folder / "sound.wav", noise(4000), 16_000)
        other, status = wav, "no_video"
    with pytest.raises(VideoError) as caught:
        family.run(other)
    assert caught.value.status == status


class TestPredictions:
    def test_scores(self, family: Family, rows: Features) -> None:
        case, found = family.case, rows.predictions
        if not case.classes:
            assert found is None
            return
        assert found is not None
        assert found.class_index.shape == found.score.shape == (len(rows), TOP_K)
        assert (found.class_index.dtype, found.score.dtype) == (np.int32, np.float32)
        assert (np.diff(found.score, axis=1) <= 0).all(), "best first"
        assert (found.score > 0).all()
        assert (found.score.sum(1) <= 1 + 1e-5).all()
        assert ((found.class_index >= 0) & (found.class_index < case.classes)).all()
        assert all(len(set(row)) == TOP_K for row in found.class_index.tolist())
        assert found.score[:, 0].min() > 1 / case.classes, "no better than chance"

    def test_names(self, family: Family, rows: Features) -> None:
        if rows.predictions is None:
            assert family.extractor.class_names == ()
            return
        labels = rows.predictions.labels
        assert len(labels) == len(set(labels)) == family.case.classes
        best = rows.predictions.class_index[1].tolist()
        assert rows.predictions.names(1) == [labels[index] for index in best]

    def test_all_classes_or_none(self, family: Family) -> None:
        one_window, classes = family.input(family.case.span), family.case.classes
        found = family.run(one_window, top_k=max(1, classes)).predictions
        if found is not None:
            assert found.score.shape == (1, classes)
            assert found.score.sum() == pytest.approx(1, abs=1e-4)
        assert family.run(one_window, top_k=0).predictions is None


class TestLayers:
    def test_pooled_to_channels(self, family: Family, rows: Features) -> None:
        case, path = family.case, family.input(family.length)
        if not case.layer:
            with pytest.raises(ConfigError, match=f"{family.model} has no layers to choose from"):
                family.open(family.set(layer="features"))
            return
        mean, highest = (family.run_anew(path, layer=case.layer, pool=p) for p in ("mean", "max"))
        assert values(mean).shape == values(highest).shape == (len(rows), case.channels)
        assert (values(mean) <= values(highest) + 1e-6).all()
        assert (values(mean) < values(highest)).any()
        assert abs(np.diff(values(mean), axis=0)).max() > 1e-3 * values(mean).std()
        np.testing.assert_array_equal(mean.time_start, rows.time_start)
        if rows.predictions is not None:  # they are of the whole network
            assert mean.predictions is not None
            score = rows.predictions.score
            np.testing.assert_allclose(mean.predictions.score, score, rtol=1e-3)

    def test_unknown(self, family: Family) -> None:
        layer = f"{family.case.layer or 'features'}x"
        with pytest.raises(ConfigError) as caught:
            family.open(family.set(layer=layer))
        assert f"layer is {layer!r}" in str(caught.value)
        assert family.model in str(caught.value)
        if family.case.layer:
            assert f"Did you mean {family.case.layer!r}?" in str(caught.value)
