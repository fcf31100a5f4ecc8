"""What a result came from."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reelstack
from reelstack import provenance
from reelstack.provenance import git_commit, library_versions, run_provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "x")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    return tmp_path


def test_versions_are_those_installed() -> None:
    versions = library_versions("numpy", "no-such-distribution")
    assert versions == {"numpy": np.__version__}


def test_the_commit(checkout: Path) -> None:
    commit = git_commit()
    assert commit == git(checkout, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", commit)


def test_changes_of_tracked_files_are_told_and_others_are_not(checkout: Path) -> None:
    clean = git_commit()
    (checkout / "results").write_text("untracked")
    assert git_commit() == clean
    (checkout / "file").write_text("two")
    assert git_commit() == f"{clean}+changes"


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() == "unknown"


def test_the_record_is_plain_data() -> None:
    record = run_provenance()
    assert json.loads(json.dumps(record)) == record
    assert record["reelstack"] == reelstack.__version__
    assert {"git_commit", "python", "platform", "versions"} <= record.keys()
    assert {"snakemake", "zarr", "numpy"} <= record["versions"].keys()
