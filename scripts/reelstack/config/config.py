"""The configuration of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstack.config.schema import merged_with_defaults
from reelstack.config.sets import FeatureSet, feature_set
from reelstack.errors import ConfigError, nearest
from reelstack.files import CHECKOUT
from reelstack.ingest.inputs import resolve
from reelstack.models.registry import model_entry
from reelstack.models.weights import Request, not_a_checkpoint


@dataclass(frozen=True)
class Config:
    """The validated configuration.

    Attributes:
        merged: the configuration with every default filled in, as plain data.
        feature_sets: by name.
        weights: model → component → local checkpoint; only what the config names.
    """

    merged: dict[str, Any]
    feature_sets: dict[str, FeatureSet]
    weights: dict[str, dict[str, str]]

    @property
    def output(self) -> str:
        """The folder of all results."""
        return str(self.merged["output"])

    @property
    def encodings(self) -> dict[str, float]:
        """Name → frame rate of every re-encoding that a feature set reads."""
        sets = self.feature_sets.values()
        return {s.encoding: s.fps for s in sets if s.encoding is not None and s.fps is not None}

    @property
    def checkpoints(self) -> dict[str, Request]:
        """Record → the checkpoint to have, of every set and component in use."""
        requests = {}
        for of_set in self.feature_sets.values():
            for component, record in of_set.records.items():
                local = self.weights.get(of_set.model, {}).get(component)
                requests[record] = Request.of(of_set.entry, component, of_set.settings, local)
        return requests

    def sets_of(self, family: str) -> list[str]:
        """Names of the feature sets that a model family computes."""
        return [n for n, s in self.feature_sets.items() if s.entry.family == family]


def load_config(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration and fill in defaults.

    Raises:
        ConfigError: listing every problem with key, value, what is allowed, nearest spelling.
    """
    merged = merged_with_defaults(raw)
    sets = {name: feature_set(name, merged) for name in merged["features"]}
    return Config(merged, sets, dict(_local_weights(merged["weights"])))


def _local_weights(given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    for model, value in given.items():
        try:
            entry = model_entry(str(model))
        except ConfigError as error:
            raise ConfigError(f"weights.{model}: unknown model; {error}") from None
        components = entry.components
        paths = value if isinstance(value, dict) else {components[0]: value}
        for component, path in paths.items():
            if component not in components:
                raise ConfigError(
                    f"weights.{model}.{component}: unknown component; allowed: "
                    f"{', '.join(components)}.{nearest(component, components)}"
                )
            if missing := not_a_checkpoint(resolve(path), entry):
                raise ConfigError(
                    f"weights.{model}.{component} is {path!r}, which is {missing} (relative paths "
                    f"start at {str(Path.cwd())!r}, then at {str(CHECKOUT)!r})"
                )
        yield model, {c: str(resolve(p)) for c, p in paths.items()}
