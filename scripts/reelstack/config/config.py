"""The configuration: validated against a closed schema, with defaults and models filled in."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from reelstack.errors import ConfigError, nearest
from reelstack.files import CHECKOUT
from reelstack.ingest.inputs import resolve
from reelstack.models.registry import MODELS, ModelEntry, model_entry

SCHEMA_PATH = CHECKOUT / "workflow" / "schemas" / "config.schema.yaml"


@dataclass(frozen=True)
class FeatureSet:
    """One named feature set with everything that decides its numbers.

    Attributes:
        name: key in the config and group in the store.
        model: registry name.
        fps: target frame rate; None with `fps_method` "source".
        fps_method: "reencode", "sample" or "source".
        others: as in the config.
    """

    name: str
    model: str
    streams: tuple[str, ...]
    stack_size: int
    step_size: int
    tail: str
    precision: str
    top_k: int
    fps: float | None
    fps_method: str

    @property
    def entry(self) -> ModelEntry:
        """The model's registry entry."""
        return MODELS[self.model]

    @property
    def encoding(self) -> str | None:
        """Name of the re-encoding it reads, e.g. "fps25"; None if it reads the sources."""
        return f"fps{self.fps:.10g}" if self.fps_method == "reencode" else None

    @classmethod
    def from_parameters(cls, name: str, parameters: Mapping[str, Any]) -> FeatureSet:
        """The set that `parameters()` describes."""
        values = {k: v for k, v in parameters.items() if k != "version"}
        return cls(name=name, **values | {"streams": tuple(values["streams"])})

    def parameters(self) -> dict[str, Any]:
        """What goes into the rule's `params` and the rows' keys; not the set's name."""
        values = asdict(self)
        del values["name"]
        return values | {"streams": list(self.streams), "version": self.entry.version}


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
    def models(self) -> list[str]:
        """The models in use, sorted."""
        return sorted({s.model for s in self.feature_sets.values()})

    def sets_of(self, family: str) -> list[str]:
        """Names of the feature sets that a model family computes."""
        return [n for n, s in self.feature_sets.items() if s.entry.family == family]


def load_config(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration and fill in defaults.

    Raises:
        ConfigError: listing every problem with key, value, what is allowed, nearest spelling.
    """
    merged = copy.deepcopy(dict(raw))
    problems = [_explain(error) for error in _schema_validator().iter_errors(merged)]
    if problems:
        raise ConfigError(
            "the configuration is not valid:\n" + "\n".join(f"  {p}" for p in problems)
        )
    _fill_defaults(_schema_validator().schema, merged)
    sets = {name: _feature_set(name, merged) for name in merged["features"]}
    weights = dict(_local_weights(merged["weights"]))
    return Config(merged, sets, weights)


@cache
def _schema_validator() -> Draft202012Validator:
    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    Draft202012Validator.check_schema(schema)
    numbers = Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number)
    return validators.extend(Draft202012Validator, type_checker=numbers)(schema)


def _is_number(_: object, value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _fill_defaults(schema: Mapping[str, Any], values: dict[str, Any]) -> None:
    for key, rule in schema.get("properties", {}).items():
        if "default" in rule:
            values.setdefault(key, copy.deepcopy(rule["default"]))
        if isinstance(values.get(key), dict):
            _fill_defaults(rule, values[key])


def _explain(error: ValidationError) -> str:
    """One line: key, value, what is allowed, and the nearest spelling or the fix."""
    key = ".".join(map(str, error.absolute_path)) or "(top level)"
    rule, value = error.validator_value, error.instance
    for inner in error.context if isinstance(value, dict) else ():
        if inner.validator in ("additionalProperties", "enum") or "x-allowed" in inner.schema:
            return _explain(inner)
    if error.validator == "additionalProperties":
        allowed = error.schema["properties"]
        unknown = [k for k in value if k not in allowed]
        where = "" if key == "(top level)" else f"{key}."
        names = ", ".join(f"{where}{k}" for k in unknown)
        close = nearest(str(unknown[0]), allowed)
        return f"{names}: unknown key; allowed: {', '.join(allowed)}.{close}"
    if error.validator == "enum":
        return (
            f"{key} is {value!r}; allowed: {', '.join(map(str, rule))}.{nearest(str(value), rule)}"
        )
    if error.validator == "required":
        missing = [name for name in rule if name not in value]
        return f"{key}: {', '.join(missing)} is missing; required: {', '.join(rule)}"
    allowed = error.schema.get("x-allowed") or f"{error.validator} {rule}"
    if "propertyNames" in error.absolute_schema_path:
        return f"{key} has the name {value!r}; allowed: {allowed}"
    return f"{key} is {value!r}; allowed: {allowed}"


def _feature_set(name: str, merged: Mapping[str, Any]) -> FeatureSet:
    given = merged["features"][name]
    try:
        entry = model_entry(given["model"])
    except ConfigError as error:
        raise ConfigError(f"features.{name}.{error}") from None
    fps, method = _frame_rate(name, given.get("fps"), merged["fps"])
    streams = tuple(given.get("streams") or entry.streams)
    if unknown := [s for s in streams if s not in entry.streams]:
        raise ConfigError(
            f"features.{name}.streams has {unknown[0]!r}; {entry.name} computes: "
            f"{', '.join(entry.streams)}.{nearest(unknown[0], entry.streams)}"
        )
    basic = FeatureSet(
        name=name,
        model=entry.name,
        streams=streams,
        stack_size=given.get("stack_size") or entry.stack_size,
        step_size=given.get("step_size") or entry.step_size,
        tail=given.get("tail", merged["tail"]),
        precision=given.get("precision", merged["precision"]),
        top_k=given.get("predictions", merged["predictions"])["top_k"],
        fps=fps,
        fps_method=method,
    )
    return replace(basic, top_k=min(basic.top_k, entry.num_classes))


def _frame_rate(
    name: str, given: float | dict[str, Any] | None, default: Mapping[str, Any]
) -> tuple[float | None, str]:
    own = given if isinstance(given, dict) else {} if given is None else {"target": given}
    method = own.get("method", default["method"])
    if method == "source":
        if "target" in own:
            raise ConfigError(
                f"features.{name}.fps.target is {own['target']}, but the method is 'source', which "
                "leaves the rate alone; allowed: method reencode or sample, or no target"
            )
        return None, method
    return float(own.get("target", default["target"])), method


def _local_weights(given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    for model, value in given.items():
        if model not in MODELS:
            raise ConfigError(
                f"weights.{model}: unknown model; allowed: {', '.join(MODELS)}."
                f"{nearest(str(model), MODELS)}"
            )
        components = MODELS[model].components
        paths = value if isinstance(value, dict) else {components[0]: value}
        for component, path in paths.items():
            if component not in components:
                raise ConfigError(
                    f"weights.{model}.{component}: unknown component; allowed: "
                    f"{', '.join(components)}.{nearest(component, components)}"
                )
            if not resolve(path).is_file():
                raise ConfigError(
                    f"weights.{model}.{component} is {path!r}, which is no file (relative paths "
                    f"start at {str(Path.cwd())!r}, then at {str(CHECKOUT)!r})"
                )
        yield model, {c: str(resolve(p)) for c, p in paths.items()}
