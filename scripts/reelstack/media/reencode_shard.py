"""The job of re-encoding one shard."""

from __future__ import annotations

import os
import shutil
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

    def key(row: Row) -> str:
        facts = [row[k] for k in ("video_id", "sha256", "status", "error")]
        return digest([facts, fps, encoder, versions.REENCODE])

    def encode(row: Row) -> Row:
        if not row["frames_declared"]:
            raise VideoError(row["status"], row["error"])
        result = reencode_video(
            row["path"],
            folder / f"{key(row)}.mp4",
            fps=fps,
            encoder=encoder,
            width=int(row["width"]),
            height=int(row["height"]),
            frames_declared=int(row["frames_declared"]),
            duration_seconds=float(row["duration_seconds"] or 0),
        )
        if row["status"] == "truncated":
            result |= {"status": row["status"], "error": result["error"] or row["error"]}
        return result | {"file": _file_name(row["video_id"]) or f"{key(row)}.mp4"}

    folder = state_folder(table)
    with locked(folder / "lock"):
        done = finish_rows(
            read_csv(probe_table),
            journal=Journal(folder / "rows.jsonl"),
            key=key,
            work=encode,
            reusable=lambda row: "file" not in row or (folder / f"{row['key']}.mp4").exists(),
            workers=threads,
        )
        require_unbroken(done, strict=strict)
        _publish(done, folder, Path(videos), keep=keep)
        write_text(table, csv_text(done, REENCODE_COLUMNS))


def _file_name(video_id: str) -> str:
    """The readable name of a re-encoded video; empty if file systems would refuse it."""
    too_long = any(len(os.fsencode(part)) > 240 for part in video_id.split("/"))
    return "" if too_long else f"{video_id}.mp4"


def _publish(rows: list[Row], private: Path, public: Path, *, keep: bool) -> None:
    """Put the encoded videos under their readable names and forget those of no row."""
    shutil.rmtree(public, ignore_errors=True)
    public.mkdir(parents=True)
    for row in rows:
        if "file" in row:
            link_or_copy(private / f"{row['key']}.mp4", public / row["file"])
    wanted = {f"{row['key']}.mp4" for row in rows} if keep else set()
    for file in private.glob("*.mp4"):
        if file.name not in wanted:
            file.unlink()
