"""The engine and `extract_video`: windows, times, batches, and the shipped model's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_factory import cut, uneven_times, write_video
from reelstack import Features, extract_video
from reelstack.config import FeatureSet, load_config
from reelstack.errors import ConfigError, DeviceError, VideoError, WeightsError
from reelstack.extract import api, engine
from reelstack.extract.api import open_extractor, run_video
from reelstack.extract.engine import WindowSettings
from reelstack.extract.rows import Source
from reelstack.files import CHECKOUT
from reelstack.media.frames import VideoReader

TINY = "r2plus1d_tiny_motion"
DEMO = CHECKOUT / "resources" / "demo"
SHIPPED = DEMO / "motion_r2plus1d.safetensors"


def tiny_set(**settings: Any) -> FeatureSet:
    """A set of the shipped model that reads every frame, or picks them at `fps`."""
    every_frame = {"method": "source"}
    sets = {"tiny": {"model": TINY, "fps": every_frame, **settings}}
    return load_config({"videos": ["-"], "features": sets}).feature_sets["tiny"]


@pytest.fixture(scope="module")
def extractor() -> Any:
    return open_extractor(tiny_set(), weights=None, device="cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("media") / "video.mp4", num_frames=50)


def run(
    path: Path,
    extractor: Any,
    stack: int = 16,
    step: int = 16,
    tail: str = "drop",
    *,
    top_k: int = 3,
    fps: float | None = None,
) -> Features:
    windows = {"stack_size": stack, "step_size": step, "tail": tail}
    rate = {} if fps is None else {"fps": {"method": "sample", "target": fps}}
    feature_set = tiny_set(**windows, **rate, predictions={"top_k": top_k})
    return run_video(Source(path), extractor, feature_set)


def by_hand(path: Path, extractor: Any, starts: list[int], stack: int) -> np.ndarray:
    """Each window on its own: decoded, preprocessed and computed without the engine."""
    with VideoReader(path) as reader:
        pixels = [frame.rgb() for frame in reader]
    features = []
    for start in starts:
        window = pixels[start : start + stack]
        window += window[-1:] * (stack - len(window))
        inputs = extractor.preprocess(np.stack(window))["rgb"]
        features.append(extractor.forward({"rgb": inputs.unsqueeze(0)})["rgb"].numpy())
    return np.concatenate(features)


@pytest.mark.parametrize(
    ("stack", "step", "tail", "starts"),
    [
        (16, 16, "drop", [0, 16, 32]),
        (16, 16, "pad", [0, 16, 32, 48]),
        (16, 10, "drop", [0, 10, 20, 30]),
        (16, 10, "pad", [0, 10, 20, 30, 40]),
        (8, 20, "drop", [0, 20, 40]),
        (8, 23, "pad", [0, 23, 46]),
        (50, 7, "drop", [0]),
        (60, 7, "pad", [0]),
        (16, 3, "drop", list(range(0, 35, 3))),
    ],
)
def test_windows_hold_the_right_frames(
    video: Path, extractor: Any, stack: int, step: int, tail: str, starts: list[int]
) -> None:
    features = run(video, extractor, stack, step, tail)
    assert len(features) == len(starts)
    expected = by_hand(video, extractor, starts, stack)
    values = features.streams["rgb"]
    assert values.dtype == np.float32
    assert abs(values - expected).max() < 1e-4 * expected.std()
    real = [min(stack, 50 - start) for start in starts]
    assert features.valid_frames.tolist() == real
    assert features.time_start == pytest.approx([s / 25 for s in starts])
    ends = [(s + n) / 25 for s, n in zip(starts, real, strict=True)]
    assert features.time_end == pytest.approx(ends)
    assert (features.time_start.dtype, features.valid_frames.dtype) == (np.float64, np.int32)
    assert (features.status, features.error) == ("ok", "")


@pytest.mark.parametrize(
    ("stack", "step", "interval", "tail", "starts"),
    [
        (8, 8, 2, "drop", [0, 8, 16, 24, 32]),
        (8, 40, 3, "drop", [0]),
        (4, 12, 6, "pad", [0, 12, 24, 36]),
        (16, 48, 3, "pad", [0, 48]),
    ],
)
def test_windows_of_frames_that_lie_apart(
    video: Path, extractor: Any, stack: int, step: int, interval: int, tail: str, starts: list[int]
) -> None:
    windows = {"stack_size": stack, "step_size": step, "tail": tail, "frame_interval": interval}
    features = run_video(Source(video), extractor, tiny_set(**windows))
    with VideoReader(video) as reader:
        pixels = [frame.rgb() for frame in reader]
    for start, feature in zip(starts, features.streams["rgb"], strict=True):
        window = pixels[start : start + stack * interval : interval]
        window += window[-1:] * (stack - len(window))
        inputs = extractor.preprocess(np.stack(window))["rgb"]
        expected = extractor.forward({"rgb": inputs[None]})["rgb"][0].numpy()
        assert abs(feature - expected).max() < 1e-4 * expected.std()
    last = [start + (min(stack, -(-(50 - start) // interval)) - 1) * interval for start in starts]
    assert features.time_start == pytest.approx([start / 25 for start in starts])
    assert features.time_end == pytest.approx([(frame + 1) / 25 for frame in last])


def test_times_of_an_uneven_video_are_its_own(tmp_path: Path, extractor: Any) -> None:
    path = write_video(tmp_path / "v.mkv", num_frames=40, times_ms=uneven_times(41)[:40])
    features = run(path, extractor, 16, 12)
    times = [ms / 1000 for ms in uneven_times(40)]
    assert features.time_start == pytest.approx([times[0], times[12], times[24]], abs=1e-6)
    sampled = run(path, extractor, 16, 12, fps=12.5)
    steps = np.diff(sampled.time_start)
    assert steps == pytest.approx(np.full(len(steps), 12 / 12.5), abs=1e-3)


@pytest.mark.parametrize(
    ("batch_frames", "chunk_frames"), [(1, 64), (16, 1), (40, 7), (48, 16), (10_000, 64)]
)
def test_batches_and_chunks_change_only_rounding(
    video: Path,
    extractor: Any,
    monkeypatch: pytest.MonkeyPatch,
    batch_frames: int,
    chunk_frames: int,
) -> None:
    expected = run(video, extractor, 16, 9, "pad")
    monkeypatch.setattr(engine, "BATCH_FRAMES", batch_frames)
    monkeypatch.setattr(engine, "CHUNK_FRAMES", chunk_frames)
    features = run(video, extractor, 16, 9, "pad")
    drift = abs(features.streams["rgb"] - expected.streams["rgb"]).max()
    assert drift < 1e-4 * expected.streams["rgb"].std()
    assert np.array_equal(features.time_start, expected.time_start)
    assert features.predictions is not None
    assert expected.predictions is not None
    assert np.array_equal(features.predictions.class_index, expected.predictions.class_index)


def test_the_same_twice_is_bit_equal(video: Path) -> None:
    first, second = (extract_video(video, model=TINY, device="cpu") for _ in range(2))
    assert np.array_equal(first.streams["rgb"], second.streams["rgb"])
    assert np.array_equal(first.predictions.score, second.predictions.score)


@pytest.mark.parametrize(("num_frames", "tail", "windows"), [(1, "drop", 0), (1, "pad", 1)])
def test_short_videos(
    tmp_path: Path, extractor: Any, num_frames: int, tail: str, windows: int
) -> None:
    path = write_video(tmp_path / "v.mp4", num_frames=num_frames)
    features = run(path, extractor, tail=tail)
    assert len(features) == windows
    assert features.streams["rgb"].shape == (windows, 64)
    assert features.streams["rgb"].dtype == np.float32
    assert features.valid_frames.tolist() == [num_frames] * windows
    assert features.status == ("ok" if windows else "too_short")
    if not windows:
        assert features.error.startswith("1 frames do not fill one window of 16; tail: pad")


def test_predictions_are_the_best_of_the_softmax(video: Path, extractor: Any) -> None:
    features = run(video, extractor, top_k=8)
    predictions = features.predictions
    assert predictions is not None
    logits = extractor.classify({"rgb": torch.from_numpy(features.streams["rgb"])})
    scores = logits.softmax(1).numpy()
    order = np.argsort(-scores, axis=1)
    assert np.array_equal(predictions.class_index, order)
    assert predictions.score == pytest.approx(np.take_along_axis(scores, order, 1), abs=1e-6)
    assert predictions.score.sum(1) == pytest.approx(np.ones(len(features)), abs=1e-5)
    labels = (DEMO / "labels.txt").read_text().split("\n")
    assert predictions.names(0) == [labels[n] for n in order[0]]
    assert (predictions.class_index.dtype, predictions.score.dtype) == (np.int32, np.float32)
    assert run(video, extractor, top_k=0).predictions is None
    assert run(video, extractor, top_k=99).predictions.score.shape == (3, 8)


def test_a_size_that_changes_on_the_way(tmp_path: Path, extractor: Any) -> None:
    small = write_video(tmp_path / "s.ts", num_frames=20, height=48, width=64)
    large = write_video(tmp_path / "l.ts", num_frames=20, height=96, width=128)
    (tmp_path / "j.ts").write_bytes(small.read_bytes() + large.read_bytes())
    assert len(run(tmp_path / "j.ts", extractor)) == 2


def test_frames_between_windows_are_not_converted(tmp_path: Path, extractor: Any) -> None:
    path = write_video(tmp_path / "v.mp4", num_frames=60)
    converted: list[float] = []

    class Counted:
        def __init__(self, frame: Any) -> None:
            self.frame, self.time, self.duration = frame, frame.time, frame.duration

        def rgb(self) -> Any:
            converted.append(self.time)
            return self.frame.rgb()

    with VideoReader(path) as reader:
        counted: Any = map(Counted, reader)
        list(engine.extract_windows(counted, extractor, WindowSettings(4, 20, "drop", 0)))
    wanted = [n for n in range(60) if n % 20 < 4]
    assert converted == pytest.approx([n / 25 for n in wanted])


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("move_left.mp4", "move left"),
        ("move_right.mkv", "move right"),
        ("move_up.webm", "move up"),
        ("move_down.avi", "move down"),
        ("rotate_clockwise.mov", "rotate clockwise"),
        ("rotate_counterclockwise.ts", "rotate counterclockwise"),
        ("more/zoom_in.mp4", "zoom in"),
        ("more/zoom_out.mkv", "zoom out"),
    ],
)
def test_the_shipped_model_knows_the_shipped_videos(name: str, label: str) -> None:
    features = extract_video(DEMO / "videos" / name, model=TINY, fps=25, device="cpu")
    assert features.status == "ok"
    assert len(features) > 0
    assert features.predictions is not None
    first = [features.predictions.names(n)[0] for n in range(len(features))]
    right = sum(text.replace("_", " ") == label for text in first)
    assert right > len(first) / 2, first


def test_a_truncated_video_has_the_features_up_to_there(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "w.mp4", num_frames=120, mux_options={"movflags": "+faststart"})
    features = extract_video(cut(whole, tmp_path / "v.mp4", 0.6), model=TINY, device="cpu")
    assert features.status == "truncated"
    assert "declared" in features.error
    complete = extract_video(whole, model=TINY, device="cpu").streams["rgb"]
    assert 0 < len(features) < len(complete)
    assert np.allclose(features.streams["rgb"][:1], complete[:1], atol=1e-4)


class TestArguments:
    """`extract_video` as a library function."""

    @pytest.mark.parametrize(
        "weights", [None, SHIPPED, str(SHIPPED), {"rgb": SHIPPED}, {"rgb": str(SHIPPED)}]
    )
    def test_weights_in_every_form(self, video: Path, weights: Any) -> None:
        features = extract_video(video, model=TINY, weights=weights, device="cpu")
        assert features.streams["rgb"].shape == (3, 64)
        assert features.video_id == "video"
        frames = {"frames": 50, "frames_decoded": 50}
        assert features.info == frames | {"fps": 25.0, "height": 48, "width": 64}

    def test_only_keywords(self, video: Path) -> None:
        with pytest.raises(TypeError):
            extract_video(video, TINY)  # type: ignore[misc]

    def test_a_rate(self, video: Path) -> None:
        features = extract_video(video, model=TINY, fps=50, device="cpu")
        assert features.info["frames"] == 100
        assert features.info["fps"] == 50
        assert len(features) == 6

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"model": "r2plus1d_tiny"}, "model is 'r2plus1d_tiny'; allowed: .*Did you mean"),
            ({"streams": ["flow"]}, "streams has 'flow'; r2plus1d_tiny_motion computes: rgb"),
            ({"weights": {"flow": "x"}}, "weights has the component 'flow'; .* has: rgb"),
            ({"stack_size": -1}, "stack_size is -1; allowed: a whole number of 1 or more"),
            ({"step_size": -1}, "step_size is -1; allowed: a whole number of 1 or more"),
            ({"stack_size": 0}, "stack_size is 0"),
            ({"step_size": 0}, "step_size is 0"),
            ({"tail": "loop"}, "tail is 'loop'; allowed: drop, pad"),
            ({"fps": -5}, r"fps\.target is -5; allowed: a number above 0 and up to 1000"),
            ({"fps": 0}, r"fps\.target is 0; allowed: a number above 0 and up to 1000"),
            ({"precision": "fp16"}, "precision is 'fp16'; allowed: fp32, bf16"),
        ],
    )
    def test_what_is_not_possible(self, video: Path, arguments: dict, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            extract_video(video, **{"model": TINY, "device": "cpu", **arguments})

    def test_a_missing_checkpoint(self, video: Path, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="is no file"):
            extract_video(video, model=TINY, weights=tmp_path / "w.pth", device="cpu")

    @pytest.mark.parametrize(
        ("name", "status"), [("gone.mp4", "missing"), ("text.mp4", "unreadable")]
    )
    def test_a_broken_video(self, tmp_path: Path, name: str, status: str) -> None:
        (tmp_path / "text.mp4").write_text("no video")
        with pytest.raises(VideoError) as caught:
            extract_video(tmp_path / name, model=TINY, device="cpu")
        assert caught.value.status == status

    def test_a_gpu_that_is_not_there(self, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api.torch.cuda, "is_available", lambda: False)
        with pytest.raises(DeviceError, match="device is 'cuda:1', but torch sees no GPU"):
            extract_video(video, model=TINY, device="cuda:1")
        assert len(extract_video(video, model=TINY, device="auto")) == 3


@pytest.mark.gpu
def test_a_gpu_gives_the_same_video_features(video: Path) -> None:
    here = extract_video(video, model=TINY, device="cpu").streams["rgb"]
    there = extract_video(video, model=TINY, device="cuda").streams["rgb"]
    assert abs(here - there).max() < 1e-3 * here.std()
