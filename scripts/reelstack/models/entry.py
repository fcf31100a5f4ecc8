"""What is known of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COMMON_SETTINGS: Mapping[str, Any] = {
    "layer": None,
    "pool": "mean",
    "dtype": "float32",
}
"""What every set can ask for, with its default."""

FRAME_SETTINGS: Mapping[str, Any] = {"keep_frames": False}
"""What every set that reads frames can ask for besides."""


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    Attributes:
        name: as in the config; also the key in `resources/weights.yaml`.
        family: the module in `reelstack.models` that computes it, and the rule `extract_<family>`.
        version: raise it when the numbers change on purpose; every set of the model re-runs.
        stack_size, step_size: default window and step, in frames; None: the checkpoint says.
        least_stack: the smallest window that the network can read.
        frame_interval: default distance of a window's frames, in frames.
        feature_dim: D, per stream; None: the checkpoint says.
        num_classes: of the classifier behind the features, 0: none; None: the checkpoint says.
        labels: file in `resources/` with the class names in order; None if none are published.
        gmac: 10⁹ multiply-accumulates per default window; None: it depends on the checkpoint.
        memory_mb: what a job asks for, from what the CPU was measured to need
            (docs/performance.md); each further attempt asks for as much more.
        streams: what the model can compute.
        components: the checkpoints it may need (see `needed_components`).
        reads: "frames" or "audio".
        options: what the family needs to build and feed it.
        settings: keys that a set of this model can have, with their defaults.
        extra: the optional dependencies (`pip install reelstack[<extra>]`) that it needs.
        timestamps: what video_features' `timestamps_ms` mean: "start" or "end" of a row, None: it
            writes none.
    """

    name: str
    family: str
    stack_size: int | None
    step_size: int | None
    feature_dim: int | None
    num_classes: int | None
    labels: str | None
    gmac: float | None
    memory_mb: int = 4000
    version: int = 1
    least_stack: int = 1
    frame_interval: int = 1
    streams: tuple[str, ...] = ("rgb",)
    components: tuple[str, ...] = ("rgb",)
    reads: str = "frames"
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: str | None = None
    timestamps: str | None = None

    def __post_init__(self) -> None:
        """Every entry takes the common settings."""
        common = {**COMMON_SETTINGS, **(FRAME_SETTINGS if self.reads == "frames" else {})}
        object.__setattr__(self, "settings", common | dict(self.settings))

    @property
    def fixed_stack(self) -> bool:
        """Whether the model reads windows of one size only."""
        return bool(self.options.get("fixed_stack"))

    def needed_components(
        self, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """The checkpoints that these streams need: their own, and that of the flow they read."""
        flow = settings.get("flow")
        return tuple(
            name
            for name in self.components
            if name in streams or (name == flow and "flow" in streams)
        )
