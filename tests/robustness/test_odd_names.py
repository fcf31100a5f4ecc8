"""Names as people and other systems make them, through the real decoder and the real ffmpeg."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from media_factory import write_video
from reelstack.files import csv_text, read_csv
from reelstack.ingest.inputs import find_videos
from reelstack.ingest.probe_shard import probe_shard
from reelstack.ingest.shards import update_plan
from reelstack.media.frames import VideoReader
from reelstack.media.reencode_shard import reencode_shard
from reelstack.store.manifest import read_manifest, write_manifest

ENCODER = {"codec": "libx264", "preset": "ultrafast", "crf": 18, "pix_fmt": "yuv420p"}

NAMES = [
    "plain",
    "with space",
    "  spaces  around  ",
    "-leading-dash",
    "--help",
    "it's",
    'say "hi"',
    "ünïcödé 视频 🎬",
    "line\nbreak",
    "tab\there",
    "a,b;c&d|e$(f)`g`",
    "colon:http:x",
    "percent%03d",
    "[brackets]{braces}*?",
    "back\\slash",
    "pipe:1",
    "'; rm -rf x; '",
    "dots...in.it",
    os.fsdecode(b"caf\xe9"),
    "n" * 240,
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plan, probe and re-encode a folder with all the names, in a working directory of its own."""
    folder = tmp_path_factory.mktemp("odd names")
    content = write_video(folder / "template.mp4", num_frames=4).read_bytes()
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name in NAMES:
            path = Path("in", "sub -folder", f"{name}.mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        update_plan(find_videos(["in"]), "out", max_videos=99, max_bytes=10**9)
        probe_shard(plan="out/plan/s000000.csv", table="out/probe.csv", threads=2, strict=True)
        reencode_shard(
            probe_table="out/probe.csv",
            table="out/reencode.csv",
            videos="out/videos",
            fps=5.0,
            encoder=ENCODER,
            keep=True,
            threads=2,
            strict=True,
        )
    finally:
        os.chdir(before)
    return folder


def test_every_name_is_probed_and_re_encoded(run: Path) -> None:
    probed = read_csv(run / "out/probe.csv")
    assert {Path(row["path"]).stem for row in probed} == set(NAMES)
    assert {row["status"] for row in probed} == {"ok"}
    encoded = read_csv(run / "out/reencode.csv")
    assert {row["status"] for row in encoded} == {"ok"}
    assert [row["video_id"] for row in encoded] == [row["video_id"] for row in probed]


def test_ids_are_readable_and_files_carry_them(run: Path) -> None:
    for row in read_csv(run / "out/reencode.csv"):
        row["video_id"].encode("utf-8")  # no stray bytes
        file = run / "out/videos" / row["file"]
        assert file.is_file()
        assert row["file"] == f"{row['video_id']}.mp4"
        with VideoReader(file) as reader:
            assert sum(1 for _ in reader) == 1


def test_no_name_was_taken_for_an_option_or_a_command(run: Path) -> None:
    assert sorted(os.listdir(run)) == ["in", "out", "template.mp4"]


def test_sources_are_opened_by_their_bytes(run: Path) -> None:
    for row in read_csv(run / "out/probe.csv"):
        with VideoReader(run / row["path"], sample_fps=25.0) as reader:
            assert sum(1 for _ in reader) == 4


@pytest.mark.parametrize("video_id", ["nan", "NA", "", "001", "1e5", "True", "null", 'q"q', "a\nb"])
def test_manifest_texts_stay_texts(tmp_path: Path, video_id: str) -> None:
    row = {"video_id": video_id, "feature_set": "null", "status": "ok", "error": "NA"}
    write_manifest(tmp_path / "m.csv", [row | {"path": f"{video_id}.mp4", "sha256": "0" * 64}])
    (back,) = read_manifest(tmp_path / "m.csv").to_dict("records")
    assert (back["video_id"], back["feature_set"]) == (video_id, "null")
    assert (back["error"], back["sha256"]) == ("NA", "0" * 64)


def test_csv_tables_survive_each_name(tmp_path: Path) -> None:
    rows = [{"video_id": name, "path": f"in/{name}.mp4"} for name in NAMES]
    text = csv_text(rows, ("video_id", "path"))
    (tmp_path / "t.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_csv(tmp_path / "t.csv") == rows
