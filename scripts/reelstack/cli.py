"""`python -m reelstack`: models, show, summary, export."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from reelstack.errors import ReelstackError
from reelstack.features import Predictions
from reelstack.models.registry import MODELS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (1 for a bad input, with its message)."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], Iterator[str]] = options.command
    try:
        for line in command(options):
            print(line)
    except ReelstackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reelstack", description="Deep features of whole video datasets."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    models = commands.add_parser("models", help="table of the models that can be used")
    models.set_defaults(command=_models)

    show = commands.add_parser("show", help="features and predictions of one video")
    show.add_argument("video", help="path of a video")
    show.add_argument("--model", required=True, help="a name from `models`")
    show.add_argument("--weights", help="local checkpoint in the published format")
    show.add_argument("--stack-size", type=int, help="frames per window (default: the model's)")
    show.add_argument("--step-size", type=int, help="frames between windows (default: the model's)")
    show.add_argument("--fps", type=float, help="pick frames at this rate (default: every frame)")
    show.add_argument("--tail", choices=("drop", "pad"), default="drop")
    show.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    show.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    show.add_argument("--top-k", type=int, default=5, help="predictions per window (default: 5)")
    show.set_defaults(command=_show)

    summary = commands.add_parser("summary", help="what a run found, video by video")
    summary.add_argument("output", nargs="?", default="results", help="output folder of the run")
    summary.set_defaults(command=_summary)

    export = commands.add_parser("export", help="a file per video, named as video_features does")
    export.add_argument("store", help="path of the store, e.g. results/store.zarr")
    export.add_argument("--format", choices=("npy", "pickle"), default="npy")
    export.add_argument("--out", default="export", help="folder to write to (default: export)")
    export.add_argument("--set", action="append", help="only this feature set (repeatable)")
    export.set_defaults(command=_export)
    return parser


def _models(_: argparse.Namespace) -> Iterator[str]:
    from reelstack.models.weights import weights_states

    rows = []
    for entry in MODELS.values():
        window = f"{entry.stack_size}/{entry.step_size}"
        licence, state = weights_states(entry)
        rows.append(
            (entry.name, window, entry.feature_dim, entry.num_classes, entry.gmac, licence, state)
        )
    headers = ("model", "stack/step", "dim", "classes", "GMAC/window", "licence", "weights")
    yield tabulate(rows, headers, disable_numparse=True)


def _show(options: argparse.Namespace) -> Iterator[str]:
    from reelstack.extract.api import extract_video

    features = extract_video(
        options.video,
        model=options.model,
        weights=options.weights,
        stack_size=options.stack_size,
        step_size=options.step_size,
        fps=options.fps,
        tail=options.tail,
        device=options.device,
        precision=options.precision,
        top_k=options.top_k,
    )
    facts = features.info
    yield (
        f"{options.video}: {facts['frames']} frames at {facts['fps']:g} fps, "
        f"{facts['width']}×{facts['height']}, status {features.status}"
        + (f" ({features.error})" if features.error else "")
    )
    for stream, values in features.streams.items():
        yield f"{stream}: shape {values.shape}, {values.dtype}"
        if len(values):
            yield (
                f"  max {values.max():.4f}  mean {values.mean():.4f}  "
                f"min {values.min():.4f}  std {values.std():.4f}"
            )
    for window in range(len(features)):
        start, end = features.time_start[window], features.time_end[window]
        yield f"{start:8.2f} – {end:.2f} s"
        if features.predictions is not None:
            scores = features.predictions.score[window]
            for name, score in zip(features.predictions.names(window), scores, strict=True):
                yield f"    {score:.3f}  {name}"


def _summary(options: argparse.Namespace) -> Iterator[str]:
    from reelstack.store.manifest import read_manifest
    from reelstack.store.reader import open_store

    folder = Path(options.output)
    manifest = read_manifest(folder / "manifest.csv")
    store = open_store(folder / "store.zarr")
    groups = dict(store)
    rows = []
    for row in manifest.to_dict("records"):
        top = _majority(groups[row["feature_set"]][row["video_id"]].predictions)
        facts = (row[k] for k in ("video_id", "feature_set", "num_windows", "status"))
        rows.append((*facts, top, row["error"]))
    yield tabulate(
        rows,
        ("video", "set", "windows", "status", "top prediction", "reason"),
        maxcolwidths=[40] * 6,
    )
    counts_text = ", ".join(f"{n} {s}" for s, n in manifest["status"].value_counts().items())
    yield f"\n{manifest['video_id'].nunique()} videos, {len(manifest)} rows: {counts_text}"
    yield f"manifest   {folder / 'manifest.csv'}"
    yield f"features   {folder / 'store.zarr'}  (sets: {', '.join(store)})"
    yield f"provenance {folder / 'provenance.json'}, config {folder / 'config.yaml'}"


def _majority(predictions: Predictions | None) -> str:
    """The class that most windows put first, with their number."""
    if predictions is None or not len(predictions.score):
        return ""
    names = Counter(predictions.names(window)[0] for window in range(len(predictions.score)))
    ((name, count),) = names.most_common(1)
    return f"{name} ({count} of {names.total()} windows)"


def _export(options: argparse.Namespace) -> Iterator[str]:
    from reelstack.store.export import export_store

    count = export_store(
        options.store, Path(options.out), file_format=options.format, sets=options.set
    )
    yield f"{count} files written to {options.out}"
