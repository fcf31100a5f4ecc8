"""Peak memory of a 2-hour video against a 10-second one, for every stage that reads videos.

    python tests/bench/memory.py [--hours 2] [--models r2plus1d_tiny_motion]
    python tests/bench/memory.py --models resnet18 --hours 0.1

The stages are those of the workflow, each in a process of its own: probe, re-encode (the worker
and ffmpeg apart), extraction with fps.method `sample` and one thread (R(2+1)D at 25 fps; ResNet,
which has a row per frame, at 7 fps, so that the short video fills a batch too). Exits with status
1 if the peaks differ by more than 300 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, bench_set, bench_weights, print_machine, print_table

GOAL_MB = 300
FPS = 25
SHORT_SECONDS = 10
VIDEO_ID = "video"


def make_video(path: Path, *, seconds: float) -> None:
    """A moving test picture of 96×72 at 25 fps; one minute is encoded, the rest are copies."""
    from reelstack.media.reencode import ffmpeg_executable

    minute = path.with_name(f"part-{path.name}")
    length = min(60.0, seconds)
    quiet = [ffmpeg_executable(), "-nostdin", "-y", "-loglevel", "error"]
    source = ["-f", "lavfi", "-i", f"testsrc=size=96x72:rate={FPS}:duration={length}"]
    encoder = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    subprocess.run([*quiet, *source, *encoder, str(minute)], check=True)
    copies = ["-stream_loop", str(round(seconds / length) - 1), "-i", str(minute), "-c", "copy"]
    subprocess.run([*quiet, *copies, str(path)], check=True)
    minute.unlink()


def run_stage(stage: str, folder: str) -> None:
    """Do one stage in this process and print its peaks; `folder` holds what earlier ones wrote."""
    os.chdir(folder)
    if stage == "probe":
        from reelstack.ingest.probe_shard import probe_shard

        probe_shard(plan="plan.csv", table="probe.csv", threads=1, strict=True)
    elif stage == "reencode":
        from reelstack.config import load_config
        from reelstack.media.reencode_shard import reencode_shard

        config = load_config({"videos": ["."], "features": {"any": {"model": "resnet18"}}})
        reencode_shard(
            probe_table="probe.csv",
            table="reencode/s.csv",
            videos="reencoded/s",
            fps=float(FPS),
            encoder=config.merged["fps"]["encoder"],
            keep=True,
            threads=1,
            strict=True,
        )
    else:
        print(f"{extract(stage)} windows", file=sys.stderr, flush=True)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"own": own / 1024, "children": children / 1024}))


def extract(model: str) -> int:
    """Run the extraction job; how many windows it gave."""
    from reelstack.extract.parts import Part
    from reelstack.extract.shard import extract_shard
    from reelstack.models.registry import model_entry
    from reelstack.models.weights import Request, ensure_checkpoint, write_record

    rate = 7 if model_entry(model).family == "resnet" else FPS
    request = Request(model, "rgb", local=str(bench_weights(model)))
    write_record("weights.json", request, ensure_checkpoint(request))
    extract_shard(
        name="bench",
        parameters=bench_set(model, fps={"target": rate, "method": "sample"}).parameters(),
        probe_table="probe.csv",
        reencode_table=None,
        videos=None,
        weights_records=["weights.json"],
        aligned=None,
        part=f"features/{model}/s.npz",
        gpus=0,
        threads=1,
        strict=True,
    )
    return int(Part(f"features/{model}/s.npz").rows[0]["num_windows"])


def prepare(folder: Path, *, seconds: float) -> None:
    """A folder with one video and its shard's plan."""
    from reelstack.files import csv_text
    from reelstack.ingest.shards import PLAN_COLUMNS

    folder.mkdir()
    video = folder / "video.mp4"
    make_video(video, seconds=seconds)
    row = {"video_id": VIDEO_ID, "path": str(video), "fingerprint": "1:1"}
    (folder / "plan.csv").write_text(csv_text([row], PLAN_COLUMNS))


def peaks(stage: str, folder: Path) -> tuple[dict[str, float], float]:
    """Peak MB of a stage in a process of its own, and the seconds it took."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1]), time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--models", default="r2plus1d_tiny_motion")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage, arguments.folder)
        return 0
    print_machine("torch", "av", "numpy")
    long_seconds = arguments.hours * 3600
    models = arguments.models.split(",")
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as temporary:
        short, long = Path(temporary, "short"), Path(temporary, "long")
        prepare(short, seconds=SHORT_SECONDS)
        prepare(long, seconds=long_seconds)
        for stage in ("probe", "reencode", *models):
            reference, _ = peaks(stage, short)
            found, seconds = peaks(stage, long)
            parts = ("own", "children") if stage == "reencode" else ("own",)
            for part in parts:
                name = {"own": stage, "children": "ffmpeg of reencode"}[part]
                difference = found[part] - reference[part]
                worst = max(worst, difference)
                rows.append(
                    [
                        name if stage not in models else f"extract {stage}",
                        f"{reference[part]:.0f}",
                        f"{found[part]:.0f}",
                        f"{difference:+.0f}",
                        f"{found[part] / reference[part]:.2f}",
                        f"{seconds:.0f}" if part == "own" else "",
                    ]
                )
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    header = ["peak RSS, MB", f"{SHORT_SECONDS} s video", f"{arguments.hours:g} h video"]
    print_table([*header, "difference", "ratio", "seconds (long)"], rows)
    met = worst <= GOAL_MB
    print(f"\nlargest difference {worst:+.0f} MB; goal {GOAL_MB} MB: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
