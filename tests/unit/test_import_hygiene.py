"""Parsing the workflow and the light rules never import torch (2.4 to 5 s per process)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from reelstack.files import CHECKOUT
from reelstack.models.entries import ENTRIES

LIBRARY = CHECKOUT / "scripts" / "reelstack"
HEAVY = ("torch", "torchvision", "safetensors")
EXTRAS = ("timm", "transformers", "huggingface_hub", "open_clip", "cv2")
"""Packages that the core installation leaves out."""
LIGHT = [
    "reelstack",
    "reelstack.workflow",
    "reelstack.config",
    "reelstack.cli",
    "reelstack.models.download",
    "reelstack.models.entries",
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
    assert not loaded & {*HEAVY, *EXTRAS}


def test_jobs_of_the_core_s_models_import_no_extra() -> None:
    """Where extras are installed, a family of the core still does without them."""
    families = sorted({entry.family for entry in ENTRIES if entry.extra is None})
    modules = ["reelstack.extract.shard", "reelstack.extract.api"]
    modules += [f"reelstack.models.{family}" for family in families]
    assert not loaded_by("\n".join(f"import {module}" for module in modules)) & set(EXTRAS)


def test_the_package_alone_imports_next_to_nothing() -> None:
    assert not loaded_by("import reelstack") & {"torch", "numpy", "zarr", "pandas", "av", "yaml"}


def test_parsing_needs_no_media_library_either() -> None:
    loaded = loaded_by("import reelstack.workflow")
    media = {"numpy", "scipy", "PIL", "av", "ffmpeg", "imageio_ffmpeg"}
    assert not loaded & {*media, "zarr", "pandas"}


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


LAYERS = {"ingest": 0, "media": 0, "models": 1, "config": 2, "extract": 3, "store": 3}
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
