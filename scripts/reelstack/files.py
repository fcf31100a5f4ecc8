"""Small helpers for files: atomic writes, digests, CSV rows, links."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
"""The root of the checkout that this package is (editably) installed from."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block succeeds.

    The name carries host and process, so two jobs that write the same file never share it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]  # names may be 255 bytes long
    temporary = path.with_name(f".{short}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` atomically as UTF-8; bytes of odd file names survive."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def write_text_if_changed(path: Path | str, text: str) -> bool:
    """Write `text` unless the file holds it already, so that its mtime tells of real changes."""
    path = Path(path)
    if path.exists() and path.read_bytes() == text.encode("utf-8", "surrogateescape"):
        return False
    write_text(path, text)
    return True


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV text with a header; keys that are not in `columns` are left out."""
    lines: list[str] = []

    class _Sink:
        def write(self, line: str) -> None:
            lines.append(line)

    writer = csv.DictWriter(_Sink(), columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV file as dictionaries of strings."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def digest(value: Any) -> str:
    """Sixteen hex digits of the sha256 of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_of(path: Path | str) -> str:
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link, or a copy where there are no links."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def state_folder(output: Path | str) -> Path:
    """The private folder of the job that writes `output`; Snakemake knows nothing of it."""
    return Path(output).parent / ".state" / Path(output).stem


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it ends with the process, however that ends."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as handle:  # "w" would change its modification time
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
