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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reelstack.config import FeatureSet

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


KIT_WEIGHTS = {
    "i3d_kinetics400": {"rgb": "i3d_rgb", "flow": "i3d_flow", "raft": "raft-sintel"},
    "raft_sintel": {"flow": "raft-sintel"},
    "raft_kitti": {"flow": "raft-sintel"},
    "s3d_kinetics400": {"rgb": "s3d"},
    "vggish": {"audio": "vggish"},
    "clip/ViT-B-32": {"rgb": "clip_ViT-B-32"},
    "mmaction2/r2plus1d_r34_8x8x1": {"rgb": "mmaction2_r2plus1d_r34"},
    "mmaction2/r2plus1d_r34_32x2x1": {"rgb": "mmaction2_r2plus1d_r34"},
    "r2plus1d_pytorch": {"rgb": "irhum_r2plus1d_18"},
    "timm/mobilenetv3_small_050": {"rgb": "timm_mobilenetv3_small_050"},
}
"""Model → component → the kit's recipe, where it has another name than the model."""


def bench_weights(model: str) -> Path:
    """The only checkpoint of a model, see `bench_checkpoints`."""
    (path,) = bench_checkpoints(model).values()
    return path


def bench_checkpoints(model: str) -> dict[str, Path]:
    """Component → checkpoint in the published layout: the kit's recipe, else a random network."""
    from reelstack.models.registry import model_entry
    from reelstack.models.weights import catalogue

    published = catalogue().get(model, {}).get("rgb")
    if published is not None and published.file:
        return {"rgb": ROOT / published.file}
    recipes = KIT_WEIGHTS.get(model, {model_entry(model).components[0]: model})
    return {component: _checkpoint(model, recipe) for component, recipe in recipes.items()}


def _checkpoint(model: str, recipe: str) -> Path:
    known = (PARITY / "shapes" / f"{recipe}.json").is_file()
    name = recipe if known else model.replace("/", "-")
    path = CACHE / f"{name}{'.kit' if known else '.random'}.pth"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    if known:
        spec = importlib.util.spec_from_file_location("fill", PARITY / "fill.py")
        assert spec is not None and spec.loader is not None
        fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fill)
        fill.save(recipe, temporary)
    else:
        import torch

        torch.manual_seed(0)
        torch.save(_random_state(model), temporary)
    temporary.replace(path)
    return path


def _random_state(model: str) -> dict[str, Any]:
    """The state dict of a random network, named as published."""
    from reelstack.models.registry import create_extractor, model_entry
    from torchvision.models import optical_flow

    if model in ("raft_large", "raft_small"):
        return dict(getattr(optical_flow, model)().state_dict())
    if model == "pwc_sintel":
        from reelstack.models.networks.pwc import PWCNet

        return dict(PWCNet().state_dict())
    extractor: Any = create_extractor(model_entry(model))
    state = extractor.build_network({}).state_dict()
    return {extractor.published_key(key): value for key, value in state.items()}


def bench_set(model: str, **settings: Any) -> FeatureSet:
    """A feature set that reads every frame of a video, unless `settings` say otherwise."""
    from reelstack.config import load_config

    sets = {"bench": {"model": model, "fps": {"method": "source"}, **settings}}
    return load_config({"videos": ["."], "features": sets}).feature_sets["bench"]


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
