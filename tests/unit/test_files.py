"""Atomic writes, tables with odd bytes, links, digests."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from reelstack.files import (
    atomic_path,
    csv_text,
    digest,
    link_or_copy,
    locked,
    read_csv,
    sha256_of,
    state_folder,
    write_text,
    write_text_if_changed,
)


def test_atomic_path_replaces_on_success_only(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == target.parent, "a rename across file systems is not atomic"
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["file.txt"]


def test_atomic_path_leaves_old_content_and_nothing_else_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_atomic_path_fails_if_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_names_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 127 + "x")  # 255 bytes
    write_text(target, "text")
    assert target.read_text() == "text"


def test_unchanged_text_keeps_the_mtime(tmp_path: Path) -> None:
    target = tmp_path / "plan.csv"
    assert write_text_if_changed(target, "a\n") is True
    os.utime(target, ns=(1, 1))
    assert write_text_if_changed(target, "a\n") is False
    assert target.stat().st_mtime_ns == 1
    assert write_text_if_changed(target, "b\n") is True
    assert target.stat().st_mtime_ns > 1
    assert target.read_text() == "b\n"


def test_link_or_copy_links(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "sub" / "b"
    source.write_bytes(b"content")
    link_or_copy(source, target)
    assert target.samefile(source)
    link_or_copy(source, target)  # again: replaced, not an error
    assert os.listdir(target.parent) == ["b"]


def test_link_or_copy_copies_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"content")
    link_or_copy(source, target)
    assert target.read_bytes() == b"content"
    assert not target.samefile(source)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "comma, and \"quotes\" and 'more'",
        "two\nlines",
        "  spaces  ",
        "-dash",
        "ünïcödé 视频 🎬",
        os.fsdecode(b"not \xff utf-8"),
        "",
    ],
)
def test_csv_gives_back_what_went_in(tmp_path: Path, text: str) -> None:
    rows = [{"path": text, "other": "1"}, {"path": "next", "other": text}]
    write_text(tmp_path / "t.csv", csv_text(rows, ("path", "other")))
    assert read_csv(tmp_path / "t.csv") == rows


def test_csv_leaves_out_unnamed_columns_and_fills_missing_ones() -> None:
    assert csv_text([{"a": 1, "x": 2}, {"b": 3}], ("a", "b")) == "a,b\n1,\n,3\n"


def test_digest_ignores_key_order_and_sees_every_value() -> None:
    first = digest({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert first == digest({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert len(first) == 16
    assert int(first, 16) >= 0
    others = [
        {"a": 2, "b": {"c": [1, 2], "d": None}},
        {"a": 1, "b": {"c": [2, 1], "d": None}},
        {"a": 1, "b": {"c": [1, 2]}},
        {"a": "1", "b": {"c": [1, 2], "d": None}},
    ]
    assert len({first, *map(digest, others)}) == 5


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == known


def test_state_folder_is_hidden_beside_the_output() -> None:
    assert state_folder("results/probe/s000001.csv") == Path("results/probe/.state/s000001")


def test_lock_keeps_the_second_out_until_the_first_is_done(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_a_removed_folder_is_made_again(tmp_path: Path) -> None:
    write_text(tmp_path / "sub" / "file", "one")
    shutil.rmtree(tmp_path / "sub")
    write_text(tmp_path / "sub" / "file", "two")
    assert (tmp_path / "sub" / "file").read_text() == "two"
