"""Reelstack: deep features of whole video datasets, reproducibly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Features", "__version__", "extract_video", "open_store"]

if TYPE_CHECKING:
    from reelstack.extract.api import extract_video
    from reelstack.features import Features
    from reelstack.store.reader import open_store


def __getattr__(name: str) -> Any:
    """Import the public names on first use: parsing a workflow must not import torch."""
    if name == "extract_video":
        from reelstack.extract.api import extract_video

        return extract_video
    if name == "open_store":
        from reelstack.store.reader import open_store

        return open_store
    if name == "Features":
        from reelstack.features import Features

        return Features
    raise AttributeError(f"module 'reelstack' has no attribute {name!r}")
