"""`extract_video` with the keys that a set can have besides its windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_factory import cut, rotated, uneven_times, write_video
from PIL import Image
from reelstack import Features, extract_video
from reelstack.config import FeatureSet, load_config
from reelstack.errors import ConfigError, VideoError
from reelstack.extract.api import open_extractor, run_video
from reelstack.extract.rows import Source
from reelstack.media.clips import clip_indices
from reelstack.media.frames import VideoReader
from reelstack.media.selection import shown_seconds, spread
from reelstack.models.base import Inputs
from reelstack.models.registry import MODELS, create_extractor
from torch import Tensor

TINY = "r2plus1d_tiny_motion"


def extract(path: Path, **settings: Any) -> Features:
    return extract_video(path, model=TINY, device="cpu", **settings)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("media") / "video.mp4", num_frames=50)


def one_set(**settings: Any) -> FeatureSet:
    sets = {"one": {"model": TINY, **settings}}
    raw = {"videos": ["-"], "fps": {"method": "source"}, "features": sets}
    return load_config(raw).feature_sets["one"]


class TestTotal:
    """`total` frames spread over the video in place of a rate."""

    @pytest.mark.parametrize("total", [1, 16, 20, 80])
    def test_gives_the_windows_of_those_frames(self, video: Path, total: int) -> None:
        features = extract(video, total=total, stack_size=4, step_size=4, tail="pad")
        assert len(features) == -(-total // 4)
        assert features.valid_frames.sum() == total
        assert features.info["frames"] == total
        assert features.info["frames_decoded"] == 50
        assert features.info["fps"] == pytest.approx(total / 2.0)
        step = 2.0 / total
        assert features.time_start == pytest.approx(np.arange(len(features)) * 4 * step)
        assert features.time_end[-1] == pytest.approx(2.0)
        assert (features.status, features.error) == ("ok", "")

    def test_reads_the_frames_that_spread_picks(self, video: Path) -> None:
        features = extract(video, total=12, stack_size=12)
        extractor = create_extractor(MODELS[TINY])
        weights = open_extractor(one_set(), weights=None, device="cpu")
        with VideoReader(video) as reader:
            picked = spread(reader, total=12, seconds=shown_seconds(video))
            items = extractor.preprocess(np.stack([frame.rgb() for frame in picked]))["rgb"]
        expected = weights.forward({"rgb": items[None]})["rgb"].numpy()
        assert np.abs(features.streams["rgb"] - expected).max() < 1e-4 * expected.std()

    def test_as_many_as_there_are_is_every_frame(self, video: Path) -> None:
        every, spread_out = extract(video), extract(video, total=50)
        assert np.array_equal(every.streams["rgb"], spread_out.streams["rgb"])

    def test_of_one_frame(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "v.mp4", num_frames=1)
        features = extract(path, total=16)
        assert len(features) == 1
        assert features.time_end == pytest.approx([0.04])

    def test_of_a_variable_rate(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "v.mkv", num_frames=30, times_ms=uneven_times(31)[:30])
        features = extract(path, total=32, stack_size=8, step_size=8)
        step = shown_seconds(path) / 4
        assert features.time_start == pytest.approx([0, step, 2 * step, 3 * step])

    def test_of_a_stream_without_times(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "v.h264", num_frames=30, container="h264")
        assert len(extract(path, total=32)) == 2

    def test_of_a_cut_video(self, tmp_path: Path) -> None:
        options = {"movflags": "+faststart"}
        whole = write_video(tmp_path / "w.mp4", num_frames=120, mux_options=options)
        features = extract(cut(whole, tmp_path / "v.mp4", 0.6), total=16, tail="pad")
        assert features.status == "truncated"
        assert features.time_end[-1] < 4

    def test_beside_a_rate(self, video: Path) -> None:
        with pytest.raises(ConfigError, match=r"has both fps \(.*5.*\) and total \(20\)") as caught:
            extract(video, total=20, fps=5)
        assert "features." not in str(caught.value), "the caller has no features"

    def test_of_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "v.mp4").write_text("no video")
        with pytest.raises(VideoError, match="cannot be opened"):
            extract(tmp_path / "v.mp4", total=20)
        with pytest.raises(VideoError, match="no such file"):
            extract(tmp_path / "gone.mp4", total=20)


class TestDtype:
    def test_half_precision_is_the_rounded_feature(self, video: Path) -> None:
        exact, half = extract(video), extract(video, dtype="float16")
        assert half.streams["rgb"].dtype == np.float16
        assert np.array_equal(half.streams["rgb"], exact.streams["rgb"].astype(np.float16))
        assert np.array_equal(half.predictions.score, exact.predictions.score)
        assert half.predictions.score.dtype == half.predictions.score.dtype == np.float32

    def test_also_without_a_window(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "v.mp4", num_frames=3)
        features = extract(path, dtype="float16")
        assert features.status == "too_short"
        assert features.streams["rgb"].shape == (0, 64)
        assert features.streams["rgb"].dtype == np.float16


class TestLayer:
    @pytest.mark.parametrize(
        ("settings", "shape"),
        [
            ({"layer": "layer2"}, (3, 40)),
            ({"layer": "layer2", "pool": "max"}, (3, 40)),
            ({"layer": "layer2", "pool": "none"}, (3, 40, 4, 7, 7)),
        ],
    )
    def test_replaces_the_feature(
        self, video: Path, settings: dict, shape: tuple[int, ...]
    ) -> None:
        plain, inner = extract(video), extract(video, **settings)
        assert inner.streams["rgb"].shape == shape
        assert np.array_equal(inner.predictions.class_index, plain.predictions.class_index)
        assert inner.predictions.score == pytest.approx(plain.predictions.score, abs=1e-4)

    def test_that_is_not_there(self, video: Path) -> None:
        with pytest.raises(ConfigError, match=r"layer is 'layer9'; .* Did you mean 'layer"):
            extract(video, layer="layer9")


class TestKeepFrames:
    @pytest.mark.parametrize(
        ("settings", "count"), [({}, 50), ({"fps": 10}, 20), ({"total": 7, "tail": "pad"}, 7)]
    )
    def test_writes_the_frames_that_are_used(
        self, video: Path, tmp_path: Path, settings: dict, count: int
    ) -> None:
        folder = tmp_path / "deep" / "frames"
        features = extract(video, keep_frames=folder, **settings)
        assert features.info["frames"] == count
        names = sorted(file.name for file in folder.iterdir())
        assert names == [f"{n:06d}.jpg" for n in range(count)]
        sizes = {Image.open(folder / name).size for name in names}
        assert sizes == {(86, 64)}, "resized as the network reads them, before the crop"

    def test_they_show_the_video(self, video: Path, tmp_path: Path) -> None:
        extract(video, keep_frames=tmp_path)
        with VideoReader(video) as reader:
            pixels = np.stack([frame.rgb() for frame in reader])
        expected = create_extractor(MODELS[TINY]).resized(pixels)
        for number in (0, 20, 49):
            found = np.asarray(Image.open(tmp_path / f"{number:06d}.jpg"), np.float64)
            assert np.abs(found - expected[number]).mean() < 4
            other = expected[(number + 10) % 50]
            assert np.abs(found - other).mean() > 8

    def test_of_a_rotated_video(self, tmp_path: Path, video: Path) -> None:
        turned = rotated(video, tmp_path / "turned.mp4", 90)
        extract(turned, keep_frames=tmp_path / "frames")
        first = np.asarray(Image.open(tmp_path / "frames" / "000000.jpg"), np.float64)
        with VideoReader(turned) as reader:
            pixels = next(iter(reader)).rgb()
        (expected,) = create_extractor(MODELS[TINY]).resized(pixels[None])
        assert np.abs(first - expected).mean() < 4

    def test_none_is_written_otherwise(
        self, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        features = extract(video, keep_frames=None)
        assert not list(tmp_path.iterdir())
        assert np.array_equal(
            features.streams["rgb"],
            extract(video, keep_frames=tmp_path / "frames").streams["rgb"],
        )


class Views(torch.nn.Module):
    """Stands for mmaction2's network: the mean colour of a view."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = {**MODELS[MMACTION2].settings, "clips": 3}
        self.device = torch.device("cpu")
        self.extra_frames, self.pairwise, self.stack_size = 0, False, 8
        self.class_names = tuple(f"class {n}" for n in range(400))
        self.entry = MODELS[MMACTION2]

    def resized(self, frames: Any) -> list[Any]:
        return list(frames)

    def views(self, frames: Any) -> Tensor:
        return torch.from_numpy(np.stack([frames, frames[:, ::-1].copy()])).float()

    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        return {"rgb": windows["rgb"].mean((1, 2, 3)) / 255}

    def outputs(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        return features["rgb"] @ torch.linspace(-1, 1, 1200).view(3, 400)


MMACTION2 = "mmaction2/r2plus1d_r34_8x8x1"


class TestClips:
    def run(self, path: Path, **settings: Any) -> Features:
        network: Any = Views()
        return run_video(Source(path), network, one_set(model=MMACTION2, clips=3, **settings))

    @pytest.mark.parametrize("num_frames", [100, 30, 1])
    def test_give_one_row_a_video(self, tmp_path: Path, num_frames: int) -> None:
        path = write_video(tmp_path / "v.mp4", num_frames=num_frames)
        features = self.run(path)
        assert len(features) == 1
        with VideoReader(path) as reader:
            pixels = np.stack([frame.rgb() for frame in reader])
        clips = pixels[clip_indices(num_frames, 8, 8, 3)]
        assert features.streams["rgb"][0] == pytest.approx(clips.mean((0, 1, 2, 3)) / 255, abs=1e-5)
        assert features.time_end == pytest.approx([num_frames / 25])
        assert features.info["frames"] == num_frames
        assert features.status == "ok"
        assert features.predictions.score.shape == (1, 5)

    def test_of_a_number_of_frames(self, tmp_path: Path) -> None:
        features = self.run(write_video(tmp_path / "v.mp4", num_frames=100), total=20)
        assert (len(features), features.info["frames"]) == (1, 20)

    def test_of_a_cut_video(self, tmp_path: Path) -> None:
        """Where the clips lie depends on the frames that can be read, not on the declared ones."""
        options = {"movflags": "+faststart"}
        whole = write_video(tmp_path / "w.mp4", num_frames=120, mux_options=options)
        features = self.run(cut(whole, tmp_path / "v.mp4", 0.6))
        assert features.status == "truncated"
        assert len(features) == 1
        assert features.info["frames"] == features.info["frames_decoded"] < 120


class TestArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"layr": "layer4"}, r"layr: unknown key; allowed: .* Did you mean 'layer'"),
            ({"flow": "raft"}, f"flow is set, but {TINY} has no use for it; its own keys: layer"),
            ({"pool": "max"}, "pool is 'max', but there is no layer to pool"),
            ({"total": 0}, "total is 0; allowed: a whole number of 1 or more"),
            ({"dtype": "float64"}, "dtype is 'float64'; allowed: float32, float16"),
            ({"frame_interval": 0}, "frame_interval is 0; allowed: a whole number of 1 or more"),
        ],
    )
    def test_errors_are_those_of_a_config(self, video: Path, settings: dict, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            extract(video, **settings)
        assert "features." not in str(caught.value)

    def test_an_interval(self, video: Path) -> None:
        features = extract(video, stack_size=8, step_size=10, frame_interval=5)
        assert features.time_start == pytest.approx([0.0, 0.4])
        assert features.time_end == pytest.approx([36 / 25, 46 / 25])
        shorter = extract(video, stack_size=16, frame_interval=4)
        assert shorter.error.startswith(
            "50 frames do not fill one window of 16, 4 frames apart; tail: pad"
        )
