"""Runs the real workflow in a folder of its own and tells which jobs it executed."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from media_factory import write_video
from reelstack import open_store
from reelstack.models.entries import ENTRIES, OPEN_ENTRIES
from reelstack.store.manifest import read_manifest

REPO = Path(__file__).resolve().parents[2]
MODEL = "r2plus1d_tiny_motion"
CHECKPOINT = REPO / "resources" / "demo" / "motion_r2plus1d.safetensors"
CHECKOUT_PARTS = ("Snakefile", "workflow", "profiles", "envs", "scripts", "config", "resources")

BASIC_CONFIG: dict[str, Any] = {
    "videos": ["videos"],
    "shard": {"max_videos": 6},
    "predictions": {"top_k": 2},
    "features": {
        "encoded": {"model": MODEL},
        "sampled": {"model": MODEL, "fps": {"method": "sample"}, "tail": "pad", "step_size": 12},
    },
}
"""One set that reads re-encoded videos, and one that reads the sources."""

FAMILIES = sorted({entry.family for entry in (*ENTRIES, *OPEN_ENTRIES)})
EXTRACTIONS = tuple(f"extract_{family}" for family in FAMILIES)
FETCHES = ("fetch_weights", "fetch_hf_weights", "fetch_timm_weights")
RULES = ("probe", "reencode", *FETCHES, *EXTRACTIONS, "aggregate")


@dataclass(frozen=True)
class Outcome:
    """How a run of snakemake ended and what it said."""

    returncode: int
    output: str

    @property
    def jobs(self) -> dict[str, int]:
        """Rule → number of its jobs that were started (or planned, in a dry run)."""
        rules = re.findall(r"^(?:local)?rule (\w+):$", self.output, re.MULTILINE)
        return {rule: count for rule, count in Counter(rules).items() if rule != "all"}

    @property
    def nothing_to_do(self) -> bool:
        return "Nothing to be done" in self.output and not self.jobs

    @property
    def most_extractions_at_once(self) -> int:
        """The largest number of extraction jobs that were under way together."""
        event = r"^(?:local)?rule (extract)_|^Finished jobid: \d+ \(Rule: (?:extract)_"
        running = most = 0
        for match in re.finditer(event, self.output, re.MULTILINE):
            running += 1 if match[1] else -1
            most = max(most, running)
        return most


def jobs(**counts: int) -> dict[str, int]:
    """The expected `Outcome.jobs`; misspelt rules are refused."""
    assert set(counts) <= set(RULES), counts
    return counts


class Project:
    """A working folder with a config and videos, and the checkout that works on it."""

    def __init__(self, folder: Path, *, checkout: Path = REPO) -> None:
        self.folder = folder
        self.checkout = checkout
        self.results = folder / "results"

    @property
    def config(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((self.folder / "my.yaml").read_text())
        return content

    def configure(self, **changes: Any) -> None:
        """Write the config: the present one (or `BASIC_CONFIG`) with top-level keys replaced."""
        exists = (self.folder / "my.yaml").exists()
        content = self.config if exists else copy.deepcopy(BASIC_CONFIG)
        self.folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(content | changes, allow_unicode=True)
        (self.folder / "my.yaml").write_text(text, encoding="utf-8")

    def add_videos(self, *names: str, first_seed: int = 0, num_frames: int = 40) -> None:
        """Clips of 64 x 48 at 20 frames/s, each with a picture of its own."""
        for seed, name in enumerate(names, start=first_seed):
            write_video(
                self.folder / "videos" / f"{name}.mp4",
                num_frames=num_frames,
                fps=20,
                seed=seed,
                options={"preset": "ultrafast"},
            )

    def copy_to(self, folder: Path, *, checkout: Path | None = None) -> Project:
        """The same project elsewhere, with all modification times."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, checkout=checkout or self.checkout)

    def command(self, *options: str, cores: int = 2, gpus: int | None = 0) -> list[str]:
        command = [sys.executable, "-m", "snakemake", "-s", str(self.checkout / "Snakefile")]
        command += ["--directory", str(self.folder), "--cores", str(cores)]
        if (self.folder / "my.yaml").exists():
            command += ["--configfile", str(self.folder / "my.yaml")]
        if gpus is not None:
            command += ["--resources", f"gpu={gpus}"]
        return [*command, *options]

    def environment(self, **changes: str) -> dict[str, str]:
        """The process' own, with this checkout's library first."""
        return os.environ | {"PYTHONPATH": str(self.checkout / "scripts")} | changes

    def start(self, *options: str, **settings: Any) -> subprocess.Popen[str]:
        """Start snakemake as the leader of a process group of its own."""
        environment = self.environment(**settings.pop("environment", {}))
        return subprocess.Popen(
            self.command(*options, **settings),
            cwd=self.folder.parent,  # neither the checkout nor the working directory
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def attempt(self, *options: str, **settings: Any) -> Outcome:
        """Run snakemake to its end, whatever that is."""
        process = self.start(*options, **settings)
        output, _ = process.communicate()
        return Outcome(process.returncode, output)

    def run(self, *options: str, **settings: Any) -> Outcome:
        """Run snakemake; it has to succeed."""
        outcome = self.attempt(*options, **settings)
        assert outcome.returncode == 0, outcome.output
        return outcome

    def plan(self) -> Outcome:
        """A dry run."""
        return self.run("--dry-run")

    @property
    def manifest(self) -> pd.DataFrame:
        """Indexed by (video_id, feature_set)."""
        table = read_manifest(self.results / "manifest.csv")
        return table.set_index(["video_id", "feature_set"]).sort_index()

    @property
    def provenance(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.results / "provenance.json").read_text())
        return content

    def row(self, video_id: str, feature_set: str = "encoded") -> pd.Series:
        return self.manifest.loc[(video_id, feature_set)]

    def stored(self) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        """(set, video) → every array of the video as the store holds it, plus its first row."""
        content: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        starts = self.manifest["row_start"]
        for name, group in open_store(self.results / "store.zarr").items():
            for video_id, features in group.items():
                arrays = {k: getattr(features, k) for k in ("time_start", "time_end")}
                arrays |= features.streams | {"valid_frames": features.valid_frames}
                if features.predictions is not None:
                    arrays["score"] = features.predictions.score
                    arrays["class_index"] = features.predictions.class_index
                arrays["row_start"] = np.array(starts[video_id, name])
                content[name, video_id] = arrays
        return content

    def journals(self, below: str = ".") -> dict[tuple[str, str], str]:
        """(private journal, video) → its row as text; a row that is being written is left out."""
        rows: dict[tuple[str, str], str] = {}
        for journal in sorted((self.results / below).rglob(".state/*/rows.jsonl")):
            name = journal.relative_to(self.results).as_posix()
            for line in journal.read_text().splitlines():
                if line.endswith("}"):
                    rows[name, json.loads(line)["video_id"]] = line
        return rows

    def computed(self) -> dict[str, set[str]]:
        """Set → videos whose features its last jobs computed, as the jobs' logs say."""
        found: dict[str, set[str]] = {}
        for log in self.folder.glob("logs/extract_*/*/*.log"):
            videos = re.findall(r"^\S+ \S+ (.+): \d+ windows, \w+$", log.read_text(), re.MULTILINE)
            found.setdefault(log.parent.name, set()).update(videos)
        return found

    def forget_logs(self) -> None:
        """So that `computed` tells of the next run alone."""
        shutil.rmtree(self.folder / "logs", ignore_errors=True)

    def file_facts(self, *patterns: str) -> dict[str, tuple[int, bytes]]:
        """Relative path → modification time and content of the files below the results."""
        found = [p for pattern in patterns or ("**/*",) for p in self.results.glob(pattern)]
        return {
            path.relative_to(self.results).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
            for path in found
            if path.is_file()
        }


def assert_same_rows(
    after: dict[tuple[str, str], dict[str, np.ndarray]],
    before: dict[tuple[str, str], dict[str, np.ndarray]],
) -> None:
    """Everything that was stored before is stored still, bit by bit and in the same place."""
    assert before.keys() <= after.keys()
    for key, arrays in before.items():
        for name, values in arrays.items():
            assert after[key][name].dtype == values.dtype
            np.testing.assert_array_equal(after[key][name], values, err_msg=f"{key} {name}")


def copy_checkout(folder: Path) -> Path:
    """A copy of what the workflow needs of this checkout."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    for name in CHECKOUT_PARTS:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)
    return folder
