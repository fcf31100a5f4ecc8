"""What the benchmarks share: inputs, weights, tables, and facts of the machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

PARITY = Path(os.environ.get("REELSTACK_PARITY") or ROOT.parent / "shared" / "parity")
"""The parity kit: real videos and recipes for weights; the benchmarks do without where it lacks."""

REAL_VIDEOS = ("v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4")

CACHE = Path(tempfile.gettempdir(), f"reelstack-bench-{os.getuid()}")
"""Weights and generated videos; they are kept for the next run."""


def bench_videos(*names: str) -> list[Path]:
    """The kit's videos of these names, else those of the demo."""
    kit = [PARITY / "media" / name for name in names]
    if all(path.is_file() for path in kit):
        return kit
    folder = ROOT / "resources" / "demo" / "videos"
    return [path for path in sorted(folder.glob("move_*")) if path.is_file()]


def bench_weights(model: str) -> Path:
    """A checkpoint in the published layout: the kit's recipe, else a random network."""
    from reelstack.models.registry import model_entry
    from reelstack.models.weights import catalogue

    published = catalogue().get(model, {}).get("rgb")
    if published is not None and published.file:
        return ROOT / published.file
    recipe = (PARITY / "shapes" / f"{model}.json").is_file()
    path = CACHE / f"{model}{'.kit' if recipe else '.random'}.pth"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    if recipe:
        spec = importlib.util.spec_from_file_location("fill", PARITY / "fill.py")
        assert spec is not None and spec.loader is not None
        fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fill)
        fill.save(model, temporary)
    else:
        import torch
        from reelstack.models.registry import create_extractor

        torch.manual_seed(0)
        torch.save(create_extractor(model_entry(model)).build_network().state_dict(), temporary)
    temporary.replace(path)
    return path


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table, numbers to the right."""
    cells = [[str(value) for value in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    print("\n".join([line(cells[0]), line(rule), *(line(row) for row in cells[1:])]), flush=True)


def print_machine(*distributions: str) -> None:
    """One line of what the figures depend on."""
    from reelstack.media.reencode import ffmpeg_executable, ffmpeg_version

    versions = [f"{name} {metadata.version(name)}" for name in distributions]
    versions.append(f"ffmpeg {ffmpeg_version(ffmpeg_executable())}")
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores (load {load:.1f}), "
        f"Python {platform.python_version()}, {', '.join(versions)}\n",
        flush=True,
    )
