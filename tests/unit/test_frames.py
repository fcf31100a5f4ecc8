"""Decoding: pixels, times and picked frames, against the ffmpeg command line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import (
    add_audio,
    ffmpeg_frames,
    moving_frames,
    rotated,
    run_ffmpeg,
    uneven_times,
    write_video,
)
from reelstack.media.frames import Frame, VideoReader
from reelstack.media.reencode import reencode_video

HEIGHT, WIDTH = 48, 64
RATES = [1.0, 5.0, 7.3, 12.5, 24.0, 25.0, 29.97, 30000 / 1001, 60.0]


def read(path: Path, **options: object) -> list[Frame]:
    with VideoReader(path, **options) as reader:
        return list(reader)


def pixels(path: Path, **options: object) -> np.ndarray:
    with VideoReader(path, **options) as reader:
        return np.stack([frame.rgb() for frame in reader])


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("media") / "constant.mp4", num_frames=30)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    return write_video(folder / "uneven.mkv", num_frames=30, times_ms=uneven_times(30))


@pytest.fixture(scope="module")
def delayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sound starts at 0 s, the picture at 0.5 s."""
    folder = tmp_path_factory.mktemp("media")
    plain = write_video(folder / "plain.mp4", num_frames=30)
    return add_audio(plain, folder / "delayed.mkv", seconds=2, video_delay_seconds=0.5)


def test_lossless_video_gives_back_what_was_written(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", codec="ffv1", pix_fmt="bgr0", num_frames=9)
    assert np.array_equal(pixels(path), moving_frames(9, height=HEIGHT, width=WIDTH))


def test_pixels_equal_the_command_lines(constant: Path, uneven: Path) -> None:
    for path in (constant, uneven):
        assert np.array_equal(pixels(path), ffmpeg_frames(path, height=HEIGHT, width=WIDTH))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("odd.mkv", {"height": 47, "width": 63, "pix_fmt": "yuv444p"}),
        ("422.mkv", {"pix_fmt": "yuv422p"}),
        ("full_range.mkv", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("v.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}),
        ("v.avi", {"codec": "mpeg4"}),
        ("v.ts", {}),
        ("v.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("bframes.mp4", {"options": {"bf": "3", "b_strategy": "0"}}),
    ],
)
def test_containers_codecs_and_sizes(tmp_path: Path, name: str, settings: dict) -> None:
    path = write_video(tmp_path / name, num_frames=12, **settings)
    size = {"height": HEIGHT, "width": WIDTH}
    size |= {k: v for k, v in settings.items() if k in size}
    decoded = pixels(path)
    assert decoded.shape == (12, size["height"], size["width"], 3)
    assert np.array_equal(decoded, ffmpeg_frames(path, **size))


def test_ten_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:pools=1"}
    path = write_video(
        tmp_path / "v.mkv", codec="libx265", pix_fmt="yuv420p10le", options=options, num_frames=6
    )
    reference = ffmpeg_frames(path, height=HEIGHT, width=WIDTH).astype(int)
    decoded = pixels(path)
    assert decoded.dtype == np.uint8
    # libswscale's chroma filters differ at sharp edges; the brightness of a frame does not
    assert abs(decoded.mean((1, 2, 3)) - reference.mean((1, 2, 3))).max() < 1
    assert abs(decoded - reference).mean() < 4


def test_times_are_those_of_the_file(constant: Path, uneven: Path) -> None:
    frames = read(constant)
    assert [f.time for f in frames] == pytest.approx([n / 25 for n in range(30)], abs=1e-9)
    assert {round(f.duration, 6) for f in frames} == {0.04}
    expected = [milliseconds / 1000 for milliseconds in uneven_times(30)]
    assert [f.time for f in read(uneven)] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("fps", RATES)
def test_sampling_picks_the_frames_of_ffmpegs_filter(
    constant: Path, uneven: Path, fps: float
) -> None:
    for path in (constant, uneven):
        reference = ffmpeg_frames(
            path, height=HEIGHT, width=WIDTH, filters=f"fps=fps={fps!r}:round=near"
        )
        frames = read(path, sample_fps=fps)
        assert np.array_equal(np.stack([f.rgb() for f in frames]), reference), path.name
        # the filter rounds the rate to a fraction; times follow that rate
        exact = [k / fps for k in range(len(frames))]
        assert [f.time for f in frames] == pytest.approx(exact, abs=1e-3), path.name
        assert {f.duration for f in frames} == {1 / fps}, path.name


@pytest.mark.parametrize("fps", [5.0, 12.5, 25.0, 60.0])
def test_sampling_follows_the_stated_rule(uneven: Path, fps: float) -> None:
    """Output k is the last source frame i with round-half-up(t_i·fps) ≤ k."""
    source = pixels(uneven)
    slots = [int(Fraction(ms, 1000) * Fraction(fps) + Fraction(1, 2)) for ms in uneven_times(30)]
    picked = pixels(uneven, sample_fps=fps)
    expected = [max(i for i, s in enumerate(slots) if s <= k) for k in range(len(picked))]
    assert np.array_equal(picked, source[expected])
    assert len(picked) >= slots[-1], "the video ends early"


@pytest.mark.parametrize("fps", [0, -5.0])
def test_a_rate_that_is_not_positive_is_refused(constant: Path, fps: float) -> None:
    with pytest.raises(ValueError, match=f"sample_fps is {fps}; it has to be positive"):
        VideoReader(constant, sample_fps=fps)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_turns_as_a_player_does(
    tmp_path: Path, constant: Path, degrees: int
) -> None:
    path = rotated(constant, tmp_path / "turned.mp4", degrees)
    height, width = (WIDTH, HEIGHT) if degrees % 180 else (HEIGHT, WIDTH)
    reference = ffmpeg_frames(path, height=height, width=width)
    assert not np.array_equal(reference[:1], pixels(constant)[:1])
    for fps in (None, 25.0):
        with VideoReader(path, sample_fps=fps) as reader:
            decoded = np.stack([frame.rgb() for frame in reader])
        assert np.array_equal(decoded, reference)
        assert (reader.height, reader.width) == (height, width)


def test_a_late_picture_is_late_in_every_way_of_reading(tmp_path: Path, delayed: Path) -> None:
    assert read(delayed)[0].time == pytest.approx(0.5, abs=1e-3)
    assert read(delayed, sample_fps=10.0)[0].time == pytest.approx(0.5, abs=1e-3)
    encoder = {"codec": "libx264", "preset": "ultrafast", "crf": 18, "pix_fmt": "yuv420p"}
    facts = {"width": WIDTH, "height": HEIGHT, "frames_declared": 30, "duration_seconds": 2.0}
    for fps in (10.0, 25.0):
        target = tmp_path / f"{fps}.mp4"
        reencode_video(str(delayed), target, fps=fps, encoder=encoder, **facts)
        times = [f.time for f in read(target, own_clock=True)]
        sampled = [f.time for f in read(delayed, sample_fps=fps)]
        assert times == pytest.approx(sampled, abs=2e-3), fps


def test_a_start_offset_of_the_whole_file_is_none(tmp_path: Path, constant: Path) -> None:
    """A transport stream starts at 1.4 s; a player shows its first frame at once."""
    shifted = tmp_path / "shifted.ts"
    run_ffmpeg("-i", constant, "-c", "copy", "-output_ts_offset", 7, shifted)
    for options in ({}, {"sample_fps": 25.0}):
        times = [f.time for f in read(shifted, **options)]
        assert times == pytest.approx([n / 25 for n in range(30)], abs=1e-4), options


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_change_nothing(constant: Path, uneven: Path, threads: int) -> None:
    for path in (constant, uneven):
        assert np.array_equal(pixels(path, threads=threads), pixels(path))


def test_facts_are_known_after_the_iteration(constant: Path) -> None:
    with VideoReader(constant) as reader:
        count = sum(1 for _ in reader)
    assert count == reader.num_source_frames == reader.declared_frames == 30
    assert (reader.height, reader.width, reader.fps) == (HEIGHT, WIDTH, 25.0)
    assert reader.problem == ""


def test_source_frames_are_counted_and_not_picked_ones(constant: Path) -> None:
    with VideoReader(constant, sample_fps=5.0) as reader:
        count = sum(1 for _ in reader)
    assert (count, reader.num_source_frames) == (6, 30)
    assert reader.problem == "", "frames that were not picked are not missing"


def test_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", num_frames=1)
    (frame,) = read(path)
    assert (frame.time, frame.duration) == (0.0, pytest.approx(0.04))
    assert len(read(path, sample_fps=100.0)) == 4


def test_a_size_that_changes_on_the_way(tmp_path: Path) -> None:
    """Two transport streams one after the other: both parts are shown."""
    small = write_video(tmp_path / "small.ts", num_frames=8, height=48, width=64)
    large = write_video(tmp_path / "large.ts", num_frames=8, height=96, width=128)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    shapes = [frame.rgb().shape for frame in read(joined)]
    assert shapes == [(48, 64, 3)] * 8 + [(96, 128, 3)] * 8
