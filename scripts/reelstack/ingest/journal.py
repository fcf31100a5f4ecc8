"""The private memory of a shard's job: finished rows survive a kill and are not done again.

Snakemake deletes a job's outputs before it runs again, so what is already computed is kept in
an append-only journal (JSON lines) that is no declared output. A row is reused when its key
(content and parameters) is the same and its payload still exists.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from reelstack.errors import BROKEN_STATUSES, ReelstackError, VideoError
from reelstack.files import write_text

log = logging.getLogger(__name__)

Row = dict[str, Any]

TRANSIENT_STATUSES = ("missing", "timeout")
"""Worth another try although neither content nor parameters changed."""


class Journal:
    """Rows by `video_id`, each with its `key`; appended one by one, compacted at the end."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self.rows: dict[str, Row] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                with suppress(ValueError):  # the torn line of a killed run
                    row = json.loads(line)
                    self.rows[row["video_id"]] = row

    def valid(self, video_id: str, key: str) -> Row | None:
        """The remembered row of a video, if it was computed under this key and may be reused."""
        row = self.rows.get(video_id)
        return (
            row if row and row["key"] == key and row["status"] not in TRANSIENT_STATUSES else None
        )

    def add(self, row: Row) -> Row:
        """Remember a finished row; starts with a newline to close a torn line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a") as file:
            file.write(f"\n{json.dumps(row)}")
        self.rows[row["video_id"]] = row
        return row

    def compact(self, video_ids: Iterable[str]) -> None:
        """Forget every row but those of `video_ids`."""
        self.rows = {i: self.rows[i] for i in video_ids if i in self.rows}
        write_text(self._path, "".join(f"{json.dumps(row)}\n" for row in self.rows.values()))


def finish_rows(
    rows: list[Row],
    *,
    journal: Journal,
    key: Callable[[Row], str],
    work: Callable[[Row], Row],
    reusable: Callable[[Row], bool] = lambda _: True,
    workers: int = 1,
) -> list[Row]:
    """Do the work that the journal does not hold yet; rows in, rows out, in the same order.

    Args:
        rows: dictionaries with at least `video_id`.
        key: what decides whether a remembered row is still valid.
        work: computes a row's result columns; a `VideoError` becomes `status` and `error`,
            every other error ends the job (with what is finished remembered).
        reusable: whether a remembered row's payload is still there.
        workers: rows worked on at the same time.
    """

    def finish(row: Row) -> Row:
        done = journal.valid(row["video_id"], key(row))
        return done if done and reusable(done) else journal.add(_done(row, key(row), work))

    known = sum(journal.valid(row["video_id"], key(row)) is not None for row in rows)
    log.info("%d videos, %d of them known from an earlier run", len(rows), known)
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(finish, row) for row in rows]
        try:
            finished = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    journal.compact(row["video_id"] for row in rows)
    return finished


def _done(row: Row, key: str, work: Callable[[Row], Row]) -> Row:
    try:
        result = {"status": "ok", "error": "", **work(row)}
    except VideoError as error:
        result = {"status": error.status, "error": str(error)}
    return {"video_id": row["video_id"], "key": key, **result}


def require_unbroken(rows: Iterable[Mapping[str, Any]], *, strict: bool) -> None:
    """With `strict`, fail if a video is broken.

    Raises:
        ReelstackError: naming every broken video with its status and message.
    """
    broken = [r for r in rows if r["status"] in BROKEN_STATUSES]
    if strict and broken:
        listing = "\n".join(f"  {r['video_id']}: {r['status']}: {r['error']}" for r in broken)
        raise ReelstackError(
            f"strict: true and {len(broken)} broken video(s):\n{listing}\n"
            "Repair or remove them, or set strict: false to get them as rows with a status."
        )
