"""Feature sets: one model with one windowing, every default filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reelstack.errors import ConfigError, nearest
from reelstack.files import digest
from reelstack.ingest.inputs import resolve
from reelstack.models.entry import ModelEntry
from reelstack.models.registry import model_entry

WINDOW_KEYS = ("stack_size", "step_size", "frame_interval", "fps", "total")
SHARED_KEYS = ("model", "streams", *WINDOW_KEYS, "tail", "precision", "predictions")
"""Keys of every set; the others are settings of some models."""

STORE_SETTINGS = ("size",)
"""Settings that say how the store keeps the rows, not what they are computed from."""


@dataclass(frozen=True)
class FeatureSet:
    """One named feature set with everything that decides its numbers.

    Attributes:
        name: key in the config and group in the store.
        model: registry name.
        stack_size, step_size: frames; None where only the checkpoint says.
        fps: target frame rate; None with `fps_method` "source" and with `total`.
        fps_method: "reencode", "sample" or "source".
        total: number of frames spread over the video, in place of a rate.
        settings: the model's settings, defaults filled in.
        others: as in the config.
    """

    name: str
    model: str
    streams: tuple[str, ...]
    stack_size: int | None
    step_size: int | None
    frame_interval: int
    tail: str
    precision: str
    top_k: int
    fps: float | None
    fps_method: str
    total: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def entry(self) -> ModelEntry:
        """The model's registry entry."""
        return model_entry(self.model)

    @property
    def encoding(self) -> str | None:
        """Name of the re-encoding it reads, e.g. "fps25"; None if it reads the sources."""
        return f"fps{self.fps:.10g}" if self.fps_method == "reencode" else None

    @property
    def records(self) -> dict[str, str]:
        """Component → name of the record of its checkpoint."""
        name = re.sub(r"[^\w.@-]+", "-", self.model)
        source = {k: self.settings[k] for k in ("revision",) if k in self.settings}
        if source:  # names outside of the registry may differ in what was replaced
            name = f"{name}-{digest({'model': self.model} | source)[:8]}"
        needed = self.entry.needed_components(self.streams, self.settings)
        return {component: f"{name}.{component}" for component in needed}

    @classmethod
    def from_parameters(cls, name: str, parameters: Mapping[str, Any]) -> FeatureSet:
        """The set that `parameters()` describes."""
        values = {k: v for k, v in parameters.items() if k != "version"}
        return cls(name=name, **values | {"streams": tuple(values["streams"])})

    def parameters(self) -> dict[str, Any]:
        """What goes into the rule's `params` and the rows' keys; not the set's name."""
        values = asdict(self)
        del values["name"]
        settings = {k: v for k, v in self.settings.items() if k not in STORE_SETTINGS}
        computed = {"settings": settings, "version": self.entry.version}
        return values | computed | {"streams": list(self.streams)}


def feature_set(name: str, merged: Mapping[str, Any]) -> FeatureSet:
    """The set `name` of a merged configuration.

    Raises:
        ConfigError: naming key, value, what is allowed and the nearest spelling.
    """
    given = merged["features"][name]
    where = f"features.{name}"
    try:
        entry = model_entry(given["model"])
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None
    settings = _settings(where, entry, given, merged["features"])
    fps, method = _frame_rate(where, entry, given, merged["fps"])
    top_k = given.get("predictions", merged["predictions"])["top_k"]
    classes = len(settings["labels"]) if settings.get("labels") else entry.num_classes
    return FeatureSet(
        name=name,
        model=entry.name,
        streams=_streams(where, entry, given),
        stack_size=_stack_size(where, entry, given),
        step_size=given.get("step_size") or entry.step_size,
        frame_interval=_frame_interval(where, entry, given),
        tail=given.get("tail", merged["tail"]),
        precision=given.get("precision", merged["precision"]),
        top_k=top_k if classes is None else min(top_k, classes),
        fps=fps,
        fps_method=method,
        total=given.get("total"),
        settings=settings,
    )


def _streams(where: str, entry: ModelEntry, given: Mapping[str, Any]) -> tuple[str, ...]:
    streams = tuple(given.get("streams") or entry.streams)
    if unknown := [s for s in streams if s not in entry.streams]:
        raise ConfigError(
            f"{where}.streams has {unknown[0]!r}; {entry.name} computes: "
            f"{', '.join(entry.streams)}.{nearest(unknown[0], entry.streams)}"
        )
    return streams


def _stack_size(where: str, entry: ModelEntry, given: Mapping[str, Any]) -> int | None:
    stack: int | None = given.get("stack_size") or entry.stack_size
    if entry.fixed_stack and stack != entry.stack_size:
        raise ConfigError(
            f"{where}.stack_size is {stack}; {entry.name} allows only {entry.stack_size}"
        )
    if stack is not None and stack < entry.least_stack:
        raise ConfigError(
            f"{where}.stack_size is {stack}; {entry.name} allows {entry.least_stack} or more "
            "frames: its pooling leaves nothing of fewer"
        )
    return stack


def _frame_interval(where: str, entry: ModelEntry, given: Mapping[str, Any]) -> int:
    interval: int = given.get("frame_interval") or entry.frame_interval
    if interval > 1 and "flow" in _streams(where, entry, given):
        raise ConfigError(
            f"{where}.frame_interval is {interval}; the stream flow of {entry.name} allows only 1: "
            "optical flow is that of consecutive frames"
        )
    return interval


def _settings(
    where: str, entry: ModelEntry, given: Mapping[str, Any], sets: Mapping[str, Any]
) -> dict[str, Any]:
    refused = [key for key in given if key not in SHARED_KEYS and key not in entry.settings]
    refused += [key for key in WINDOW_KEYS if entry.reads == "audio" and key in given]
    if refused:
        raise ConfigError(
            f"{where}.{refused[0]} is set, but {entry.name} has no use for it; its own keys: "
            f"{', '.join(entry.settings)}"
        )
    settings = {**entry.settings, **{k: given[k] for k in entry.settings if k in given}}
    if settings["pool"] != "mean" and not settings["layer"]:
        raise ConfigError(f"{where}.pool is {settings['pool']!r}, but there is no layer to pool")
    if isinstance(settings.get("labels"), str):
        settings["labels"] = _names(where, settings["labels"])
    if settings.get("align") is not None:
        _check_alignment(where, settings["align"], sets)
    return settings


def _names(where: str, file: str) -> list[str]:
    path = resolve(file)
    if not path.is_file():
        raise ConfigError(
            f"{where}.labels is {file!r}, which is no file; allowed: a list of class names, or a "
            f"text file with one a line (relative paths start at {str(Path.cwd())!r})"
        )
    names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not names:
        raise ConfigError(f"{where}.labels is {file!r}, which has no names; allowed: one a line")
    return names


def _check_alignment(where: str, other: str, sets: Mapping[str, Any]) -> None:
    frames = [n for n, s in sets.items() if model_entry(s["model"]).reads == "frames"]
    if other not in frames:
        raise ConfigError(
            f"{where}.align is {other!r}; allowed: a set that reads frames: "
            f"{', '.join(frames) or 'there is none'}.{nearest(other, frames)}"
        )


def _frame_rate(
    where: str, entry: ModelEntry, given: Mapping[str, Any], default: Mapping[str, Any]
) -> tuple[float | None, str]:
    if entry.reads == "audio":
        return None, "source"
    rate = given.get("fps")
    if "total" in given:
        if rate is not None:
            raise ConfigError(
                f"{where} has both fps ({rate}) and total ({given['total']}); allowed: one of them"
            )
        return None, "sample"
    own = rate if isinstance(rate, dict) else {} if rate is None else {"target": rate}
    method = own.get("method", default["method"])
    if method == "source":
        if "target" in own:
            raise ConfigError(
                f"{where}.fps.target is {own['target']}, but the method is 'source', which "
                "leaves the rate alone; allowed: method reencode or sample, or no target"
            )
        return None, method
    return float(own.get("target", default["target"])), method
