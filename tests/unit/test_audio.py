"""Sound: samples as ffmpeg gives them, true times, and resampling as resampy does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audio_factory import (
    click,
    click_time,
    encoded,
    in_blocks,
    noise,
    read,
    tone,
    with_picture,
    write_timed,
    write_wav,
)
from media_factory import add_audio, cut, run_ffmpeg, write_video
from numpy.typing import NDArray
from reelstack.errors import VideoError
from reelstack.media import audio
from reelstack.media.audio import AudioReader
from reelstack.media.frames import VideoReader
from reelstack.media.resample import MAX_RATE, MIN_RATE, Resampler

LSB = 1 / 32768


def ffmpeg_samples(path: Path, channels: int, *options: object) -> NDArray[np.float32]:
    """What the ffmpeg command line converts to 16 bit, channels averaged."""
    raw = run_ffmpeg(*options, "-i", f"file:{path}", "-map", "0:a:0", "-f", "s16le", "-")
    return np.frombuffer(raw, "<i2").reshape(-1, channels).mean(1).astype(np.float32) * LSB


class TestSamples:
    def test_pcm_gives_back_what_was_written(self, tmp_path: Path) -> None:
        written = noise(5000, 2)
        samples, start, reader = read(write_wav(tmp_path / "a.wav", written, 16_000))
        assert np.array_equal(samples, (written.mean(1) / 32768).astype(np.float32))
        assert (start, reader.sample_rate, reader.channels) == (0.0, 16_000, 2)
        assert (reader.num_samples, reader.problem) == (5000, "")

    @pytest.mark.parametrize(
        ("name", "codec", "options"),
        [
            ("a.wav", "pcm_u8", ()),
            ("a.wav", "pcm_s24le", ()),
            ("a.wav", "pcm_s32le", ()),
            ("a.wav", "pcm_f32le", ()),
            ("a.wav", "pcm_f64le", ()),
            ("a.wav", "pcm_alaw", ()),
            ("a.mov", "pcm_s16be", ()),
            ("a.avi", "pcm_s16le", ()),
            ("a.flac", "flac", ()),
            ("a.mkv", "flac", ("-sample_fmt", "s32")),
            ("a.m4a", "alac", ()),
            ("a.mkv", "wavpack", ()),
        ],
    )
    def test_formats_become_16_bit_as_on_the_command_line(
        self, tmp_path: Path, name: str, codec: str, options: tuple[str, ...]
    ) -> None:
        wav = write_wav(tmp_path / "in.wav", noise(6000, 2), 22_050)
        path = encoded(wav, f"out{name}", codec, "-af", "volume=0.77", *options)
        samples, start, _ = read(path)
        assert start == 0.0
        assert np.array_equal(samples, ffmpeg_samples(path, 2))

    @pytest.mark.parametrize(
        ("name", "codec", "rate"),
        [
            ("a.mp4", "aac", 44_100),
            ("a.m4a", "aac", 8_000),
            ("a.mkv", "aac", 96_000),
            ("a.aac", "aac", 48_000),
            ("a.mp3", "libmp3lame", 44_100),
            ("a.mp3", "libmp3lame", 8_000),
            ("a.webm", "libopus", 48_000),
            ("a.opus", "libopus", 48_000),
            ("a.webm", "libvorbis", 44_100),
            ("a.ogg", "libvorbis", 22_050),
            ("a.mp4", "ac3", 48_000),
            ("a.ts", "mp2", 32_000),
        ],
    )
    def test_lossy_codecs_differ_by_rounding_at_most(
        self, tmp_path: Path, name: str, codec: str, rate: int
    ) -> None:
        wav = write_wav(tmp_path / "in.wav", tone(440, rate, 0.5), rate)
        path = encoded(wav, name, codec)
        keep = ("-flags2", "+skip_manual") if codec == "aac" else ()
        expected = ffmpeg_samples(path, 1, *keep)
        samples, _, reader = read(path)
        assert reader.sample_rate == rate
        # Newer command lines leave out more of what fills the last frame.
        assert 0 <= len(samples) - len(expected) < 2048
        assert np.abs(samples[: len(expected)] - expected).max() <= 1.01 * LSB
        assert np.abs(samples).max() > 0.4

    @pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "5.1", "7.1"])
    @pytest.mark.parametrize(("name", "codec"), [("a.flac", "flac"), ("a.wav", "pcm_s16le")])
    def test_channels_are_averaged(
        self, tmp_path: Path, layout: str, name: str, codec: str
    ) -> None:
        channels = {"mono": 1, "stereo": 2, "2.1": 3, "5.1": 6, "7.1": 8}[layout]
        wav = write_wav(tmp_path / "in.wav", noise(3000, channels), 16_000)
        path = encoded(wav, f"out{name}", codec, "-af", f"aformat=channel_layouts={layout}")
        samples, _, reader = read(path)
        assert reader.channels == channels
        assert np.array_equal(samples, ffmpeg_samples(path, channels))

    @pytest.mark.parametrize("channels", [3, 5, 24])
    def test_channels_without_names_are_averaged_too(self, tmp_path: Path, channels: int) -> None:
        written = noise(800, channels)
        samples, _, _ = read(write_wav(tmp_path / "a.wav", written, 8_000))
        assert np.array_equal(samples, (written.mean(1) / 32768).astype(np.float32))


class TestTimes:
    @pytest.mark.parametrize(
        ("name", "codec", "rate"),
        [
            ("a.wav", "pcm_s16le", 22_051),
            ("a.mp4", "aac", 44_100),
            ("a.m4a", "aac", 16_000),
            ("a.mkv", "aac", 48_000),
            ("a.mp3", "libmp3lame", 44_100),
            ("a.mp4", "libmp3lame", 44_100),
            ("a.mkv", "libmp3lame", 32_000),
            ("a.webm", "libopus", 48_000),
            ("a.mp4", "libopus", 48_000),
            ("a.ogg", "libvorbis", 44_100),
            ("a.flac", "flac", 96_000),
            ("a.mp4", "ac3", 48_000),
            ("a.mkv", "ac3", 48_000),
            ("a.m4a", "alac", 44_100),
        ],
    )
    def test_a_click_is_where_it_was_put(
        self, tmp_path: Path, name: str, codec: str, rate: int
    ) -> None:
        wav = write_wav(tmp_path / "in.wav", click(rate, 2.0, 1.1, channels=2), rate)
        assert click_time(encoded(wav, f"out{name}", codec)) == pytest.approx(1.1, abs=1e-3)

    @pytest.mark.parametrize(
        ("name", "codec", "video"),
        [
            ("a.mp4", "aac", "libx264"),
            ("a.mkv", "ac3", "mpeg4"),
            ("a.webm", "libopus", "libvpx"),
            ("a.ts", "aac", "libx264"),
            ("a.flv", "aac", "flv"),
        ],
    )
    def test_sound_and_picture_share_one_clock(
        self, tmp_path: Path, name: str, codec: str, video: str
    ) -> None:
        wav = write_wav(tmp_path / "in.wav", click(48_000, 1.0, 0.6), 48_000)
        path = with_picture(wav, f"out{name}", codec, video=video)
        with VideoReader(path) as reader:
            picture = next(iter(reader)).time
        assert click_time(path) - picture == pytest.approx(0.6, abs=1e-3)

    def test_samples_before_the_start_of_aac_are_kept(self, tmp_path: Path) -> None:
        wav = write_wav(tmp_path / "in.wav", tone(440, 44_100, 0.5), 44_100)
        path = encoded(wav, "a.mp4", "aac")
        samples, start, _ = read(path)
        assert start == pytest.approx(-1024 / 44_100, abs=1e-9)
        assert np.array_equal(samples[1024:][:16_000], ffmpeg_samples(path, 1)[:16_000])

    def test_a_sound_that_starts_later_says_so(self, tmp_path: Path) -> None:
        wav = write_wav(tmp_path / "in.wav", click(48_000, 1.0, 0.25), 48_000)
        black = ("-f", "lavfi", "-i", "color=size=64x48:duration=1:rate=25")
        path = tmp_path / "late.mkv"
        run_ffmpeg(
            *(*black, "-itsoffset", 0.5, "-i", f"file:{wav}", "-c:v", "mpeg4"),
            *("-c:a", "pcm_s16le", f"file:{path}"),
        )
        assert read(path)[1] == pytest.approx(0.5, abs=1e-3)
        assert click_time(path) == pytest.approx(0.75, abs=1e-3)

    def test_a_late_picture_does_not_move_the_sound(self, tmp_path: Path) -> None:
        plain = write_video(tmp_path / "plain.mp4", num_frames=5)
        late = add_audio(plain, tmp_path / "late.mkv", video_delay_seconds=0.5)
        assert read(late)[1] == pytest.approx(-0.064, abs=1e-3)


class TestGaps:
    RATE = 8_000

    def pieces(self, tmp_path: Path, *starts: float) -> tuple[NDArray[np.float32], AudioReader]:
        """Tones of 0.1 s that start at the given seconds."""
        piece = tone(440, self.RATE, 0.1)
        path = write_timed(tmp_path / "a.mkv", [(at, piece) for at in starts], self.RATE)
        samples, _, reader = read(path)
        return samples, reader

    def test_a_gap_is_filled_with_silence(self, tmp_path: Path) -> None:
        samples, reader = self.pieces(tmp_path, 0.0, 0.1, 2.7)
        assert len(samples) == 2.8 * self.RATE
        assert not samples[1600:21_600].any()
        assert np.array_equal(samples[21_600:], samples[:800])
        assert reader.problem == ""

    def test_what_would_sound_twice_is_left_out(self, tmp_path: Path) -> None:
        samples, reader = self.pieces(tmp_path, 0.0, 0.1, 0.15, 0.25)
        assert len(samples) == 0.35 * self.RATE
        assert np.array_equal(samples[1600:2000], samples[400:800])
        assert reader.problem == ""

    def test_shaky_time_stamps_change_nothing(self, tmp_path: Path) -> None:
        samples, _ = self.pieces(tmp_path, 0.0, 0.115, 0.185, 0.31)
        assert np.array_equal(samples, np.tile(samples[:800], 4))

    def test_a_broken_clock_is_reported_and_not_followed(self, tmp_path: Path) -> None:
        samples, reader = self.pieces(tmp_path, 0.0, 0.1, 23_000.0, 23_000.1, 23_000.5)
        assert np.array_equal(samples[:3200], np.tile(samples[:800], 4))
        assert len(samples) == 6400, "later gaps are filled again"
        assert reader.problem == "the clock of the sound jumps by 22999.80 s after 0.20 s"

    def test_a_clock_that_starts_again_is_not_followed(self, tmp_path: Path) -> None:
        wav = write_wav(tmp_path / "in.wav", tone(440, 48_000, 1.5), 48_000)
        once = encoded(wav, "once.ts", "mp2")
        twice = tmp_path / "twice.ts"
        twice.write_bytes(once.read_bytes() * 2)
        assert len(read(twice)[0]) == 2 * len(read(once)[0])
        assert "clock of the sound jumps by -1.5" in read(twice)[2].problem

    def test_all_silence_together_is_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audio, "LONGEST_SILENCE_SECONDS", 1.0)
        samples, reader = self.pieces(tmp_path, 0.0, 0.7, 1.4, 1.5)
        assert len(samples) == (0.8 + 0.2) * self.RATE
        assert "jumps by 0.60 s after 0.80 s" in reader.problem


class TestStatuses:
    def status(self, path: Path) -> str:
        with pytest.raises(VideoError) as caught:
            read(path)
        return caught.value.status

    def test_missing(self, tmp_path: Path) -> None:
        assert self.status(tmp_path / "none.mp4") == "missing"

    def test_garbage(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_bytes(b"no video at all" * 99)
        assert self.status(tmp_path / "a.mp4") == "unreadable"

    def test_silent_film(self, tmp_path: Path) -> None:
        assert self.status(write_video(tmp_path / "a.mp4", num_frames=3)) == "no_audio"

    def test_a_track_without_samples(self, tmp_path: Path) -> None:
        assert self.status(write_wav(tmp_path / "a.wav", noise(0), 8_000)) == "no_audio"

    def test_a_single_sample(self, tmp_path: Path) -> None:
        written = noise(1, seed=1)
        samples, _, reader = read(write_wav(tmp_path / "a.wav", written, 8_000))
        assert samples.tolist() == [written[0, 0] / 32768]
        assert reader.problem == ""

    @pytest.mark.parametrize("rate", [50, 500_000])
    def test_a_sample_rate_that_no_sound_has(self, tmp_path: Path, rate: int) -> None:
        assert self.status(write_wav(tmp_path / "a.wav", noise(100), rate)) == "unreadable"

    @pytest.mark.parametrize("name", ["a.mp4", "a.flac"])
    def test_a_cut_file(self, tmp_path: Path, name: str) -> None:
        wav = write_wav(tmp_path / "in.wav", noise(44_100 * 4), 44_100)
        codec = "aac" if name == "a.mp4" else "flac"
        whole = encoded(wav, name, codec, *(("-movflags", "+faststart") if codec == "aac" else ()))
        assert read(whole)[2].problem == ""
        samples, _, reader = read(cut(whole, tmp_path / f"cut{whole.suffix}", 0.5))
        assert 1.0 < len(samples) / 44_100 < 3.0
        assert "of 4.00 declared seconds of sound" in reader.problem

    def test_a_damaged_packet(self, tmp_path: Path) -> None:
        wav = write_wav(tmp_path / "in.wav", noise(44_100), 44_100)
        path = encoded(wav, "a.aac", "aac")
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 600] = bytes(range(256)) * 2 + bytes(88)
        path.write_bytes(content)
        samples, _, reader = read(path)
        assert len(samples) > 30_000
        assert "of the sound are damaged" in reader.problem

    def test_a_frame_that_the_decoder_had_to_patch(self, tmp_path: Path) -> None:
        wav = write_wav(tmp_path / "in.wav", noise(48_000), 48_000)
        whole = encoded(wav, "a.ac3", "ac3")
        assert read(whole)[2].problem == ""
        _, _, reader = read(cut(whole, tmp_path / "cut.ac3", 0.61))
        assert reader.problem.startswith("1 packets of the sound are damaged: a frame")


def resampled(samples: NDArray[np.float32], rate: int, *, size: int = 0) -> NDArray[np.float32]:
    """By way of pieces of `size`; 0 for all at once."""
    resampler = Resampler(rate, 16_000)
    blocks = in_blocks(samples, rate, size=size or max(1, len(samples)))
    return np.concatenate([*(resampler.push(b.samples) for b in blocks), resampler.finish()])


class TestResampler:
    @pytest.mark.parametrize(
        ("rate", "length", "expected"),
        [
            (8000, 4014, [-0.4747135, -0.5610095, -0.1222875, 0.4768733, -0.8244597, -0.3795686]),
            (22051, 4004, [-0.4018479, -0.5364253, -0.1353308, 0.2269836, 0.3597595, -0.4769696]),
            (44100, 4002, [-0.3261207, -0.4972745, -0.1852604, 0.1497086, -0.3612347, 0.0905062]),
            (48000, 4002, [-0.2888760, -0.5400961, -0.1098702, -0.2857125, -0.9119463, -0.7792231]),
            (96000, 4001, [-0.2756902, -0.4024346, 0.0644707, -0.6039822, 0.0181039, -0.1085826]),
        ],
    )
    def test_numbers_are_those_of_resampy(
        self, rate: int, length: int, expected: list[float]
    ) -> None:
        """`expected` is what resampy 0.4.3 gives for this signal (kaiser_best, float64)."""
        count = rate // 4 + 7
        n = np.arange(count)
        signal = ((n * n * 7 + n * 13) % 2001 - 1000) / 2000 * (1 + n / count)
        outputs = resampled(signal.astype(np.float32), rate)
        assert len(outputs) == length
        chosen = outputs[[0, 1, 37, length // 2, length - 2, length - 1]]
        np.testing.assert_allclose(chosen, expected, rtol=0, atol=2e-7)

    @pytest.mark.parametrize("rate", [8000, 11025, 16000, 22051, 44100, 48000, 192000])
    def test_pieces_do_not_matter(self, rate: int) -> None:
        samples = noise(int(3.3 * rate))[:, 0].astype(np.float32) / 32768
        whole = resampled(samples, rate)
        assert len(whole) == len(samples) * 16_000 // rate
        for size in (997, rate // 3):
            assert np.array_equal(resampled(samples, rate, size=size), whole)

    @pytest.mark.parametrize("rate", [8000, 11025, 22051, 44100, 48000, 96000])
    def test_a_tone_stays_a_tone(self, rate: int) -> None:
        outputs = resampled(tone(1000, rate, 1.0)[:, 0].astype(np.float32) / 32767, rate)
        expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(outputs)) / 16_000)
        inside = slice(800, -800)
        np.testing.assert_allclose(outputs[inside], expected[inside], rtol=0, atol=2e-4)

    @pytest.mark.parametrize("rate", [22051, 44100, 96000])
    def test_what_16_khz_cannot_hold_vanishes(self, rate: int) -> None:
        outputs = resampled(tone(9000, rate, 1.0)[:, 0].astype(np.float32) / 32767, rate)
        assert np.abs(outputs[800:-800]).max() < 1e-4

    @pytest.mark.parametrize("length", [0, 1, 2, 3])
    def test_next_to_nothing(self, length: int) -> None:
        samples = np.ones(length, np.float32)
        assert len(resampled(samples, 44_100)) == length * 16_000 // 44_100
        assert len(resampled(samples, 8_000)) == 2 * length

    @pytest.mark.parametrize("rate", [0, MIN_RATE - 1, MAX_RATE + 1])
    def test_rates_have_bounds(self, rate: int) -> None:
        with pytest.raises(ValueError, match=f"rate is {rate} Hz; allowed: 100 to 192000"):
            Resampler(rate, 16_000)
