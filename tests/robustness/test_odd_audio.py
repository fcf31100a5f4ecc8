"""Sound as people and other systems make it, and as broken disks leave it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_factory import (
    click,
    click_time,
    encoded,
    noise,
    read,
    tone,
    with_picture,
    write_wav,
)
from media_factory import add_audio, run_ffmpeg, with_cover, write_video
from numpy.typing import NDArray
from reelstack.errors import VideoError
from reelstack.extract.audio import AudioSettings, extract_audio
from reelstack.media.audio import AudioReader
from reelstack.media.frames import VideoReader
from reelstack.models.base import Extractor, Inputs
from reelstack.models.registry import model_entry
from torch import Tensor, from_numpy
from typing_extensions import override

KINDS = [
    ("a.mp4", "aac"),
    ("a.ts", "aac"),
    ("a.aac", "aac"),
    ("a.mkv", "libopus"),
    ("a.ogg", "libvorbis"),
    ("a.mp3", "libmp3lame"),
    ("a.flac", "flac"),
    ("a.flv", "libmp3lame"),
    ("a.avi", "ac3"),
    ("a.mov", "pcm_s24le"),
    ("a.wma", "wmav2"),
]


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_damaged_files_end_with_a_status(tmp_path: Path, name: str, codec: str) -> None:
    wav = write_wav(tmp_path / "in.wav", noise(44_100, 2), 44_100)
    whole = encoded(wav, f"out{name}", codec).read_bytes()
    generator = random.Random(name + codec)
    path = tmp_path / f"broken{Path(name).suffix}"
    for damages in (1, 3, 10, 30, 100, 300):
        content = bytearray(whole)
        reach = len(whole) if damages % 3 else 2000  # the header alone, every other time
        for _ in range(damages):
            content[generator.randrange(min(reach, len(whole)))] = generator.randrange(256)
        path.write_bytes(content[: len(whole) if damages < 100 else len(whole) * 2 // 3])
        try:
            samples, start, reader = read(path)
        except VideoError as error:
            assert error.status in ("unreadable", "no_audio")
            continue
        assert np.isfinite(samples).all()
        assert np.isfinite(start)
        assert reader.num_samples == len(samples)


def test_rate_and_channels_may_change_on_the_way(tmp_path: Path) -> None:
    mono = write_wav(tmp_path / "mono.wav", tone(440, 48_000, 1.0), 48_000)
    stereo = write_wav(tmp_path / "stereo.wav", np.repeat(tone(440, 44_100, 1.0), 2, 1), 44_100)
    pieces = [encoded(mono, "mono.ac3", "ac3"), encoded(stereo, "stereo.ac3", "ac3")]
    path = tmp_path / "both.ac3"
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    samples, _, reader = read(path)
    assert reader.sample_rate == 48_000
    assert len(samples) / 48_000 == pytest.approx(2.03, abs=0.02)
    for second in (samples[12_000:36_000], samples[60_000:84_000]):
        spectrum = np.abs(np.fft.rfft(second))
        assert np.argmax(spectrum) == 220, "440 Hz in half a second"


def test_streams_may_appear_after_the_beginning(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "in.wav", tone(440, 44_100, 8.0), 44_100)
    alone = encoded(wav, "alone.flv", "libmp3lame").read_bytes()
    both = with_picture(wav, "both.flv", "libmp3lame", video="flv").read_bytes()
    path = tmp_path / "joined.flv"
    path.write_bytes(alone + both[13:])  # all but its header
    assert len(read(path)[0]) > 16 * 44_100


def test_a_cut_without_encoding_keeps_its_times(tmp_path: Path) -> None:
    """Players skip what such a file has before its start; its time is below 0."""
    wav = write_wav(tmp_path / "in.wav", click(48_000, 4.0, 2.5), 48_000)
    video = write_video(tmp_path / "v.mp4", num_frames=100, options={"g": "50"})
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    run_ffmpeg(
        *("-i", f"file:{video}", "-i", f"file:{wav}", "-c:v", "copy", "-c:a", "aac"),
        f"file:{whole}",
    )
    run_ffmpeg("-ss", 1.5, "-i", f"file:{whole}", "-c", "copy", f"file:{path}")
    assert read(path)[1] < 0
    assert click_time(path) == pytest.approx(1.0, abs=1e-3)


def test_a_cover_picture_does_no_harm(tmp_path: Path) -> None:
    samples, start, reader = read(with_cover(tmp_path / "song.m4a"))
    assert len(samples) / reader.sample_rate + start == pytest.approx(0.5, abs=0.05)


def test_a_playlist_is_refused(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "in.wav", tone(440, 8_000, 0.5), 8_000)
    path = tmp_path / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile '{wav.name}'\n")
    with pytest.raises(VideoError, match="playlist") as caught:
        AudioReader(path)
    assert caught.value.status == "unreadable"


class Loudness(Extractor):
    """The feature is the root mean square of an example."""

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        pass

    @override
    def preprocess(self, frames: NDArray[Any], before: NDArray[Any] | None = None) -> Inputs:
        return {"audio": from_numpy(frames)}

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        return {"audio": windows["audio"].square().mean(1, keepdim=True).sqrt()}


@pytest.mark.parametrize(("sound_seconds", "num_frames"), [(1.0, 100), (4.0, 50)])
def test_rows_of_a_picture_that_is_longer_or_shorter_than_its_sound(
    tmp_path: Path, sound_seconds: float, num_frames: int
) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=num_frames)
    path = add_audio(video, tmp_path / "both.mp4", seconds=sound_seconds)
    with VideoReader(path) as frames:
        shown = [(frame.time, frame.time + frame.duration) for frame in frames]
    starts, ends = (np.array(times) for times in zip(*shown[::25], strict=True))
    ends = starts + 1.0
    entry = model_entry("vggish")
    extractor = Loudness(entry, entry.streams, entry.settings)
    with AudioReader(path) as reader:
        (rows,) = extract_audio(reader, extractor, AudioSettings(windows=(starts, ends)))
    assert reader.num_samples / reader.sample_rate == pytest.approx(sound_seconds, abs=0.15)
    assert reader.problem == "", "the sound is read to its end"
    assert np.array_equal(rows["time_start"], starts)
    assert np.array_equal(rows["time_end"], ends)
    heard = np.clip(sound_seconds - starts, 0, 1) > 0
    assert np.array_equal(rows["valid_frames"] > 0, heard)
    assert np.array_equal(rows["audio"][:, 0] > 0.05, heard)
    with AudioReader(path) as reader:
        batches = list(extract_audio(reader, extractor, AudioSettings()))
    assert sum(len(batch["audio"]) for batch in batches) == int(sound_seconds / 0.96)
