"""Class names, in the order of the classifiers' outputs."""

from __future__ import annotations

from functools import cache

from reelstack.files import CHECKOUT
from reelstack.models.registry import ModelEntry


def class_names(entry: ModelEntry) -> tuple[str, ...]:
    """The model's class names; empty where none are published."""
    return _read(entry.labels) if entry.labels else ()


@cache
def _read(name: str) -> tuple[str, ...]:
    return tuple((CHECKOUT / "resources" / name).read_text("utf-8").splitlines())
