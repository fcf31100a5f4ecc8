"""The append-only shard plan: which video is worked on with which others, for ever.

`shards.csv` (video_id, shard, size_bytes) only grows: a video keeps its shard, also while it is
absent. `plan/<shard>.csv` (video_id, path, fingerprint) lists the shard's present videos; it is
written only when its bytes change, so it serves as the input of the shard's jobs: a new,
changed or removed video is seen there and nowhere else.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from reelstack.errors import ReelstackError
from reelstack.files import csv_text, locked, read_csv, write_text, write_text_if_changed
from reelstack.ingest.inputs import Video

ASSIGNMENT_COLUMNS = ("video_id", "shard", "size_bytes")
PLAN_COLUMNS = ("video_id", "path", "fingerprint")


def update_plan(
    videos: Iterable[Video], folder: Path | str, *, max_videos: int, max_bytes: int
) -> list[str]:
    """Assign new videos, bring the shards' plan files up to date, return the live shards.

    New videos fill the last shard first and then open new ones. Idempotent: the same videos
    give the same bytes, so a dry run may do it too.

    Args:
        folder: the output folder; holds `shards.csv` and `plan/`.
        max_videos, max_bytes: bounds of a shard; one larger video makes a shard of its own.

    Returns:
        The shards with at least one present video, sorted.
    """
    folder = Path(folder)
    with locked(folder / ".state" / "plan.lock"):
        present = {video.video_id: video for video in videos}
        assigned = _read_assignment(folder / "shards.csv")
        new = _assign(present, assigned, max_videos=max_videos, max_bytes=max_bytes)
        _append_assignment(folder / "shards.csv", new)
        members: dict[str, list[Video]] = defaultdict(list)
        for video_id in sorted(present):
            members[assigned[video_id][0]].append(present[video_id])
        for shard, rows in members.items():
            plan_rows = [
                {"video_id": v.video_id, "path": v.path, "fingerprint": v.fingerprint} for v in rows
            ]
            write_text_if_changed(
                folder / "plan" / f"{shard}.csv", csv_text(plan_rows, PLAN_COLUMNS)
            )
        live = sorted(members)
        write_text_if_changed(folder / "plan" / "live.txt", "".join(f"{s}\n" for s in live))
    return live


def live_shards(folder: Path | str) -> list[str]:
    """The shards as the main process found them; what job processes read instead of planning.

    Raises:
        ReelstackError: if no main process has planned in this folder yet.
    """
    path = Path(folder) / "plan" / "live.txt"
    if not path.exists():
        raise ReelstackError(f"{path} is missing: start snakemake in this working directory first")
    return path.read_text().split()


def request_store(folder: Path | str) -> None:
    """Change `plan/store.stamp`, an input of `aggregate`, if the store was deleted.

    The store cannot be a declared output (Snakemake would delete it before each append), so
    this is how its loss is noticed. The content has to change: Snakemake compares checksums, a
    new modification time alone re-runs nothing.
    """
    folder = Path(folder)
    stamp, manifest = folder / "plan" / "store.stamp", folder / "manifest.csv"
    if manifest.exists() and not (folder / "store.zarr").exists():
        write_text_if_changed(stamp, f"lost after {manifest.stat().st_mtime_ns}\n")
    elif not stamp.exists():
        write_text(stamp, "\n")


def _read_assignment(path: Path) -> dict[str, tuple[str, int]]:
    """video_id → (shard, size_bytes); a torn last line of a killed run is cut off the file."""
    if not path.exists():
        return {}
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)
    return {r["video_id"]: (r["shard"], int(r["size_bytes"])) for r in read_csv(path)}


def _assign(
    present: dict[str, Video],
    assigned: dict[str, tuple[str, int]],
    *,
    max_videos: int,
    max_bytes: int,
) -> list[dict[str, str | int]]:
    """Extend `assigned` by the videos it lacks; return their rows."""
    last = max((shard for shard, _ in assigned.values()), default="s000000")
    sizes = [size for shard, size in assigned.values() if shard == last]
    count, total = len(sizes), sum(sizes)
    rows: list[dict[str, str | int]] = []
    for video_id in sorted(present.keys() - assigned.keys()):
        size = present[video_id].size_bytes
        if count and (count >= max_videos or total + size > max_bytes):
            last = f"s{int(last[1:]) + 1:06d}"
            count = total = 0
        count, total = count + 1, total + size
        assigned[video_id] = (last, size)
        rows.append({"video_id": video_id, "shard": last, "size_bytes": size})
    return rows


def _append_assignment(path: Path, rows: list[dict[str, str | int]]) -> None:
    if not rows:
        return
    header, _, body = csv_text(rows, ASSIGNMENT_COLUMNS).partition("\n")
    is_new = not path.exists() or path.stat().st_size == 0
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{header}\n{body}" if is_new else body)
        file.flush()
        os.fsync(file.fileno())
