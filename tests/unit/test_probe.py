"""The facts of a container."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest
from media_factory import (
    add_audio,
    audio_only,
    cut,
    rotated,
    run_ffmpeg,
    uneven_times,
    with_cover,
    write_video,
)
from reelstack.errors import ReelstackError, VideoError
from reelstack.files import read_csv, sha256_of
from reelstack.ingest import probe_shard as probe_shard_module
from reelstack.ingest.inputs import find_videos
from reelstack.ingest.probe import PROBE_COLUMNS, probe_video
from reelstack.ingest.probe_shard import probe_shard
from reelstack.ingest.shards import update_plan


def test_facts_of_a_plain_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", num_frames=30, fps=25)
    facts = probe_video(path)
    assert facts == {
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "container": "mov,mp4,m4a,3gp,3g2,mj2",
        "codec": "h264",
        "pix_fmt": "yuv420p",
        "width": 64,
        "height": 48,
        "rotation": 0,
        "fps": 25.0,
        "fps_real": 25.0,
        "vfr": False,
        "frames_declared": 30,
        "duration_seconds": 1.2,
    }
    assert set(facts) <= set(PROBE_COLUMNS)


def test_ntsc_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", fps=Fraction(30000, 1001))
    assert probe_video(path)["fps"] == pytest.approx(30000 / 1001, abs=1e-5)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_variable_rate_is_seen(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"v.{suffix}", num_frames=30, times_ms=uneven_times(30))
    facts = probe_video(path)
    assert facts["vfr"] is True
    assert facts["frames_declared"] == 30


@pytest.mark.parametrize("fps", [24, 25, 30, 60, Fraction(30000, 1001)])
def test_rounding_to_milliseconds_is_no_variable_rate(tmp_path: Path, fps: Fraction) -> None:
    assert probe_video(write_video(tmp_path / "v.mkv", fps=fps))["vfr"] is False


def test_frames_out_of_order_are_no_variable_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", options={"bf": "3", "b_strategy": "0"})
    assert probe_video(path)["vfr"] is False


def test_packets_are_counted_where_nothing_is_declared(tmp_path: Path) -> None:
    assert probe_video(write_video(tmp_path / "v.ts", num_frames=17))["frames_declared"] == 17


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation(tmp_path: Path, degrees: int) -> None:
    plain = write_video(tmp_path / "v.mp4")
    facts = probe_video(rotated(plain, tmp_path / "turned.mp4", degrees))
    assert facts["rotation"] == degrees
    assert (facts["width"], facts["height"]) == (64, 48), "as stored, not as shown"


def test_audio_facts(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "v.mp4")
    facts = probe_video(add_audio(plain, tmp_path / "a.mp4", seconds=2.0))
    assert facts["audio_codec"] == "aac"
    assert facts["audio_sample_rate"] == 16000
    assert facts["audio_channels"] == 1
    assert facts["audio_duration_seconds"] == pytest.approx(2.0, abs=0.1)
    assert facts["duration_seconds"] == pytest.approx(1.2, abs=0.01)
    assert "status" not in facts, "sound longer than the picture is no cut"


def test_picture_longer_than_sound_is_no_cut(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "v.mp4", num_frames=100)
    assert "status" not in probe_video(add_audio(plain, tmp_path / "a.mkv", seconds=0.5))


@pytest.mark.parametrize("make", [audio_only, with_cover])
def test_sound_alone_is_no_video(tmp_path: Path, make: object) -> None:
    facts = probe_video(make(tmp_path / "sound.m4a"))
    assert (facts["status"], facts["error"]) == ("no_video", "has no video stream")
    assert len(facts["sha256"]) == 64


def test_a_missing_file() -> None:
    with pytest.raises(VideoError, match=r"nowhere\.mp4: no such file") as caught:
        probe_video("nowhere.mp4")
    assert caught.value.status == "missing"


@pytest.mark.parametrize(("name", "declared"), [("v.mp4", 120), ("v.mkv", None)])
def test_a_cut_file(tmp_path: Path, name: str, declared: int | None) -> None:
    options = {"g": "12"}
    extra = {"mux_options": {"movflags": "+faststart"}} if name == "v.mp4" else {}
    whole = write_video(tmp_path / name, num_frames=120, options=options, **extra)
    assert "status" not in probe_video(whole)
    facts = probe_video(cut(whole, tmp_path / f"cut_{name}", 0.6))
    assert facts["status"] == "truncated"
    assert facts["error"].endswith("of 4.80 s declared")
    assert 0 < facts["frames_declared"] <= 120
    assert declared in (None, facts["frames_declared"])


def test_two_pictures_the_first_counts(tmp_path: Path) -> None:
    first = write_video(tmp_path / "one.mp4", num_frames=30)
    second = write_video(tmp_path / "two.mp4", num_frames=10, height=96, width=96)
    both = tmp_path / "both.mkv"
    run_ffmpeg("-i", first, "-i", second, "-map", 0, "-map", 1, "-c", "copy", both)
    facts = probe_video(both)
    assert (facts["width"], facts["height"], facts["frames_declared"]) == (64, 48, 30)


class TestShard:
    """The job: a table, with what is known not read again."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a", "b", "c"):
            write_video(Path(f"in/{name}.mp4"), num_frames=5)
        Path("in/broken.mp4").write_bytes(b"no video")
        self.read: list[str] = []

        def count(path: str) -> dict:
            self.read.append(Path(path).name)
            return probe_video(path)

        monkeypatch.setattr(probe_shard_module, "probe_video", count)

    def run(self, *, strict: bool = False, threads: int = 2) -> list[dict[str, str]]:
        update_plan(find_videos(["in"]), "out", max_videos=9, max_bytes=10**9)
        plan, table = "out/plan/s000000.csv", "out/probe/s000000.csv"
        self.read.clear()
        probe_shard(plan=plan, table=table, threads=threads, strict=strict)
        return read_csv(table)

    def test_a_row_per_video_and_a_status_for_the_broken_one(self) -> None:
        rows = self.run()
        assert list(rows[0]) == PROBE_COLUMNS
        assert [r["status"] for r in rows] == ["ok", "ok", "unreadable", "ok"]
        assert [r["video_id"] for r in rows] == ["a", "b", "broken", "c"]
        assert rows[0]["path"] == "in/a.mp4"
        assert rows[2]["sha256"] == sha256_of("in/broken.mp4")
        assert rows[2]["error"].startswith("cannot be opened as a video")

    def test_nothing_is_read_twice(self) -> None:
        rows = self.run()
        assert sorted(self.read) == ["a.mp4", "b.mp4", "broken.mp4", "c.mp4"]
        assert self.run() == rows
        assert self.read == []

    def test_a_touched_file_is_read_again_alone(self) -> None:
        self.run()
        os.utime("in/b.mp4", ns=(1, 1))
        self.run()
        assert self.read == ["b.mp4"]

    def test_strict_fails_and_names_the_video(self) -> None:
        with pytest.raises(ReelstackError, match="broken: unreadable: cannot be opened"):
            self.run(strict=True)
        assert not Path("out/probe/s000000.csv").exists()
        Path("in/broken.mp4").unlink()
        self.run(strict=True)
        assert self.read == [], "what was read before the failure is known"
