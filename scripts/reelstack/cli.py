"""`python -m reelstack`: models, show, summary, export."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from reelstack.errors import ConfigError, ReelstackError
from reelstack.features import Predictions
from reelstack.models.entries import OPEN_ENTRIES
from reelstack.models.entry import ModelEntry
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
    models.add_argument("--markdown", action="store_true", help="as the table in README.md")
    models.set_defaults(command=_models)

    _add_show(commands)

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


def _add_show(commands: Any) -> None:
    show = commands.add_parser("show", help="features and predictions of one video")
    show.add_argument("video", help="path of a video")
    show.add_argument("--model", required=True, help="a name from `models`")
    show.add_argument(
        "--weights",
        action="append",
        metavar="[COMPONENT=]PATH",
        help="local checkpoint in the published format (repeatable, a component each)",
    )
    show.add_argument("--stack-size", type=int, help="frames per window (default: the model's)")
    show.add_argument("--step-size", type=int, help="frames between windows (default: the model's)")
    show.add_argument("--fps", type=float, help="pick frames at this rate (default: every frame)")
    show.add_argument("--tail", choices=("drop", "pad"), default="drop")
    show.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    show.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    show.add_argument("--top-k", type=int, default=5, help="predictions per window (default: 5)")
    show.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another key of a feature set, e.g. flow=pwc or layer=layer4 (repeatable)",
    )
    show.set_defaults(command=_show)


def _models(options: argparse.Namespace) -> Iterator[str]:
    from reelstack.models.weights import weights_states

    headers = ["model", "stack/step", "dim", "classes", "GMAC/window", "licence", "extra"]
    rows = []
    for entry in (*MODELS.values(), *OPEN_ENTRIES):
        licence, state = weights_states(entry)
        row = [*_model_facts(entry), licence, entry.extra or ""]
        rows.append(row if options.markdown else [*row, state])
    if options.markdown:
        rows = [[f"`{row[0]}`", *row[1:]] for row in rows]
    else:
        headers.append("weights")
    form = "github" if options.markdown else "simple"
    yield tabulate(rows, headers, tablefmt=form, disable_numparse=True)
    if not options.markdown:
        yield "\n·: none, or the checkpoint decides; for optical flow the frame size"
        yield "origins: resources/weights.yaml; extra: pip install 'reelstack[EXTRA]'"


def _model_facts(entry: ModelEntry) -> list[str]:
    """Name, stack/step, dim, classes and GMAC, in words."""
    window = f"{_known(entry.stack_size)}/{_known(entry.step_size)}"
    return [
        entry.name,
        "0.96 s" if entry.reads == "audio" else window,
        "2×H×W" if entry.family == "flow" else _known(entry.feature_dim),
        "yours" if "labels" in entry.settings else _known(entry.num_classes or None),
        _known(entry.gmac),
    ]


def _known(value: float | None) -> str:
    return "·" if value is None else f"{value:g}"


def _show(options: argparse.Namespace) -> Iterator[str]:
    from reelstack.extract.api import extract_video

    named = "model device stack_size step_size fps tail precision top_k".split()
    keys: Any = {key: getattr(options, key) for key in named}
    keys |= {"weights": _weights(options.weights)} | dict(map(_key_value, options.option))
    features = extract_video(options.video, **keys)
    reason = f" ({features.error})" if features.error else ""
    yield f"{options.video}: {_read(features.info)}, status {features.status}{reason}"
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


def _weights(given: Sequence[str] | None) -> Any:
    if given is None or (len(given) == 1 and "=" not in given[0]):
        return given[0] if given else None
    return dict(text.partition("=")[::2] for text in given)


def _key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--option is {text!r}; allowed: KEY=VALUE")
    return key, yaml.safe_load(value)


def _read(info: dict[str, Any]) -> str:
    """What was read of a file, in words."""
    if "frames" not in info:
        return f"{info['audio_seconds']:g} s of sound at {info['audio_rate']} Hz"
    size = f"{info['width']}×{info['height']}"
    return f"{info['frames']} frames at {info['fps']:g} fps, {size}"


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
