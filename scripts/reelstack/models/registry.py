"""Every model by name: what parsing, planning and documentation need, without importing torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reelstack.errors import ConfigError, nearest

if TYPE_CHECKING:
    from reelstack.models.base import Extractor


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    Attributes:
        name: as in the config; also the key in `resources/weights.yaml`.
        family: the module in `reelstack.models` that computes it, and the rule `extract_<family>`.
        version: raise it when the numbers change on purpose; every set of the model re-runs.
        stack_size, step_size: default window and step, in frames.
        feature_dim: D, per stream.
        num_classes: of the classifier behind the features.
        labels: file in `resources/` with the class names in order; None if none are published.
        gmac: 10⁹ multiply-accumulates per default window.
        streams: what the model can compute.
        components: the checkpoints it needs.
        options: what the family needs to build and feed it.
    """

    name: str
    family: str
    stack_size: int
    step_size: int
    feature_dim: int
    num_classes: int
    labels: str | None
    gmac: float
    version: int = 1
    streams: tuple[str, ...] = ("rgb",)
    components: tuple[str, ...] = ("rgb",)
    options: Mapping[str, Any] = field(default_factory=dict)


KINETICS = "labels/kinetics400.txt"
IMAGENET = "labels/imagenet1k.txt"


def _video_resnet(
    name: str,
    network: str,
    stack: int,
    gmac: float,
    *,
    num_classes: int = 400,
    labels: str | None = KINETICS,
) -> ModelEntry:
    options = {"network": network, "resize": (128, 171), "crop": 112}
    return ModelEntry(name, "r21d", stack, stack, 512, num_classes, labels, gmac, options=options)


def _resnet(depth: int, feature_dim: int, gmac: float) -> ModelEntry:
    name = f"resnet{depth}"
    return ModelEntry(name, "resnet", 1, 1, feature_dim, 1000, IMAGENET, gmac)


_ENTRIES = (
    _video_resnet("r2plus1d_18_16_kinetics", "r2plus1d_18", 16, 40.52),
    _video_resnet("r2plus1d_34_32_ig65m_ft_kinetics", "r2plus1d_34", 32, 152.36),
    _video_resnet("r2plus1d_34_8_ig65m_ft_kinetics", "r2plus1d_34", 8, 38.09),
    _video_resnet("r2plus1d_34_32_ig65m", "r2plus1d_34", 32, 152.36, num_classes=359, labels=None),
    _video_resnet("r2plus1d_34_8_ig65m", "r2plus1d_34", 8, 38.09, num_classes=487, labels=None),
    _video_resnet("r3d_18", "r3d_18", 16, 40.7),
    _video_resnet("mc3_18", "mc3_18", 16, 43.34),
    ModelEntry(
        "r2plus1d_tiny_motion",
        "r21d",
        16,
        16,
        64,
        8,
        "demo/labels.txt",
        0.11,
        options={"network": "tiny_r2plus1d", "resize": (64, 86), "crop": 56},
    ),
    _resnet(18, 512, 1.81),
    _resnet(34, 512, 3.66),
    _resnet(50, 2048, 4.09),
    _resnet(101, 2048, 7.8),
    _resnet(152, 2048, 11.51),
)

MODELS: Mapping[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}


def model_entry(name: str) -> ModelEntry:
    """The entry of a model.

    Raises:
        ConfigError: for an unknown name, with the nearest one.
    """
    if name not in MODELS:
        raise ConfigError(
            f"model is {name!r}; allowed: {', '.join(MODELS)}.{nearest(name, MODELS)}"
        )
    return MODELS[name]


def create_extractor(entry: ModelEntry) -> Extractor:
    """The model's extractor, not yet loaded; imports torch."""
    module = importlib.import_module(f"reelstack.models.{entry.family}")
    extractor: Extractor = module.build(entry)
    return extractor
