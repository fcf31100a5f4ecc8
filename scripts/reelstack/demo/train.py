"""Train the demo's tiny R(2+1)D on procedural motion: ``python -m reelstack.demo.train``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from reelstack.demo.dataset import augment, held_out_clip, pool_clip
from reelstack.demo.motion import CLASSES
from reelstack.models.networks.r21d_tiny import tiny_r2plus1d
from reelstack.models.r21d import normalise

_BATCH = 32
_PEAK_LR = 3e-3
_WEIGHT_DECAY = 0.02
# Scene seeds of one run: [seed * stride, ...) for training, the other two blocks for evaluation.
_SEED_STRIDE = 10_000_000
_HELD_OUT_MIXED, _HELD_OUT_CODED = 5_000_000, 6_000_000
_MIXED_CLIPS, _CODED_CLIPS = 480, 800


def train_network(pool: Tensor, *, steps: int, seed: int) -> nn.Module:
    """Train on a (N, 3, 16, 56, 56) uint8 pool whose clip i shows class i mod 8."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 4])
    network = tiny_r2plus1d(len(CLASSES)).to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_PEAK_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=_PEAK_LR, total_steps=steps, pct_start=0.2
    )
    recent: list[float] = []
    for step in range(1, steps + 1):
        chosen = rng.integers(len(pool), size=_BATCH)
        drawn = [augment(pool[i], int(i) % len(CLASSES), rng=rng) for i in chosen]
        clips = normalise(torch.stack([clip for clip, _ in drawn]))
        target = torch.tensor([label for _, label in drawn])
        logits = network(clips.contiguous(memory_format=torch.channels_last_3d))
        loss = nn.functional.cross_entropy(logits, target)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        recent.append(loss.item())
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}: loss {np.mean(recent[-100:]):.4f}", flush=True)
    return network.eval()


@torch.inference_mode()
def confusion(network: nn.Module, clips: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count (true, predicted) classes for (N, 3, 16, 56, 56) clips, clip i of class i mod 8."""
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for start in range(0, len(clips), _BATCH):
        logits = network(torch.from_numpy(clips[start : start + _BATCH]))
        for offset, predicted in enumerate(logits.argmax(1).tolist()):
            table[(start + offset) % len(CLASSES), predicted] += 1
    return table


def report(title: str, table: NDArray[np.int64]) -> float:
    """Print the accuracy per class and the confusion matrix; return the overall accuracy."""
    accuracy = float(np.trace(table) / table.sum())
    print(
        f"\n{title}: accuracy {accuracy:.4f} on {table.sum()} clips (rows true, columns predicted)"
    )
    for name, row, index in zip(CLASSES, table, range(len(CLASSES)), strict=True):
        counts = " ".join(f"{count:5d}" for count in row)
        print(f"{name:24s} {row[index] / max(row.sum(), 1):7.4f}  {counts}")
    return accuracy


def save_weights(network: nn.Module, path: Path, *, metadata: dict[str, str]) -> None:
    """Write the float32 state dict as safetensors under a temporary name, then rename it."""
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Not save_file, which makes the file readable by its owner alone.
        partial_path.write_bytes(save(state, metadata=metadata))
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> None:
    """Render the pool, train, evaluate on held-out scenes and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--clips", type=int, default=3200, help="clips rendered for training")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    for name in ("steps", "clips", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}; it must be 1 or more")
    if args.seed < 0 or args.clips > _HELD_OUT_MIXED:
        parser.error(f"--seed must be 0 or more and --clips at most {_HELD_OUT_MIXED}")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(args.threads)
    command = shlex.join(["python", "-m", "reelstack.demo.train", *(argv or sys.argv[1:])])
    run(args, command=command)


def run(args: argparse.Namespace, *, command: str) -> None:
    """Carry out a training run with the parsed options of `main`."""
    base = args.seed * _SEED_STRIDE
    started = time.monotonic()
    with ProcessPoolExecutor(
        args.threads,
        get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as workers:
        pool = np.stack(list(workers.map(pool_clip, range(base, base + args.clips), chunksize=20)))
        print(
            f"rendered {args.clips} clips in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        network = train_network(torch.from_numpy(pool), steps=args.steps, seed=args.seed)
        print(f"trained after {time.monotonic() - started:.0f} s", flush=True)
        accuracies = {}
        for coded, offset, count in (
            (False, _HELD_OUT_MIXED, _MIXED_CLIPS),
            (True, _HELD_OUT_CODED, _CODED_CLIPS),
        ):
            seeds = range(base + offset, base + offset + count)
            make = partial(held_out_clip, coded=coded)
            clips = np.stack(list(workers.map(make, seeds, chunksize=20)))
            kind = "240x320 x264 CRF 23-30" if coded else "mixed sizes and frame rates"
            title = f"held-out scenes {seeds.start}-{seeds.stop - 1}, {kind}"
            accuracies[coded] = report(title, confusion(network, clips))
    print(f"finished after {time.monotonic() - started:.0f} s")
    metadata = {
        "classes": ",".join(CLASSES),
        "accuracy": f"{accuracies[True]:.4f}",
        "accuracy_mixed": f"{accuracies[False]:.4f}",
        "seed": str(args.seed),
        "command": command,
        "torch_version": torch.__version__,
    }
    save_weights(network, args.out, metadata=metadata)
    print(f"wrote {args.out} ({args.out.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
