"""The job of probing one shard."""

from __future__ import annotations

from reelstack import versions
from reelstack.files import csv_text, locked, read_csv, state_folder, write_text
from reelstack.ingest.journal import Journal, Row, finish_rows, require_unbroken
from reelstack.ingest.probe import PROBE_COLUMNS, probe_video


def probe_shard(*, plan: str, table: str, threads: int, strict: bool) -> None:
    """Write the shard's probe table; videos whose fingerprint is known are not read again."""

    def key(row: Row) -> str:
        return f"{versions.PROBE}:{row['path']}:{row['fingerprint']}"

    folder = state_folder(table)
    with locked(folder / "lock"):
        rows = read_csv(plan)
        paths = {row["video_id"]: row["path"] for row in rows}
        done = finish_rows(
            rows,
            journal=Journal(folder / "rows.jsonl"),
            key=key,
            work=lambda row: probe_video(row["path"]),
            workers=threads,
        )
        require_unbroken(done, strict=strict)
        facts = [row | {"path": paths[row["video_id"]]} for row in done]
        write_text(table, csv_text(facts, PROBE_COLUMNS))
