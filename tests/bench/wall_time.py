"""Wall time against the reference loop, on the same videos with the same weights (CPU, fp32).

    python tests/bench/wall_time.py [--runs 3] [--models resnet50] [--threads 2]

The reference loop does what video_features does: for R(2+1)D it decodes the whole video, makes all
of it one float tensor, transforms that, and runs one window per forward; for ResNet it transforms
frame by frame with PIL and runs one frame per forward. Both sides are whole processes, imports and
checkpoint included, started in turn. The last columns check that they compute the same.
Exits with status 1 if they do not (max|d|/std ≥ 1e-3).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import (
    REAL_VIDEOS,
    ROOT,
    bench_set,
    bench_videos,
    bench_weights,
    print_machine,
    print_table,
)

MODELS = "r2plus1d_18_16_kinetics,r2plus1d_34_8_ig65m_ft_kinetics,resnet50"
TOLERANCE = 1e-3


def reelstack_features(model: str, weights: Path, videos: list[Path]) -> list[Any]:
    import torch
    from reelstack.extract.api import open_extractor, run_video
    from reelstack.extract.rows import Source

    feature_set = bench_set(model)
    extractor = open_extractor(feature_set, weights=weights, device="cpu")
    threads = torch.get_num_threads()
    features = [run_video(Source(v, threads=threads), extractor, feature_set) for v in videos]
    return [f.streams["rgb"] for f in features]


def reference_features(model: str, weights: Path, videos: list[Path]) -> list[Any]:
    import torch
    from reelstack.models.registry import create_extractor, model_entry

    entry = model_entry(model)
    network = create_extractor(entry).build_network({}).eval()  # type: ignore[attr-defined]
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        if entry.family == "resnet":
            return [framewise(network, video) for video in videos]
        return [windowed(network, video, entry.stack_size, entry.step_size) for video in videos]


def windowed(network: Any, video: Path, stack: int, step: int) -> Any:
    """R(2+1)D: the whole video as one float tensor, then window by window."""
    import numpy as np
    import torch
    from torch.nn.functional import interpolate

    mean = torch.tensor((0.43216, 0.394666, 0.37645)).view(3, 1, 1, 1)
    std = torch.tensor((0.22803, 0.22145, 0.216989)).view(3, 1, 1, 1)
    frames = torch.from_numpy(np.stack(list(decoded(video))))
    clip = frames.permute(3, 0, 1, 2).float() / 255
    clip = interpolate(clip, size=(128, 171), mode="bilinear", align_corners=False)
    clip = ((clip - mean) / std)[:, :, 8:120, 30:142]
    starts = range(0, clip.shape[1] - stack + 1, step)
    rows = [network(clip[None, :, start : start + stack]) for start in starts]
    return torch.cat(rows).numpy()


def framewise(network: Any, video: Path) -> Any:
    """ResNet: frame by frame through PIL, one frame per forward."""
    import torch
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    rows = [network(transform(Image.fromarray(frame))[None]) for frame in decoded(video)]
    return torch.cat(rows).numpy()


def decoded(video: Path) -> Any:
    import av

    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


SIDES = {"reference": reference_features, "reelstack": reelstack_features}


def work(side: str, model: str, threads: int, output: Path, videos: list[Path]) -> None:
    """One side in this process; writes the features and prints the times."""
    started = time.perf_counter()
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    weights = bench_weights(model)
    imported = time.perf_counter()
    features = SIDES[side](model, weights, videos)
    finished = time.perf_counter()
    np.savez(output, *features)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    facts = {
        "inside": finished - imported,
        "imports": imported - started,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    print(json.dumps(facts))


def start(side: str, model: str, threads: int, output: Path, videos: list[Path]) -> dict[str, Any]:
    """One side in a process of its own: its times, and the whole process on the clock."""
    command = [sys.executable, __file__, "--side", side, "--models", model, "--output", str(output)]
    command += ["--threads", str(threads), "--videos", *map(str, videos)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    started = time.perf_counter()
    answer = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    whole = time.perf_counter() - started
    return json.loads(answer.stdout.splitlines()[-1]) | {"whole": whole}


def largest_difference(folder: Path) -> float:
    """max|d|/std over the videos, between what the two sides wrote."""
    import numpy as np

    with np.load(folder / "reference.npz") as expected, np.load(folder / "reelstack.npz") as found:
        differences = []
        for name in expected.files:
            if expected[name].shape != found[name].shape:
                return float("inf")
            difference = np.abs(found[name] - expected[name]).max()
            differences.append(float(difference / expected[name].std()))
    return max(differences)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="processes of each side, in turn")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--videos", nargs="+", type=Path, default=bench_videos(*REAL_VIDEOS))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        work(options.side, options.models, options.threads, options.output, options.videos)
        return 0
    print_machine("torch", "torchvision", "av")
    print(f"{', '.join(v.name for v in options.videos)}; {options.threads} threads; ", end="")
    print(f"median of {options.runs} processes of each side, in turn\n")
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for model in options.models.split(","):
            bench_weights(model)
            runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
            for _ in range(options.runs):
                for side, results in runs.items():
                    output = Path(temporary, f"{side}.npz")
                    results.append(start(side, model, options.threads, output, options.videos))
            worst = max(worst, difference := largest_difference(Path(temporary)))
            for measure in ("whole", "inside", "cpu", "peak_mb"):
                reference, own = (
                    statistics.median(r[measure] for r in runs[side]) for side in SIDES
                )
                ratios = [
                    a[measure] / b[measure]
                    for a, b in zip(runs["reference"], runs["reelstack"], strict=True)
                ]
                spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
                cells = [f"{reference:.1f}", f"{own:.1f}", f"{reference / own:.2f}", spread]
                rows.append([model, measure, *cells, f"{difference:.1e}"])
                print(*rows[-1], file=sys.stderr, flush=True)
    header = ["model", "measure", "reference", "reelstack", "ratio", "ratio of pairs"]
    print_table([*header, "max Δ/std"], rows)
    return 0 if worst < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
