"""Class names, in the order of the classifiers' outputs."""

from __future__ import annotations

from functools import cache

from reelstack.files import CHECKOUT
from reelstack.models.entry import ModelEntry


def published_names(entry: ModelEntry) -> tuple[str, ...]:
    """The model's class names; empty where none are published."""
    return read_names(entry.labels) if entry.labels else ()


@cache
def read_names(name: str) -> tuple[str, ...]:
    """The lines of a file in `resources/`."""
    return tuple((CHECKOUT / "resources" / name).read_text("utf-8").splitlines())
