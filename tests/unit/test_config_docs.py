"""Schema, documentation and shipped config say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from reelstack.config.schema import SCHEMA_PATH
from reelstack.config.sets import SHARED_KEYS
from reelstack.files import CHECKOUT
from reelstack.models.entries import ENTRIES, OPEN_ENTRIES
from reelstack.models.entry import ModelEntry

README = CHECKOUT / "config" / "README.md"
SCHEMA: dict[str, Any] = yaml.safe_load(SCHEMA_PATH.read_text())


def keys(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, rule in schema.get("properties", {}).items():
        yield f"{prefix}{key}", rule
        yield from keys(rule, f"{prefix}{key}.")
        if key == "features":
            yield from keys(rule["additionalProperties"], f"{prefix}{key}.NAME.")


ALL = dict(keys(SCHEMA))
LEAVES = {key: rule for key, rule in ALL.items() if "properties" not in rule}


def readme_row(key: str) -> str:
    """The line of the README's tables that explains a key; keys of a set by their last name."""
    name = key.removeprefix("features.NAME.")
    rows = [s for s in README.read_text().splitlines() if s.startswith("|")]
    of_sets = next(n for n, s in enumerate(rows) if "`model`" in s)
    section = rows[of_sets:] if key.startswith("features.NAME.") else rows[:of_sets]
    matches = [s for s in section if f"`{name}`" in s.split("|")[1]]
    assert len(matches) == 1, f"{key} is explained in {len(matches)} rows of config/README.md"
    return matches[0]


@pytest.mark.parametrize("key", ALL)
def test_every_key_has_a_description(key: str) -> None:
    assert len(ALL[key].get("description", "")) > 10


@pytest.mark.parametrize("key", [k for k in LEAVES if k != "features.NAME.predictions.top_k"])
def test_every_key_is_explained_in_the_readme(key: str) -> None:
    assert len(readme_row(key).split("|")[3].strip()) > 10


@pytest.mark.parametrize("key", [k for k, rule in LEAVES.items() if "default" in rule])
def test_every_default_is_the_one_in_the_readme(key: str) -> None:
    default = LEAVES[key]["default"]
    text = default if isinstance(default, str) else json.dumps(default)
    assert readme_row(key).split("|")[2].strip() == f"`{text}`"


@pytest.mark.parametrize("entry", [*ENTRIES, *OPEN_ENTRIES], ids=lambda entry: entry.name)
def test_every_default_of_a_model_is_the_one_in_the_readme(entry: ModelEntry) -> None:
    for key, default in entry.settings.items():
        text = readme_row(f"features.NAME.{key}").split("|")[2].strip()
        as_text = default if isinstance(default, str) else json.dumps(default)
        assert text == ("none" if default is None else f"`{as_text}`"), key


def test_every_key_of_a_set_is_of_use_to_some_model() -> None:
    names = {key.split(".")[2] for key in ALL if key.startswith("features.NAME.")}
    of_models = {key for entry in (*ENTRIES, *OPEN_ENTRIES) for key in entry.settings}
    assert names == {*SHARED_KEYS, *of_models}


def test_the_readme_explains_no_key_that_is_gone() -> None:
    rows = [s for s in README.read_text().splitlines() if s.startswith("| `")]
    named = {name for s in rows for name in re.findall(r"`([^`]+)`", s.split("|")[1])}
    known = set(ALL) | {key.removeprefix("features.NAME.") for key in ALL}
    assert named <= known


def test_every_optional_leaf_outside_the_sets_has_a_default() -> None:
    required = {"videos", "features"}
    missing = [
        key
        for key, rule in LEAVES.items()
        if "default" not in rule and key not in required and not key.startswith("features.")
    ]
    assert missing == []


def test_every_mapping_is_closed() -> None:
    open_ones = [
        key
        for key, rule in ALL.items()
        if rule.get("type") == "object" and rule.get("additionalProperties", True) is True
    ]
    assert open_ones == []
    assert SCHEMA["additionalProperties"] is False
