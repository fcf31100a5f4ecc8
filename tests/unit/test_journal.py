"""The journal: what is finished survives, what changed is done again."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from reelstack.errors import VIDEO_STATUSES, ReelstackError, VideoError
from reelstack.ingest.journal import Journal, finish_rows, require_unbroken

ROWS = [{"video_id": name, "content": name.upper()} for name in ("a", "b", "c")]


class Worker:
    """Counts what it is asked to do; fails for the videos it is told to."""

    def __init__(self, failures: dict[str, Exception] | None = None) -> None:
        self.failures = failures or {}
        self.done: list[str] = []

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["video_id"] in self.failures:
            raise self.failures[row["video_id"]]
        self.done.append(row["video_id"])
        return {"value": row["content"] * 2}


def finish(folder: Path, worker: Worker, rows: list | None = None, **options: Any) -> list:
    settings = {"key": lambda row: row["content"], **options}
    journal = Journal(folder / "rows.jsonl")
    return finish_rows(ROWS if rows is None else rows, journal=journal, work=worker, **settings)


def test_rows_come_back_in_order_with_key_and_status(tmp_path: Path) -> None:
    done = finish(tmp_path, Worker())
    assert done == [
        {"video_id": n, "key": n.upper(), "status": "ok", "error": "", "value": n.upper() * 2}
        for n in "abc"
    ]


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    first = finish(tmp_path, Worker())
    again = Worker()
    assert finish(tmp_path, again) == first
    assert again.done == []


def test_a_changed_key_redoes_that_row_only(tmp_path: Path) -> None:
    finish(tmp_path, Worker())
    changed = [ROWS[0], {"video_id": "b", "content": "new"}, ROWS[2]]
    worker = Worker()
    assert [row["value"] for row in finish(tmp_path, worker, changed)] == ["AA", "newnew", "CC"]
    assert worker.done == ["b"]


def test_a_lost_payload_redoes_that_row_only(tmp_path: Path) -> None:
    finish(tmp_path, Worker())
    worker = Worker()
    finish(tmp_path, worker, reusable=lambda row: row["video_id"] != "c")
    assert worker.done == ["c"]


def test_a_broken_video_is_a_row_and_not_tried_again(tmp_path: Path) -> None:
    broken = {"b": VideoError("unreadable", "no frame")}
    done = finish(tmp_path, Worker(broken))
    assert done[1] == {"video_id": "b", "key": "B", "status": "unreadable", "error": "no frame"}
    assert [row["status"] for row in done] == ["ok", "unreadable", "ok"]
    again = Worker()
    assert finish(tmp_path, again) == done
    assert again.done == []


@pytest.mark.parametrize("status", ["missing", "timeout"])
def test_what_may_pass_is_tried_again(tmp_path: Path, status: str) -> None:
    finish(tmp_path, Worker({"b": VideoError(status, "not now")}))
    worker = Worker()
    assert [row["status"] for row in finish(tmp_path, worker)] == ["ok"] * 3
    assert worker.done == ["b"]


def test_another_error_ends_the_job_and_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        finish(tmp_path, Worker({"c": OSError("disk full")}))
    assert set(Journal(tmp_path / "rows.jsonl").rows) == {"a", "b"}
    worker = Worker()
    finish(tmp_path, worker)
    assert worker.done == ["c"]


@pytest.mark.parametrize("torn", ['{"video_id": "c", "ke', "\x00\x00"])
def test_a_torn_line_costs_one_row(tmp_path: Path, torn: str) -> None:
    finish(tmp_path, Worker(), ROWS[:2])
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write(torn)
    worker = Worker()
    finish(tmp_path, worker)
    assert worker.done == ["c"]
    again = Worker()
    finish(tmp_path, again)
    assert again.done == []


def test_the_row_after_a_torn_line_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"video_id": "a", "key"')
    Journal(path).add({"video_id": "b", "key": "B", "status": "ok"})
    assert set(Journal(path).rows) == {"b"}


def test_the_end_forgets_videos_that_went_and_repeated_lines(tmp_path: Path) -> None:
    finish(tmp_path, Worker())
    finish(tmp_path, Worker(), [{"video_id": "a", "content": "new"}])
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["video_id"] for line in lines] == ["a"]


def test_workers_work_at_the_same_time_and_keep_the_order(tmp_path: Path) -> None:
    both_are_here = threading.Barrier(2, timeout=20)
    rows = [{"video_id": str(n), "content": str(n)} for n in range(8)]

    def work(row: dict[str, Any]) -> dict[str, Any]:
        both_are_here.wait()
        return {"value": row["content"]}

    done = finish_rows(
        rows,
        journal=Journal(tmp_path / "rows.jsonl"),
        key=lambda row: row["content"],
        work=work,
        workers=2,
    )
    assert [row["value"] for row in done] == [str(n) for n in range(8)]
    assert len(Journal(tmp_path / "rows.jsonl").rows) == 8


def test_many_workers_do_not_mix_lines(tmp_path: Path) -> None:
    rows = [{"video_id": f"v{n}", "content": "x" * 2000} for n in range(200)]
    journal = Journal(tmp_path / "rows.jsonl")
    journal.compact = lambda _: None  # type: ignore[method-assign]  # look at the raw lines
    finish_rows(rows, journal=journal, key=lambda _: "k", work=dict, workers=16)
    assert set(Journal(tmp_path / "rows.jsonl").rows) == {row["video_id"] for row in rows}


def test_strict_names_every_broken_video_and_the_way_out() -> None:
    rows = [{"video_id": f"v_{s}", "status": s, "error": f"why {s}"} for s in VIDEO_STATUSES]
    require_unbroken(rows, strict=False)
    require_unbroken([r for r in rows if r["status"] in ("ok", "too_short")], strict=True)
    with pytest.raises(ReelstackError) as caught:
        require_unbroken(rows, strict=True)
    text = str(caught.value)
    assert "5 broken video(s)" in text
    assert "strict: false" in text
    for status in ("truncated", "unreadable", "no_video", "missing", "timeout"):
        assert f"v_{status}: {status}: why {status}" in text
    assert "v_ok" not in text
    assert "v_too_short" not in text
