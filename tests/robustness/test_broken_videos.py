"""Broken files: a status and a reason, the frames that are there, and never an exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_factory import audio_only, cut, with_cover, write_video
from reelstack.errors import VideoError
from reelstack.files import csv_text, read_csv
from reelstack.ingest.probe import PROBE_COLUMNS, probe_video
from reelstack.media.frames import VideoReader
from reelstack.media.reencode_shard import reencode_shard

ENCODER = {"codec": "libx264", "preset": "ultrafast", "crf": 18, "pix_fmt": "yuv420p"}
NUM_FRAMES = 120


def whole(folder: Path, name: str) -> Path:
    return write_video(
        folder / name,
        num_frames=NUM_FRAMES,
        codec="mpeg4" if name.endswith("avi") else "libx264",
        options={"g": "12"},
        mux_options={"movflags": "+faststart"} if name.endswith("mp4") else {},
    )


def garbled(video: Path, target: Path, *, start: float, num_bytes: int = 300) -> Path:
    content = bytearray(video.read_bytes())
    first = int(len(content) * start)
    content[first : first + num_bytes] = np.random.default_rng(0).bytes(num_bytes)
    target.write_bytes(content)
    return target


def decode(path: Path, *, threads: int = 1, **options: Any) -> tuple[np.ndarray, str]:
    with VideoReader(path, threads=threads, **options) as reader:
        frames = np.stack([frame.rgb() for frame in reader])
    return frames, reader.problem


def row_of(path: Path) -> dict[str, Any]:
    return {"video_id": path.stem, "path": str(path), "status": "ok", "error": ""} | probe_video(
        path
    )


def reencoded(folder: Path, *paths: Path) -> list[dict[str, str]]:
    (folder / "probe.csv").write_text(csv_text(map(row_of, paths), PROBE_COLUMNS))
    reencode_shard(
        probe_table=str(folder / "probe.csv"),
        table=str(folder / "out" / "s0.csv"),
        videos=str(folder / "videos"),
        fps=25.0,
        encoder=ENCODER,
        keep=True,
        threads=2,
        strict=False,
    )
    return read_csv(folder / "out" / "s0.csv")


@pytest.mark.parametrize("share", [0.35, 0.8])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.ts"])
def test_a_cut_file_gives_its_beginning_whatever_the_threads(
    tmp_path: Path, name: str, share: float
) -> None:
    video = whole(tmp_path, name)
    damaged = cut(video, tmp_path / f"cut_{name}", share)
    frames, problem = decode(damaged)
    complete, _ = decode(video)
    assert 0 < len(frames) < NUM_FRAMES
    undamaged = len(frames) - 1  # the last one may be half there
    assert np.array_equal(frames[:undamaged], complete[:undamaged])
    for threads in (3,):
        again, same_problem = decode(damaged, threads=threads)
        assert np.array_equal(again, frames)
        assert same_problem == problem


@pytest.mark.parametrize("share", [0.35, 0.6])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi"])
def test_a_cut_file_is_truncated_in_both_ways_of_reading(
    tmp_path: Path, name: str, share: float
) -> None:
    damaged = cut(whole(tmp_path, name), tmp_path / f"cut_{name}", share)
    frames, problem = decode(damaged)
    assert problem or probe_video(damaged)["status"] == "truncated"
    (row,) = reencoded(tmp_path, damaged)
    assert row["status"] == "truncated"
    assert row["error"]
    assert int(row["frames_in"]) == len(frames)


@pytest.mark.parametrize("start", [0.4, 0.5, 0.7])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.ts"])
def test_a_garbled_middle_ends_nothing(tmp_path: Path, name: str, start: float) -> None:
    damaged = garbled(whole(tmp_path, name), tmp_path / f"bad_{name}", start=start)
    frames, problem = decode(damaged)
    assert NUM_FRAMES // 4 < len(frames) <= NUM_FRAMES
    for threads in (3,):
        again, same_problem = decode(damaged, threads=threads)
        assert np.array_equal(again, frames)
        assert same_problem == problem
    (row,) = reencoded(tmp_path, damaged)
    assert row["status"] in ("ok", "truncated")


def test_lost_frames_of_a_garbled_mp4_are_told(tmp_path: Path) -> None:
    damaged = garbled(whole(tmp_path, "v.mp4"), tmp_path / "bad.mp4", start=0.5)
    frames, problem = decode(damaged)
    assert len(frames) < NUM_FRAMES
    assert problem == f"{len(frames)} of {NUM_FRAMES} declared frames could be decoded"
    sampled, same_problem = decode(damaged, sample_fps=25.0)
    assert same_problem == problem
    assert len(sampled) == NUM_FRAMES, "time goes on where frames are lost"


def header_only(folder: Path) -> Path:
    content = whole(folder, "v.mp4").read_bytes()
    target = folder / "header.mp4"
    target.write_bytes(content[: content.find(b"mdat") + 4])
    return target


def picture_without_packets(folder: Path) -> Path:
    """A file that announces a picture and holds sound only."""
    picture, sound = write_video(folder / "p.mkv"), audio_only(folder / "s.m4a")
    with (
        av.open(str(picture)) as first,
        av.open(str(sound)) as second,
        av.open(str(folder / "v.mkv"), "w") as output,
    ):
        output.add_stream_from_template(first.streams.video[0])
        stream = output.add_stream_from_template(second.streams.audio[0])
        for packet in second.demux():
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return folder / "v.mkv"


def write(name: str, content: bytes) -> Any:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


UNUSABLE = {
    "empty": (write("v.mp4", b""), "unreadable"),
    "noise": (write("v.mp4", np.random.default_rng(0).bytes(4000)), "unreadable"),
    "zeros": (write("v.mkv", bytes(4000)), "unreadable"),
    "text": (write("v.mp4", b"<html>404 not found</html>" * 20), "unreadable"),
    "mp4 header": (header_only, "unreadable"),
    "mp4 without index": (
        lambda folder: cut(write_video(folder / "w.mp4"), folder / "v.mp4", 0.5),
        "unreadable",
    ),
    "mkv header": (
        lambda path: cut(whole(path, "w.mkv"), path / "v.mkv", 0.05),
        "unreadable",
    ),
    "no packet": (picture_without_packets, "unreadable"),
    "sound": (lambda folder: audio_only(folder / "v.m4a"), "no_video"),
    "sound with cover": (lambda folder: with_cover(folder / "v.m4a"), "no_video"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_without_a_frame(tmp_path: Path, case: str) -> None:
    make, status = UNUSABLE[case]
    path = make(tmp_path)
    with pytest.raises(VideoError) as caught:
        decode(path)
    assert caught.value.status == status
    assert str(caught.value)
    assert len(probe_video(path)["sha256"]) == 64, "also a broken file has an identity"
    good = write_video(tmp_path / "good.mp4", num_frames=5)
    rows = reencoded(tmp_path, path, good)
    assert [row["status"] for row in rows] == [status, "ok"]
    assert rows[0]["error"]
    assert rows[0]["file"] == ""


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError) as caught:
        VideoReader(tmp_path)
    assert caught.value.status == "missing"


def test_a_second_stream_that_is_broken_does_not_matter(tmp_path: Path) -> None:
    """Trailing rubbish after a complete video: ignored, as a player does."""
    video = whole(tmp_path, "v.mp4")
    damaged = tmp_path / "tail.mp4"
    damaged.write_bytes(video.read_bytes() + np.random.default_rng(0).bytes(500))
    frames, problem = decode(damaged)
    assert (len(frames), problem) == (NUM_FRAMES, "")
    assert "status" not in probe_video(damaged)


def test_damaged_frames_count_where_no_frame_count_is_declared(tmp_path: Path) -> None:
    video = whole(tmp_path, "v.mkv")
    told = 0
    for start in (0.2, 0.35, 0.5, 0.65, 0.8):
        damaged = garbled(video, tmp_path / f"garbled_{start}.mkv", start=start, num_bytes=60)
        with VideoReader(damaged) as reader:
            corrupt = sum(frame.picture.is_corrupt for frame in reader)
        if corrupt:
            told += 1
            assert "damaged" in reader.problem
            (row,) = reencoded(tmp_path, damaged)
            assert row["status"] == "truncated"
    assert told >= 3


def test_a_file_that_may_not_be_read_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("reelstack.ingest.probe.sha256_of", refused)
    with pytest.raises(VideoError, match="cannot be read: Permission denied") as caught:
        probe_video(whole(tmp_path, "v.mp4"))
    assert caught.value.status == "unreadable"
