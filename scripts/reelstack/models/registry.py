"""Every model by name: what parsing, planning and documentation need, without importing torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reelstack.errors import ConfigError, nearest
from reelstack.models.entries import ENTRIES, OPEN_ENTRIES
from reelstack.models.entry import ModelEntry

if TYPE_CHECKING:
    from reelstack.models.base import Extractor

MODELS: Mapping[str, ModelEntry] = {entry.name: entry for entry in ENTRIES}
"""The models that are known by name; `timm/…` and `hf/…` are open-ended (see `model_entry`)."""


def model_entry(name: str) -> ModelEntry:
    """The entry of a model.

    Raises:
        ConfigError: for an unknown name, with the nearest one.
    """
    if name in MODELS:
        return MODELS[name]
    for entry in OPEN_ENTRIES:
        prefix = entry.name.partition("<")[0]
        if name.startswith(prefix) and name != prefix:
            return replace(entry, name=name)
    allowed = ", ".join([*MODELS, *(entry.name for entry in OPEN_ENTRIES)])
    raise ConfigError(f"model is {name!r}; allowed: {allowed}.{nearest(name, MODELS)}")


def create_extractor(
    entry: ModelEntry,
    streams: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Extractor:
    """The model's extractor, not yet loaded; imports torch and what the family needs.

    Args:
        streams: which of the model's to compute; None for all.
        settings: in place of `entry.settings`.

    Raises:
        ConfigError: if a package of the family is not installed, naming extra and environment.
    """
    try:
        module = importlib.import_module(f"reelstack.models.{entry.family}")
    except ModuleNotFoundError as error:
        if entry.extra is None or str(error.name).startswith("reelstack"):
            raise
        raise ConfigError(missing_package(entry, error.name)) from error
    chosen = tuple(entry.streams if streams is None else streams)
    extractor: Extractor = module.build(entry, chosen, {**entry.settings, **(settings or {})})
    return extractor


def missing_package(entry: ModelEntry, package: str | None) -> str:
    """What to do about a package that the core installation leaves out."""
    return (
        f"{entry.name} needs the package {package}, which the core installation leaves out: "
        f"pip install 'reelstack[{entry.extra}]' (in a checkout: pip install -e "
        f"'.[{entry.extra}]'), or run the workflow with --sdm conda (envs/{entry.family}.yaml)"
    )
