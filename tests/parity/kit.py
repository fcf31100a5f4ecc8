"""The parity kit: what an established tool computed, and the rule that decides."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reelstack.models.registry import MODELS

KIT = Path(
    os.environ.get("REELSTACK_PARITY")
    or Path(__file__).resolve().parents[2].parent / "shared" / "parity"
)
TOLERANCE = 1e-3
SAME = 1e-6


@dataclass(frozen=True)
class Case:
    """One reference: a model on a video with settings as for the tool's command line."""

    path: Path
    model: str
    media: Path
    settings: dict[str, str]

    @property
    def windowing(self) -> dict[str, int]:
        """The settings that change the features; the tool's batch size does not."""
        return {k: int(v) for k, v in self.settings.items() if k in ("stack_size", "step_size")}

    @property
    def label(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.windowing.items()) or "default"

    def arrays(self) -> dict[str, NDArray[Any]]:
        with np.load(self.path) as stored:
            return {name: stored[name] for name in stored.files if name != "meta"}

    @property
    def features(self) -> NDArray[np.float32]:
        (name,) = read_meta(self.path)["features"]
        return self.arrays()[name]


def read_meta(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        meta: dict[str, Any] = json.loads(str(stored["meta"]))
    return meta


@cache
def cases() -> list[Case]:
    """Every reference of a model in the registry."""
    found = []
    for path in sorted((KIT / "reference").glob("*.npz")):
        model = path.name.split("__")[0]
        if model in MODELS:
            meta = read_meta(path)
            settings = {k: v for k, v in meta["settings"].items() if k != "model_name"}
            found.append(Case(path, model, KIT / "media" / meta["media"], settings))
    return found


def find_case(model: str, media: str) -> Case:
    (case,) = [c for c in cases() if c.model == model and c.media.stem == media]
    return case


@cache
def fill_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_fill", KIT / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Weights:
    """The kit's checkpoints, written when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, model: str) -> Path:
        path = self._folder / f"{model}.pth"
        if not path.exists():
            arrays = fill_module().load(model)
            expected = json.loads((KIT / "checksums.json").read_text())
            assert fill_module().digest(arrays) == expected[model], model
            fill_module().save(model, path, arrays)
        return path


def deviation(computed: NDArray[Any], reference: NDArray[Any]) -> float:
    """max|Δ| over the reference's standard deviation; less than `TOLERANCE` passes."""
    assert computed.shape == reference.shape, (computed.shape, reference.shape)
    return float(np.abs(computed - reference).max() / reference.std())
