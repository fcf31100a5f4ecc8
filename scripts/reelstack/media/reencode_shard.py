"""The job of re-encoding one shard."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstack import versions
from reelstack.errors import VideoError
from reelstack.files import (
    csv_text,
    digest,
    link_or_copy,
    locked,
    read_csv,
    state_folder,
    write_text,
)
from reelstack.ingest.journal import Journal, Row, finish_rows, require_unbroken
from reelstack.media.reencode import REENCODE_COLUMNS, reencode_video


@dataclass(frozen=True)
class Encoding:
    """One re-encoding: its settings, and the private folder that its videos are written to."""

    fps: float
    encoder: dict[str, Any]
    folder: Path

    def key(self, row: Row) -> str:
        """What a re-encoded video depends on."""
        facts = [row[k] for k in ("video_id", "sha256", "status", "error")]
        return digest([facts, self.fps, self.encoder, versions.REENCODE])

    def file(self, row: Row) -> Path:
        """Where the video of a finished row is."""
        return self.folder / f"{row['key']}.mp4"

    def encode(self, row: Row) -> Row:
        """Re-encode the video of a row of the probe table."""
        if not row["frames_declared"]:
            raise VideoError(row["status"], row["error"])
        key = self.key(row)
        result = reencode_video(
            row["path"],
            self.folder / f"{key}.mp4",
            fps=self.fps,
            encoder=self.encoder,
            width=int(row["width"]),
            height=int(row["height"]),
            frames_declared=int(row["frames_declared"]),
            duration_seconds=float(row["duration_seconds"] or 0),
        )
        if row["status"] == "truncated":
            result |= {"status": row["status"], "error": result["error"] or row["error"]}
        return result | {"file": _file_name(row["video_id"]) or f"{key}.mp4"}


def reencode_shard(
    *,
    probe_table: str,
    table: str,
    videos: str,
    fps: float,
    encoder: dict[str, Any],
    keep: bool,
    threads: int,
    strict: bool,
) -> None:
    """Write a shard's re-encoded videos and their table; what is valid is not encoded again.

    Args:
        videos: the declared folder, which Snakemake empties before the job.
        keep: hold a second link to each video in the private folder, so that a new video does
            not cost the others.
        threads: videos encoded at the same time.
    """
    encoding = Encoding(fps, encoder, state_folder(table))
    with locked(encoding.folder / "lock"):
        done = finish_rows(
            read_csv(probe_table),
            journal=Journal(encoding.folder / "rows.jsonl"),
            key=encoding.key,
            work=encoding.encode,
            reusable=lambda row: "file" not in row or encoding.file(row).exists(),
            workers=threads,
        )
        require_unbroken(done, strict=strict)
        _publish(done, encoding, Path(videos), keep=keep)
        write_text(table, csv_text(done, REENCODE_COLUMNS))


def _file_name(video_id: str) -> str:
    """The readable name of a re-encoded video; empty if file systems would refuse it."""
    too_long = any(len(os.fsencode(part)) > 240 for part in video_id.split("/"))
    return "" if too_long else f"{video_id}.mp4"


def _publish(rows: list[Row], encoding: Encoding, public: Path, *, keep: bool) -> None:
    """Put the encoded videos under their readable names and forget those of no row."""
    shutil.rmtree(public, ignore_errors=True)
    public.mkdir(parents=True)
    encoded = [row for row in rows if "file" in row]
    for row in encoded:
        link_or_copy(encoding.file(row), public / row["file"])
    wanted = {encoding.file(row) for row in encoded} if keep else set()
    for file in encoding.folder.glob("*.mp4"):
        if file not in wanted:
            file.unlink()
