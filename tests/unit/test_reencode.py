"""Re-encoding with the real ffmpeg."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from media_factory import add_audio, rotated, uneven_times, write_video
from reelstack.errors import ReelstackError, VideoError
from reelstack.files import csv_text, read_csv
from reelstack.ingest.probe import PROBE_COLUMNS, probe_video
from reelstack.media import reencode, reencode_shard
from reelstack.media.frames import VideoReader

ENCODER = {"codec": "libx264", "preset": "ultrafast", "crf": 12, "pix_fmt": "yuv420p"}


def encode(source: Path, target: Path, *, fps: float = 25.0, **changes: Any) -> dict[str, Any]:
    facts = probe_video(source)
    return reencode.reencode_video(
        str(source),
        target,
        fps=fps,
        encoder=ENCODER | changes,
        width=facts["width"],
        height=facts["height"],
        frames_declared=facts["frames_declared"],
        duration_seconds=float(facts["duration_seconds"]),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("media") / "source.mp4", num_frames=30)


@pytest.mark.parametrize("fps", [5.0, 12.5, 25.0, 29.97, 50.0])
def test_the_result_has_the_sampled_frames_at_a_constant_rate(
    tmp_path: Path, source: Path, fps: float
) -> None:
    uneven = write_video(tmp_path / "v.mkv", num_frames=30, times_ms=uneven_times(30))
    for video in (source, uneven):
        row = encode(video, tmp_path / "out.mp4", fps=fps)
        facts = probe_video(tmp_path / "out.mp4")
        with VideoReader(video, sample_fps=fps) as reader:
            sampled = np.stack([frame.rgb() for frame in reader]).astype(float)
        with VideoReader(tmp_path / "out.mp4") as reader:
            encoded = np.stack([frame.rgb() for frame in reader]).astype(float)
        assert row["status"] == "ok"
        assert row["frames_in"] == 30
        assert row["frames_out"] == facts["frames_declared"] == len(sampled) == len(encoded)
        assert facts["vfr"] is False
        assert facts["fps"] == pytest.approx(fps, abs=0.01)
        assert abs(encoded - sampled).mean() < 4, "another frame, not a second loss"


def test_the_row(tmp_path: Path, source: Path) -> None:
    row = encode(source, tmp_path / "out.mp4", fps=5.0)
    assert set(row) == set(reencode.REENCODE_COLUMNS) - {"video_id", "file", "key"}
    assert row["error"] == ""
    assert row["fps"] == 5.0
    assert row["size_bytes"] == (tmp_path / "out.mp4").stat().st_size
    assert row["seconds"] >= 0
    assert row["ffmpeg_version"] == reencode.ffmpeg_version(reencode.ffmpeg_executable())
    arguments = row["ffmpeg_arguments"]
    assert "fps=fps=5.0:round=near" in arguments
    assert "-threads 1 -vcodec libx264" in arguments
    assert str(tmp_path) not in arguments, "the record depends on the folder"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, source: Path) -> None:
    shutil.copy(source, tmp_path / "another name.mp4")
    contents = set()
    for number, video in enumerate((source, source, tmp_path / "another name.mp4")):
        encode(video, tmp_path / f"{number}.mp4", fps=12.5, preset="veryfast")
        contents.add((tmp_path / f"{number}.mp4").read_bytes())
    assert len(contents) == 1


def test_sound_and_metadata_are_dropped(tmp_path: Path, source: Path) -> None:
    with_sound = add_audio(source, tmp_path / "a.mkv")
    encode(with_sound, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("degrees", [90, 180])
def test_rotation_is_carried_out(tmp_path: Path, source: Path, degrees: int) -> None:
    turned = rotated(source, tmp_path / "turned.mp4", degrees)
    encode(turned, tmp_path / "out.mp4")
    with VideoReader(turned) as reader:
        before = np.stack([frame.rgb() for frame in reader]).astype(float)
    with VideoReader(tmp_path / "out.mp4") as reader:
        after = np.stack([frame.rgb() for frame in reader]).astype(float)
    assert before.shape == after.shape
    assert abs(before - after).mean() < 4
    assert probe_video(tmp_path / "out.mp4")["rotation"] == 0, "turned twice"


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (47, 64), (3, 5)])
def test_odd_sizes_lose_their_last_row_or_column(tmp_path: Path, height: int, width: int) -> None:
    odd = write_video(
        tmp_path / "odd.mkv", codec="ffv1", pix_fmt="bgr0", height=height, width=width, num_frames=4
    )
    row = encode(odd, tmp_path / "out.mp4")
    facts = probe_video(tmp_path / "out.mp4")
    assert row["status"] == "ok"
    assert (facts["height"], facts["width"]) == (height // 2 * 2, width // 2 * 2)


def test_settings_of_the_encoder_are_used(tmp_path: Path, source: Path) -> None:
    encode(source, tmp_path / "hevc.mp4", codec="libx265", pix_fmt="yuv444p", crf=20)
    facts = probe_video(tmp_path / "hevc.mp4")
    assert (facts["codec"], facts["pix_fmt"]) == ("hevc", "yuv444p")
    sizes = [encode(source, tmp_path / "o.mp4", crf=crf)["size_bytes"] for crf in (0, 20, 50)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_ffmpeg_comes_from_path_else_from_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reencode.ffmpeg_executable() == imageio_ffmpeg.get_ffmpeg_exe()
    own = tmp_path / "ffmpeg"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert reencode.ffmpeg_executable() == str(own)


class TestShard:
    """The job of one shard."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.encoded: list[str] = []

        def count(source: str, *arguments: Any, **options: Any) -> dict[str, Any]:
            self.encoded.append(Path(source).stem)
            return reencode.reencode_video(source, *arguments, **options)

        monkeypatch.setattr(reencode_shard, "reencode_video", count)
        for number, name in enumerate(("a", "sub/b", "c")):
            write_video(Path(f"in/{name}.mp4"), num_frames=6, seed=number)
        Path("in/broken.mp4").write_bytes(b"no video")
        self.rows = [self.probe(name) for name in ("a", "broken", "c", "sub/b")]

    @staticmethod
    def probe(name: str) -> dict[str, Any]:
        path = f"in/{name}.mp4"
        return {"video_id": name, "path": path, "status": "ok", "error": ""} | probe_video(path)

    def run(self, *, keep: bool = True, fps: float = 25.0, strict: bool = False) -> list:
        Path("probe.csv").write_text(csv_text(self.rows, PROBE_COLUMNS))
        self.encoded.clear()
        reencode_shard.reencode_shard(
            probe_table="probe.csv",
            table="out/reencode/s0.csv",
            videos="out/reencoded/s0",
            fps=fps,
            encoder=ENCODER,
            keep=keep,
            threads=2,
            strict=strict,
        )
        return read_csv("out/reencode/s0.csv")

    @staticmethod
    def files() -> dict[str, bytes]:
        folder = Path("out/reencoded/s0")
        return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.mp4")}

    def test_videos_under_their_ids_and_a_row_for_each(self) -> None:
        rows = self.run()
        assert [r["video_id"] for r in rows] == ["a", "broken", "c", "sub/b"]
        assert [r["status"] for r in rows] == ["ok", "unreadable", "ok", "ok"]
        assert rows[1]["error"].startswith("cannot be opened as a video"), "the probe's reason"
        assert set(self.files()) == {"a.mp4", "c.mp4", "sub/b.mp4"}
        assert [r["file"] for r in rows] == ["a.mp4", "", "c.mp4", "sub/b.mp4"]

    def test_nothing_is_encoded_twice(self) -> None:
        rows, files = self.run(), self.files()
        shutil.rmtree("out/reencoded/s0")  # as Snakemake does before it runs the job again
        Path("out/reencode/s0.csv").unlink()
        assert self.run() == rows
        assert self.files() == files
        assert self.encoded == []

    def test_a_replaced_video_is_encoded_again_alone(self) -> None:
        self.run()
        write_video(Path("in/c.mp4"), num_frames=9, seed=7)
        self.rows[2] = self.probe("c")
        assert self.run()[2]["frames_out"] == "9"
        assert self.encoded == ["c"]

    def test_another_rate_encodes_all(self) -> None:
        self.run()
        self.run(fps=5.0)
        assert sorted(self.encoded) == ["a", "b", "c"]
        private = list(Path("out/reencode/.state/s0").glob("*.mp4"))
        assert len(private) == 3, "videos of the old rate are left behind"

    def test_a_removed_video_goes(self) -> None:
        self.run()
        del self.rows[2]
        self.run()
        assert set(self.files()) == {"a.mp4", "sub/b.mp4"}
        assert len(list(Path("out/reencode/.state/s0").glob("*.mp4"))) == 2

    def test_kept_videos_take_their_space_once(self) -> None:
        self.run()
        assert Path("out/reencoded/s0/a.mp4").stat().st_nlink == 2
        self.run(keep=False)
        assert Path("out/reencoded/s0/a.mp4").stat().st_nlink == 1

    def test_names_that_are_too_long_with_a_suffix(self) -> None:
        self.rows[0]["video_id"] = "x" * 253
        row = self.run()[0]
        assert row["file"] == f"{row['key']}.mp4"
        assert row["file"] in self.files()

    def test_strict(self) -> None:
        with pytest.raises(ReelstackError, match="broken: unreadable"):
            self.run(strict=True)
        assert sorted(self.encoded) == ["a", "b", "c"]
        del self.rows[1]
        self.run(strict=True)
        assert self.encoded == []


def test_a_source_that_went(tmp_path: Path) -> None:
    facts = {"width": 64, "height": 48, "frames_declared": 5, "duration_seconds": 1.0}
    with pytest.raises(VideoError, match="no such file") as caught:
        reencode.reencode_video(
            str(tmp_path / "gone.mp4"), tmp_path / "o.mp4", fps=25.0, encoder=ENCODER, **facts
        )
    assert caught.value.status == "missing"
