"""Parsing the workflow and the light rules never import torch (2.4 to 5 s per process)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from reelstack.files import CHECKOUT

LIBRARY = CHECKOUT / "scripts" / "reelstack"
HEAVY = ("torch", "torchvision", "safetensors")
LIGHT = [
    "reelstack",
    "reelstack.workflow",
    "reelstack.config",
    "reelstack.cli",
    "reelstack.models.registry",
    "reelstack.models.weights",
    *sorted(
        f"reelstack.{folder}.{file.stem}"
        for folder in ("ingest", "media", "store")
        for file in (LIBRARY / folder).glob("*.py")
        if file.stem != "__init__"
    ),
]


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(answer.stdout)}


def test_light_modules_do_not_import_torch() -> None:
    loaded = loaded_by("\n".join(f"import {module}" for module in LIGHT))
    assert not loaded & set(HEAVY)


def test_the_package_alone_imports_next_to_nothing() -> None:
    assert not loaded_by("import reelstack") & {"torch", "numpy", "zarr", "pandas", "av", "yaml"}


def test_parsing_needs_no_media_library_either() -> None:
    loaded = loaded_by("import reelstack.workflow")
    assert not loaded & {"numpy", "av", "zarr", "pandas", "ffmpeg", "imageio_ffmpeg"}


def test_public_names_are_there() -> None:
    assert "torch" not in loaded_by("import reelstack; reelstack.Features; reelstack.open_store")
    import reelstack
    from reelstack.extract.api import extract_video
    from reelstack.features import Features
    from reelstack.store.reader import open_store

    assert reelstack.extract_video is extract_video
    assert reelstack.open_store is open_store
    assert reelstack.Features is Features
    with pytest.raises(AttributeError, match="has no attribute 'extract_vidoe'"):
        _ = reelstack.extract_vidoe


LAYERS = {"ingest": 0, "media": 0, "models": 1, "extract": 2, "store": 2}
"""Imports go from higher to equal or lower layers."""


@pytest.mark.parametrize("file", sorted(LIBRARY.rglob("*.py")), ids=lambda f: f.stem)
def test_imports_run_one_way(file: Path) -> None:
    own = file.relative_to(LIBRARY).parts[0]
    if own not in LAYERS:
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reelstack."):
            other = (node.module or "").split(".")[1]
            assert LAYERS.get(other, 0) <= LAYERS[own], f"{own} imports {other}"
