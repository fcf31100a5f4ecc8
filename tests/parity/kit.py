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
import torch
from numpy.typing import NDArray
from reelstack.models.registry import create_extractor, model_entry

KIT = Path(
    os.environ.get("REELSTACK_PARITY")
    or Path(__file__).resolve().parents[2].parent / "shared" / "parity"
)
TOLERANCE = 1e-3
SAME = 1e-6


MODEL_NAMES = {
    "i3d": "i3d_kinetics400",
    "raft": "raft_sintel",
    "s3d": "s3d_kinetics400",
    "clip_ViT-B-32": "clip/ViT-B-32",
    "timm_mobilenetv3_small_050": "timm/mobilenetv3_small_050",
}
"""The kit's name → ours, where they differ."""

WEIGHTS = {"i3d": {"rgb": "i3d_rgb", "flow": "i3d_flow", "raft": "raft-sintel"}}
"""The kit's name → component → the kit's weights; one component of its own name by default."""

NUMBERS = ("stack_size", "step_size", "side_size")
NETWORKS = {
    "mmaction2_r2plus1d_r34": "mmaction2/r2plus1d_r34_8x8x1",
    "irhum_r2plus1d_18": "r2plus1d_pytorch",
}
"""References of a network alone: from an input to feature and logits."""


@dataclass(frozen=True)
class Case:
    """One reference: a model on a video with settings as for the tool's command line."""

    path: Path
    kit_model: str
    media: Path
    settings: dict[str, str]

    @property
    def model(self) -> str:
        return MODEL_NAMES.get(self.kit_model, self.kit_model)

    @property
    def options(self) -> dict[str, Any]:
        """The settings for `extract_video`; the tool's batch size changes nothing."""
        options: dict[str, Any] = {k: int(v) for k, v in self.settings.items() if k in NUMBERS}
        if "streams" in self.settings:
            options["streams"] = [self.settings["streams"]]
        if self.kit_model == "i3d" and options.get("step_size", 0) > options.get("stack_size", 0):
            # the tool cannot leave out frames: it goes on right after a window and its extra frame
            options["step_size"] = options["stack_size"] + 1
        return options

    @property
    def label(self) -> str:
        shown = {k: v if k != "streams" else v[0] for k, v in self.options.items()}
        return " ".join(f"{k}={v}" for k, v in shown.items()) or "default"

    @property
    def components(self) -> dict[str, str]:
        """Component → the kit's weights."""
        known = WEIGHTS.get(self.kit_model)
        if known is None:
            name = "raft-sintel" if self.kit_model == "raft" else self.kit_model
            return {model_entry(self.model).components[0]: name}
        streams = self.options.get("streams", ["rgb", "flow"])
        return {
            c: w for c, w in known.items() if c in streams or (c == "raft" and "flow" in streams)
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        with np.load(self.path) as stored:
            return {name: stored[name] for name in stored.files if name != "meta"}

    @property
    def features(self) -> dict[str, NDArray[np.float32]]:
        """Stream → its features."""
        names = read_meta(self.path)["features"]
        streams = model_entry(self.model).streams
        arrays = self.arrays()
        return {name if name in streams else streams[0]: arrays[name] for name in names}


def read_meta(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        meta: dict[str, Any] = json.loads(str(stored["meta"]))
    return meta


@cache
def cases() -> list[Case]:
    """Every reference that a video gives."""
    found = []
    for path in sorted((KIT / "reference").glob("*.npz")):
        model = path.name.split("__")[0]
        if model not in NETWORKS:
            meta = read_meta(path)
            settings = {k: v for k, v in meta["settings"].items() if k != "model_name"}
            found.append(Case(path, model, KIT / "media" / meta["media"], settings))
    return found


def find_case(media: str, feature_set: dict[str, Any]) -> Case:
    """The reference of a model on a video with the settings of a feature set."""
    settings = {k: v for k, v in feature_set.items() if k in (*NUMBERS, "streams")}
    (case,) = [
        case
        for case in cases()
        if (case.model, case.media.stem, case.options) == (feature_set["model"], media, settings)
    ]
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

    def of(self, case: Case) -> dict[str, Path]:
        """Component → checkpoint."""
        return {component: self[name] for component, name in case.components.items()}

    def __getitem__(self, model: str) -> Path:
        path = self._folder / f"{model}.pth"
        if not path.exists():
            arrays = fill_module().load(model)
            expected = json.loads((KIT / "checksums.json").read_text())
            assert fill_module().digest(arrays) == expected[model], model
            fill_module().save(model, path, arrays)
        return path


def network_outputs(
    name: str, weights: Weights, device: str
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Output of a network → computed and reference."""
    extractor = create_extractor(model_entry(NETWORKS[name]))
    extractor.load({"rgb": weights[name]}, device=device, precision="fp32")
    (path,) = (KIT / "reference").glob(f"{name}__*.npz")
    with np.load(path) as stored:
        clips = torch.from_numpy(stored["input"]).to(device).transpose(1, 2)
        features = extractor.forward({"rgb": clips})
        logits = extractor.classify(features)
        assert logits is not None
        return {
            "feature": (features["rgb"].cpu().numpy(), stored["feature"]),
            "logits": (logits.cpu().numpy(), stored["logits"]),
        }


def deviation(computed: NDArray[Any], reference: NDArray[Any]) -> float:
    """max|Δ| over the reference's standard deviation; less than `TOLERANCE` passes."""
    assert computed.shape == reference.shape, (computed.shape, reference.shape)
    return float(np.abs(computed - reference).max() / reference.std())
