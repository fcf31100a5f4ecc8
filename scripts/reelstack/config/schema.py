"""The closed schema: what is wrong in a configuration, and the defaults of what is left out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from reelstack.errors import ConfigError, nearest
from reelstack.files import CHECKOUT

SCHEMA_PATH = CHECKOUT / "workflow" / "schemas" / "config.schema.yaml"


def merged_with_defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `raw` with every default of the schema filled in.

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
    return merged


@cache
def _schema_validator() -> Draft202012Validator:
    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    Draft202012Validator.check_schema(schema)
    numbers = Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number)
    return validators.extend(Draft202012Validator, type_checker=numbers)(schema)


def _is_number(_: object, value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < float("inf")
    )


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
        choices = [str(choice) for choice in rule]
        return f"{key} is {value!r}; allowed: {', '.join(choices)}.{nearest(str(value), choices)}"
    if error.validator == "required":
        missing = [name for name in rule if name not in value]
        return f"{key}: {', '.join(missing)} is missing; required: {', '.join(rule)}"
    allowed = error.schema.get("x-allowed") or f"{error.validator} {rule}"
    if "propertyNames" in error.absolute_schema_path:
        return f"{key} has the name {value!r}; allowed: {allowed}"
    return f"{key} is {value!r}; allowed: {allowed}"
