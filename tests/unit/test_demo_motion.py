"""The procedural motion, the tiny network and the demo's videos as they lie in resources/demo."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reelstack import extract_video
from reelstack.demo.dataset import augment
from reelstack.demo.encoding import AudioTrack, encode_video
from reelstack.demo.motion import CLASSES, render_motion
from reelstack.demo.videos import demo_videos, make_video
from reelstack.media.frames import VideoReader
from reelstack.models.networks.r21d_tiny import tiny_r2plus1d
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

DEMO = Path(__file__).resolve().parents[2] / "resources" / "demo"
WEIGHTS = DEMO / "motion_r2plus1d.safetensors"
VIDEOS = DEMO / "videos"
SMALL = {"height": 64, "width": 80}


def render(label: str, *, seed: int = 11, num_frames: int = 4, fps: float = 25.0) -> NDArray:
    return render_motion(label, num_frames=num_frames, fps=fps, seed=seed, **SMALL)


def displacement(first: NDArray, second: NDArray) -> tuple[float, float]:
    """Return (rows, columns) the content moved by, from the peak of the phase correlation."""
    window = np.outer(np.hanning(first.shape[0]), np.hanning(first.shape[1]))
    spectra = []
    for image in (first, second):
        grey = image.mean(axis=2)
        spectra.append(np.fft.fft2((grey - grey.mean()) * window))
    cross = np.conj(spectra[0]) * spectra[1]
    surface = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    peak = np.unravel_index(surface.argmax(), surface.shape)
    rows, columns = (p - n if p > n // 2 else p for p, n in zip(peak, surface.shape, strict=True))
    return float(rows), float(columns)


def decode_video(path: Path) -> tuple[NDArray, list[float]]:
    with VideoReader(path) as reader:
        shown = [(frame.rgb(), frame.time) for frame in reader]
    return np.stack([pixels for pixels, _ in shown]), [time for _, time in shown]


def window_probabilities(path: Path) -> NDArray:
    """Return (windows, 8) class probabilities of a video, in the order of CLASSES."""
    features = extract_video(path, model="r2plus1d_tiny_motion", fps=25, top_k=8)
    assert features.predictions is not None
    order = features.predictions.class_index.argsort(1)
    return np.take_along_axis(features.predictions.score, order, 1)


def test_there_are_eight_classes_and_the_label_file_lists_them_in_order() -> None:
    assert len(set(CLASSES)) == 8
    assert (DEMO / "labels.txt").read_text().splitlines() == list(CLASSES)


def test_rendering_is_repeatable_and_depends_on_the_seed() -> None:
    first = render("move_up")
    assert first.shape == (4, 64, 80, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, render("move_up"))
    assert np.abs(first.astype(int) - render("move_up", seed=12)).mean() > 5


@pytest.mark.parametrize("label", CLASSES)
def test_motion_follows_time_rather_than_the_frame_index(label: str) -> None:
    slow = render(label, num_frames=4, fps=25.0)
    fast = render(label, num_frames=7, fps=50.0)
    np.testing.assert_array_equal(slow, fast[::2])
    chosen = render_motion(label, num_frames=2, fps=25.0, seed=11, times=[0.08, 0.04], **SMALL)
    np.testing.assert_array_equal(chosen, slow[[2, 1]])


def test_one_frame_does_not_tell_the_class() -> None:
    starts = [render(label, num_frames=1) for label in CLASSES]
    for start in starts[1:]:
        np.testing.assert_array_equal(start, starts[0])


@pytest.mark.parametrize(
    ("label", "axis", "sign"),
    [("move_left", 1, -1), ("move_right", 1, 1), ("move_up", 0, -1), ("move_down", 0, 1)],
)
def test_translation_goes_the_way_its_name_says(label: str, axis: int, sign: int) -> None:
    for seed in range(4):
        frames = render(label, seed=seed, num_frames=3, fps=12.5)
        moved = displacement(frames[0], frames[2])
        assert sign * moved[axis] >= 2
        assert abs(moved[1 - axis]) <= abs(moved[axis]) / 2


@pytest.mark.parametrize(("label", "sign"), [("rotate_clockwise", 1), ("zoom_in", 1)])
@pytest.mark.parametrize("opposite", [False, True])
def test_rotation_and_zoom_move_the_halves_apart(label: str, sign: int, opposite: bool) -> None:
    if opposite:
        label = {"rotate_clockwise": "rotate_counterclockwise", "zoom_in": "zoom_out"}[label]
        sign = -sign
    # On screen, a clockwise turn takes the right side down and the left side up; growing content
    # takes the right side to the right and the left side to the left.
    axis = 0 if label.startswith("rotate") else 1
    spread = []
    for seed in range(6):
        first, second = render_motion(
            label, num_frames=2, fps=12.5, height=96, width=192, seed=seed, times=[1.0, 1.08]
        )
        left = displacement(first[16:80, :64], second[16:80, :64])[axis]
        right = displacement(first[16:80, 128:], second[16:80, 128:])[axis]
        spread.append(sign * (right - left))
    assert np.median(spread) >= 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": "spin"}, "spin"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"fps": 0.0}, r"fps is 0\.0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"height": 0}, "0 x 80"),
        ({"seed": -1}, "seed is -1"),
        ({"times": [0.0]}, "times has 1"),
        ({"times": [0.0, -0.5]}, r"-0\.5"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, object], message: str) -> None:
    arguments = {"label": "move_up", "num_frames": 2, "fps": 25.0, "seed": 1, **SMALL, **changed}
    label = arguments.pop("label")
    with pytest.raises(ValueError, match=message):
        render_motion(label, **arguments)


def test_augmentation_keeps_the_label_true_to_the_motion() -> None:
    frames = render_motion("move_left", num_frames=16, fps=25.0, height=56, width=56, seed=5)
    clip = torch.from_numpy(frames).permute(3, 0, 1, 2)
    rng = np.random.default_rng(0)
    heading = {"left": (1, -1), "right": (1, 1), "up": (0, -1), "down": (0, 1)}
    seen = set()
    for _ in range(24):
        changed, label = augment(clip, CLASSES.index("move_left"), rng=rng)
        axis, sign = heading[CLASSES[label].removeprefix("move_")]
        images = changed.permute(1, 2, 3, 0).numpy()
        # A frozen part stands still, so that the liveliest pair of frames decides.
        moves = [displacement(images[k], images[k + 3])[axis] for k in (0, 4, 8, 12)]
        assert sign * max(moves, key=abs) >= 2
        seen.add(label)
    assert len(seen) == 4


def test_encoding_rejects_frames_of_another_type() -> None:
    video = demo_videos()[0]
    with pytest.raises(ValueError, match="float64"):
        encode_video(np.zeros((2, 16, 16, 3)), encoding=video.encoding)
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="milliseconds has 1"):
        encode_video(frames, encoding=video.encoding, milliseconds=[0])


def test_network_is_small_and_named_like_torchvision() -> None:
    network = tiny_r2plus1d(8)
    assert sum(weight.numel() for weight in network.parameters()) < 700_000
    prefixes = {name.split(".")[0] for name in network.state_dict()}
    assert prefixes == {"stem", "layer1", "layer2", "layer3", "layer4", "fc"}
    clips = torch.zeros(2, 3, 16, 56, 56)
    assert network.eval()(clips).shape == (2, 8)
    network.fc = nn.Identity()
    assert network(clips).shape == (2, 64)
    with pytest.raises(ValueError, match="num_classes is 0"):
        tiny_r2plus1d(0)


def test_weights_carry_their_origin() -> None:
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["classes"].split(",") == list(CLASSES)
    assert float(metadata["accuracy"]) >= 0.95
    assert metadata.keys() >= {"seed", "command", "torch_version"}
    assert {value.dtype for value in load_file(WEIGHTS).values()} <= {torch.float32, torch.int64}


def test_plan_and_files_agree_and_stay_small() -> None:
    on_disk = {path.relative_to(VIDEOS).as_posix() for path in VIDEOS.rglob("*") if path.is_file()}
    assert on_disk == {video.path for video in demo_videos()}
    assert sum(path.stat().st_size for path in VIDEOS.rglob("*") if path.is_file()) <= 1_500_000
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 3_000_000


def test_making_a_video_twice_gives_the_same_bytes() -> None:
    short = next(video for video in demo_videos() if video.path == "short_clip.mp4")
    assert make_video(short, seed=2) == make_video(short, seed=2)


def test_videos_have_the_promised_variety() -> None:
    codecs, rates, sizes, audio = set(), set(), set(), set()
    for path in VIDEOS.rglob("*.*"):
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            codecs.add(video.codec_context.name)
            rates.add(round(float(video.average_rate), 2))
            sizes.add((video.height, video.width))
            audio.update(stream.codec_context.name for stream in container.streams.audio)
    assert codecs >= {"h264", "hevc", "mpeg4", "mpeg2video"}
    assert any("vp9" in name for name in codecs)
    assert {15.0, 24.0, 25.0, 29.97, 30.0, 50.0} <= rates
    assert any(height > width for height, width in sizes)
    assert any(height % 2 and width % 2 for height, width in sizes)
    assert {path.suffix for path in VIDEOS.rglob("*.*")} == {
        ".mp4", ".mkv", ".webm", ".avi", ".mov", ".ts",
    }  # fmt: skip
    assert "aac" in audio
    assert any("opus" in name for name in audio)


def test_the_uneven_video_has_uneven_frame_times() -> None:
    _, times = decode_video(VIDEOS / "more" / "zoom_in.mp4")
    gaps = np.diff(times)
    assert gaps.min() >= 0.0199
    assert gaps.max() - gaps.min() > 0.03


def test_the_short_clip_is_shorter_than_a_window() -> None:
    frames, _ = decode_video(VIDEOS / "short_clip.mp4")
    assert len(frames) == 8


def test_the_truncated_video_ends_early_although_its_index_promises_more() -> None:
    path = VIDEOS / "truncated.mp4"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        promised = container.streams.video[0].frames
    frames, _ = decode_video(path)
    assert 16 <= len(frames) < promised


def test_an_audio_track_outlives_the_encoding(tmp_path: Path) -> None:
    video = demo_videos()[0]
    tone = np.sin(np.arange(24000) / 10).astype(np.float32)
    data = encode_video(
        render("move_left", num_frames=12),
        encoding=video.encoding,
        audio=AudioTrack(samples=tone, rate=48000, codec="aac"),
    )
    (tmp_path / "v.mp4").write_bytes(data)
    frames, times = decode_video(tmp_path / "v.mp4")
    assert frames.shape == (12, 64, 80, 3)
    assert times[-1] == pytest.approx(11 / 25, abs=1e-3)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        (video.path, video.label)
        for video in demo_videos()
        if not video.truncated and not video.path.startswith("short")
    ],
)
def test_every_whole_demo_video_is_recognised(path: str, label: str) -> None:
    probabilities = window_probabilities(VIDEOS / path)
    votes = Counter(CLASSES[best] for best in probabilities.argmax(1))
    assert len(probabilities) >= 2
    assert votes.most_common(1)[0][0] == label
    assert probabilities[:, CLASSES.index(label)].min() > 0.6
