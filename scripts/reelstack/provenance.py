"""What a result came from: versions, commit, tools."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

import reelstack
from reelstack.files import CHECKOUT


def library_versions(*names: str) -> dict[str, str]:
    """Installed versions of distributions; those that are not installed are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str:
    """The checkout's commit, with "+changes" where tracked files differ; "unknown" without git."""

    def git(*arguments: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run_provenance() -> dict[str, Any]:
    """Facts of the aggregating process: tool, libraries, commit, platform."""
    return {
        "reelstack": reelstack.__version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": library_versions("snakemake", "zarr", "numpy", "pandas"),
    }
