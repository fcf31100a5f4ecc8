"""A given number of frames spread over a video: against the definition, real files, and ffmpeg."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_factory import cut, ffmpeg_frames, uneven_times, write_video
from reelstack.errors import VideoError
from reelstack.media.frames import Frame, VideoReader
from reelstack.media.selection import shown_seconds, spread

TOTALS = (1, 2, 7, 20, 30, 100)


def shown(times: Sequence[float], end: float) -> list[Frame]:
    """Frames at these times, each shown until the next one; the pictures are their numbers."""
    ends = [*times[1:], end]
    return [
        Frame(number, time, until - time)  # type: ignore[arg-type]
        for number, (time, until) in enumerate(zip(times, ends, strict=True))
    ]


def picked(frames: Sequence[Frame], total: int, seconds: float) -> list[Any]:
    return [frame.picture for frame in spread(frames, total=total, seconds=seconds)]


def by_definition(times: Sequence[float], total: int, seconds: float) -> list[int]:
    """Output k is the last frame i with round-half-up(t_i · rate) ≤ k; no frame overtakes one."""
    rate = total / seconds
    slots = list(accumulate((floor((time - times[0]) * rate + 0.5) for time in times), max))
    return [max(i for i, slot in enumerate(slots) if slot <= k) for k in range(total)]


def test_equals_the_definition_whatever_the_times() -> None:
    generator = random.Random(0)
    for _ in range(2000):
        count, total = generator.randint(1, 40), generator.randint(1, 60)
        start = generator.choice([0.0, 0.0, 5.5])
        steps = [generator.choice([0.02, 0.04, 0.04, 0.16]) for _ in range(count)]
        times = [start + sum(steps[:n]) for n in range(count)]
        seconds = sum(steps)
        frames = shown(times, start + seconds)
        assert picked(frames, total, seconds) == by_definition(times, total, seconds)


def test_times_are_those_of_the_rate() -> None:
    times = [5 + ms / 1000 for ms in uneven_times(31)]
    selected = list(spread(shown(times[:-1], times[-1]), total=20, seconds=times[-1] - 5))
    step = (times[-1] - 5) / 20
    assert [frame.time for frame in selected] == pytest.approx([5 + k * step for k in range(20)])
    assert [frame.duration for frame in selected] == pytest.approx([step] * 20)


def test_as_many_frames_as_there_are_is_every_frame_once() -> None:
    times = [n / 30 for n in range(90)]
    assert picked(shown(times, 3.0), 90, 3.0) == list(range(90))


def test_fewer_frames_than_asked_are_repeated_evenly() -> None:
    assert picked(shown([0.0, 1.0, 2.0], 3.0), 9, 3.0) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert picked(shown([7.0], 7.04), 5, 0.04) == [0] * 5


def test_a_video_that_ends_early_gives_fewer() -> None:
    times = [n / 25 for n in range(50)]
    for number, expected in ((50, 20), (48, 20), (40, 16), (25, 10), (5, 2), (1, 1)):
        found = picked(shown(times[:number], number / 25), 20, 2.0)
        assert found == by_definition(times[:number], 20, 2.0)[:expected], number


def test_no_frame_gives_none() -> None:
    assert picked([], 5, 0.0) == []


def test_only_one_frame_is_held() -> None:
    """Memory does not grow with the video."""
    given: list[int] = []

    def source() -> Any:
        for frame in shown([n / 25 for n in range(50)], 2.0):
            given.append(int(frame.picture))  # type: ignore[arg-type, call-overload]
            yield frame

    for selected in spread(source(), total=10, seconds=2.0):
        assert given[-1] - selected.picture <= 1 or given[-1] == 49  # type: ignore[operator]


@dataclass(frozen=True)
class File:
    """How to write a file, and how long its 30 frames are shown."""

    seconds: float
    options: dict[str, Any]


UNEVEN = uneven_times(31)[:30]
FILES = {
    "v.mp4": File(1.2, {}),
    "v.mkv": File(1.2, {}),
    "v.ts": File(1.2, {}),
    "v.mov": File(1.2, {}),
    "v.webm": File(1.2, {"codec": "libvpx-vp9"}),
    "v.avi": File(1.2, {"codec": "mpeg4"}),
    "ntsc.mp4": File(1.001, {"fps": Fraction(30000, 1001)}),
    "b_frames.mp4": File(1.2, {"options": {"bf": "3"}}),
    "b_frames.avi": File(1.2, {"codec": "libx264", "options": {"bf": "2"}}),
    "no_times.h264": File(1.2, {"container": "h264"}),
    "uneven.mkv": File(uneven_times(31)[-1] / 1000, {"times_ms": UNEVEN}),
    "uneven.mp4": File(uneven_times(31)[-1] / 1000, {"times_ms": UNEVEN}),
    "late.mkv": File(uneven_times(31)[-1] / 1000, {"times_ms": [5000 + t for t in UNEVEN]}),
    "late.mp4": File(uneven_times(31)[-1] / 1000, {"times_ms": [5000 + t for t in UNEVEN]}),
}


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / request.param
    return write_video(path, num_frames=30, **FILES[request.param].options)


class TestFiles:
    """Every container tells the times of its frames in another way."""

    def test_the_time_that_is_shown(self, file: Path) -> None:
        """The last frame of a variable rate has no length of its own in some containers."""
        last_frame = 0.16 if "times_ms" in FILES[file.name].options else 1e-3
        assert shown_seconds(file) == pytest.approx(FILES[file.name].seconds, abs=last_frame)

    def test_exactly_as_many_as_asked(self, file: Path) -> None:
        seconds = shown_seconds(file)
        for total in TOTALS:
            with VideoReader(file) as reader:
                selected = list(spread(reader, total=total, seconds=seconds))
            assert len(selected) == total
            starts = [frame.time - selected[0].time for frame in selected]
            assert starts == pytest.approx([k * seconds / total for k in range(total)])

    def test_frames_are_those_of_the_definition(self, file: Path) -> None:
        seconds = shown_seconds(file)
        with VideoReader(file) as reader:
            every = [(frame.time, frame.rgb()) for frame in reader]
        with VideoReader(file) as reader:
            selected = [frame.rgb() for frame in spread(reader, total=20, seconds=seconds)]
        numbers = by_definition([time for time, _ in every], 20, seconds)
        for pixels, number in zip(selected, numbers, strict=True):
            assert np.array_equal(pixels, every[number][1])


@pytest.mark.parametrize("total", [5, 12, 45])
def test_the_same_frames_as_ffmpeg_s_filter(tmp_path: Path, total: int) -> None:
    path = write_video(tmp_path / "v.mp4", num_frames=30)
    rate = Fraction(total) / Fraction(12, 10)
    expected = ffmpeg_frames(path, height=48, width=64, filters=f"fps=fps={rate}")
    with VideoReader(path) as reader:
        frames = [frame.rgb() for frame in spread(reader, total=total, seconds=1.2)]
    assert np.array_equal(np.stack(frames), expected)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_cut_file_is_spread_over_what_is_there(tmp_path: Path, name: str) -> None:
    options = {"movflags": "+faststart"} if name.endswith("mp4") else {}
    whole = write_video(tmp_path / name, num_frames=120, mux_options=options)
    damaged = cut(whole, tmp_path / f"cut_{name}", 0.6)
    seconds = shown_seconds(damaged)
    assert 0.3 * 4.8 < seconds < 0.9 * 4.8
    with VideoReader(damaged) as reader:
        selected = list(spread(reader, total=20, seconds=seconds))
        readable = reader.num_source_frames / 25
    assert len(selected) == (20 if seconds - readable < 0.09 else round(20 * readable / seconds))
    assert selected[-1].time + selected[-1].duration == pytest.approx(readable, abs=0.09)


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("no video")
    with pytest.raises(VideoError, match="cannot be opened"):
        shown_seconds(tmp_path / "v.mp4")
    with pytest.raises(VideoError, match="no such file"):
        shown_seconds(tmp_path / "gone.mp4")
