"""Planning 10,000 videos while the Snakefile is parsed: seconds, imports, and a dry run.

    python tests/bench/plan.py [--videos 10000] [--runs 3]

Each figure is the median over fresh processes. The first plan assigns every video to a shard,
later ones find nothing new. Exits with status 1 if a plan takes 2 s or more, or if torch was
imported. The reference of the ratio is a bare walk over the same folders with a stat per file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, print_machine, print_table

GOAL_SECONDS = 2.0
CONFIG = """\
videos: [videos]
features:
  motion: {model: r2plus1d_tiny_motion}
"""


def make_videos(folder: Path, count: int) -> None:
    """Empty files `group/subject/clip.mp4`, 50 to a folder."""
    for number in range(count):
        path = folder / f"group{number // 1000:03d}/subject{number // 50:04d}/clip{number:06d}.mp4"
        if number % 50 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def plan_once(folder: str) -> None:
    """Import, plan and report in this process."""
    os.chdir(folder)
    import yaml

    raw = yaml.safe_load(CONFIG)
    started = time.perf_counter()
    from reelstack.workflow import prepare

    imported = time.perf_counter()
    _, shards = prepare(raw, plan=True)
    planned = time.perf_counter()
    times = {"import": imported - started, "plan": planned - imported}
    print(json.dumps(times | {"shards": len(shards), "torch": "torch" in sys.modules}))


def walk(folder: Path) -> float:
    started = time.perf_counter()
    for parent, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(parent, name))
    return time.perf_counter() - started


def planned(folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--folder", str(folder)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def dry_run(folder: Path) -> float:
    (folder / "config.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "--cores", "2"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(folder / "config.yaml")]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        plan_once(arguments.folder)
        return 0
    print_machine("snakemake")
    seconds: dict[str, list[float]] = {}
    used_torch = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_videos(folder / "videos", arguments.videos)
        for _ in range(arguments.runs):
            shutil.rmtree(folder / "results", ignore_errors=True)
            first, later = planned(folder), planned(folder)
            used_torch |= bool(first["torch"] or later["torch"])
            for name, value in (
                ("walk and stat, nothing else", walk(folder / "videos")),
                ("import reelstack.workflow", later["import"]),
                ("first plan", first["plan"]),
                ("later plan, nothing new", later["plan"]),
                ("snakemake -n, whole process", dry_run(folder)),
            ):
                seconds.setdefault(name, []).append(value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = medians["walk and stat, nothing else"]
    print(f"{arguments.videos} videos, {first['shards']:.0f} shards, {arguments.runs} runs\n")
    rows = [
        [name, f"{value:.2f}", f"{max(seconds[name]):.2f}", f"{value / reference:.1f}"]
        for name, value in medians.items()
    ]
    print_table(["step", "median s", "largest s", "ratio to the walk"], rows)
    slowest = max(medians["first plan"], medians["later plan, nothing new"])
    met = slowest < GOAL_SECONDS and not used_torch
    print(
        f"\nslower plan {slowest:.2f} s, goal {GOAL_SECONDS:g} s; "
        f"torch {'IMPORTED' if used_torch else 'not imported'}: {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
