"""Peak memory and speed of every model on the CPU: what the rules ask for, and README's figures.

    python tests/bench/models.py [--models i3d_kinetics400 clip/ViT-B-32] [--threads 2]

Each model runs in a process of its own on one generated video of 320×240, with as many frames as
four windows take (I3D: one, optical flow: 8 pairs, sound: 8 examples), float32. Weights are random
but for the layouts that the parity kit has. Prints the peak (import and loading included), the
memory that the rule asks for, which has to be at least 1.3 times that, and seconds per window.
Exits with status 1 where a rule asks for too little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import CACHE, bench_checkpoints, print_machine, print_table

MARGIN = 1.3
RATE = 25


def make_video(path: Path, *, seconds: float) -> None:
    """Moving test picture of 320×240 at 25 fps with a tone."""
    from reelstack.media.reencode import ffmpeg_executable

    command = [ffmpeg_executable(), "-nostdin", "-y", "-loglevel", "error"]
    for source in (f"testsrc=size=320x240:rate={RATE}", "sine=frequency=440:sample_rate=44100"):
        command += ["-f", "lavfi", "-i", f"{source}:duration={seconds}"]
    subprocess.run([*command, "-c:v", "libx264", "-c:a", "aac", str(path)], check=True)


def seconds_of(model: str) -> float:
    """Length of the video that gives the model's windows."""
    from reelstack.models.registry import model_entry

    entry = model_entry(model)
    if entry.reads == "audio":
        return 8.0
    if entry.family == "flow":
        return 9 / RATE
    windows = 1 if entry.family == "i3d" else 4
    span = ((entry.stack_size or 16) + 1) * entry.frame_interval
    return windows * span / RATE


def measure(model: str, threads: int) -> None:
    """Run one model in this process and print its figures."""
    import torch
    from reelstack import extract_video

    torch.set_num_threads(threads)
    checkpoints = bench_checkpoints(model)
    video = CACHE / f"bench-{seconds_of(model):g}s.mp4"
    if not video.exists():
        make_video(video, seconds=seconds_of(model))
    times = []
    for _ in range(2):  # the first run loads and warms up
        begun = time.perf_counter()
        features = extract_video(video, model=model, weights=checkpoints, device="cpu")
        times.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak, "windows": len(features), "seconds": times[1]}))


def main() -> int:
    """Returns the number of models whose rule asks for too little memory."""
    from reelstack.models.registry import MODELS, model_entry

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=[*MODELS, "timm/mobilenetv3_small_050"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", action="store_true", help="measure in this process")
    options = parser.parse_args()
    if options.one:
        measure(options.models[0], options.threads)
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    print_machine("torch", "torchvision")
    rows: list[tuple[object, ...]] = []
    short = 0
    for model in options.models:
        command = [sys.executable, __file__, "--one", "--models", model]
        command += ["--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            rows.append((model, "failed", (done.stderr.strip().splitlines() or [""])[-1], "", ""))
            continue
        facts = json.loads(done.stdout.splitlines()[-1])
        asked = model_entry(model).memory_mb
        short += facts["peak"] * MARGIN > asked
        each = facts["seconds"] / max(1, facts["windows"])
        rows.append((model, round(facts["peak"]), asked, facts["windows"], f"{each:.2f}"))
        print(*rows[-1], file=sys.stderr, flush=True)
    print_table(("model", "peak MB", "rule MB", "windows", "s per window with loading"), rows)
    return short


if __name__ == "__main__":
    sys.exit(main())
