"""The conda environments: strict, pinned, complete, and the same versions as the lock."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from reelstack.files import CHECKOUT
from reelstack.models.entries import ENTRIES, OPEN_ENTRIES

FAMILIES = sorted({entry.family for entry in (*ENTRIES, *OPEN_ENTRIES)})
ENVS = sorted((CHECKOUT / "envs").glob("*.yaml"))
SCRIPTS = CHECKOUT / "scripts"
LOCKS = ("requirements.lock", "requirements-extras.lock")
PIP_NAMES = {
    "huggingface_hub": "huggingface-hub",
    "py-opencv": "opencv-contrib-python-headless",
    "python": "",
    "pytorch": "torch",
}
NOT_PYTHON = ("ffmpeg", "python")
CONDA_NAMES = {
    "cv2": "py-opencv",
    "ffmpeg": "ffmpeg-python",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "open_clip": "open-clip-torch",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "torch": "pytorch",
    "typing_extensions": "",  # comes with pytorch
}


def name_of(path: Path) -> str:
    return path.stem


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def pins(path: Path) -> dict[str, str]:
    return dict(re.split(" =+", spec, maxsplit=1) for spec in load(path)["dependencies"])


@cache
def locked_versions() -> dict[str, str]:
    text = "".join((CHECKOUT / name).read_text() for name in LOCKS)
    versions: dict[str, str] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M):
        versions.setdefault(name, version)  # the first is for the supported Pythons
    return versions


@pytest.mark.parametrize("path", ENVS, ids=name_of)
def test_channels_are_strict(path: Path) -> None:
    assert load(path)["channels"] == ["conda-forge", "nodefaults"]
    assert load(path).keys() == {"channels", "dependencies"}, "a name would be ignored"


@pytest.mark.parametrize("path", ENVS, ids=name_of)
def test_every_dependency_is_pinned(path: Path) -> None:
    specs = load(path)["dependencies"]
    for spec in specs:
        assert isinstance(spec, str), "a pip block is lost in a pin file"
        assert re.fullmatch(r"[a-z][a-z0-9_-]* =\d+\.\d+", spec), spec
    assert len(pins(path)) == len(specs), "a package twice"


@pytest.mark.parametrize("path", ENVS, ids=name_of)
def test_versions_are_those_of_the_lock(path: Path) -> None:
    locked = locked_versions()
    for package, version in pins(path).items():
        name = PIP_NAMES.get(package, package)
        assert name in locked or package in NOT_PYTHON, package
        if name in locked:
            assert locked[name].split(".")[:2] == version.split("."), package


def test_environments_agree_with_each_other() -> None:
    versions: dict[str, set[str]] = {}
    for path in ENVS:
        for package, version in pins(path).items():
            versions.setdefault(package, set()).add(version)
    assert {p: v for p, v in versions.items() if len(v) > 1} == {}


def module_file(module: str) -> Path | None:
    base = SCRIPTS.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


MODELS = SCRIPTS / "reelstack" / "models"
HUB = MODELS / "hub.py"
"""Imported in one place, for the checkpoints of `HUB_FAMILIES` only."""
HUB_FAMILIES = {"hf": [HUB], "timm": [HUB, MODELS / "timm.py"]}
"""Family → what fetching its checkpoints takes beyond the script."""


def needed_by(script: Path, *more: Path) -> set[str]:
    """Third-party packages that a script imports, itself and through the library, also late."""
    waiting = [script, *more]
    seen: set[Path] = set()
    outside: set[str] = set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in _executed(ast.parse(file.read_text())):
            for module in _imported(node):
                own = module_file(module)
                if own in (SCRIPTS / "reelstack" / "__init__.py", HUB):
                    continue  # its public names are imported on first use; see HUB
                if own is not None:
                    waiting.append(own)
                elif module.partition(".")[0] not in sys.stdlib_module_names:
                    outside.add(module.partition(".")[0])
    return {CONDA_NAMES.get(name, name) for name in outside} - {"", "snakemake"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        members = [f"{node.module}.{alias.name}" for alias in node.names]
        submodules = [name for name in members if module_file(name)]
        return submodules or [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _executed(tree: ast.Module) -> list[ast.AST]:
    """Nodes that run: what is for type checkers only is left out."""
    nodes: list[ast.AST] = []
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes.append(node)
        waiting += list(ast.iter_child_nodes(node))
    return nodes


@pytest.mark.parametrize(
    ("script", "env", "family"),
    [
        ("probe", "media", None),
        ("reencode", "media", None),
        ("fetch_weights", "weights", None),
        *(("extract", family, family) for family in FAMILIES),
        ("aggregate", "store", None),
    ],
)
def test_an_environment_has_what_its_script_imports(
    script: str, env: str, family: str | None
) -> None:
    """What the launcher's own environment would hide when run without conda."""
    available = set(pins(CHECKOUT / "envs" / f"{env}.yaml"))
    more = [] if family is None else [MODELS / f"{family}.py"]
    assert needed_by(SCRIPTS / f"{script}.py", *more) - available == set()


@pytest.mark.parametrize("family", HUB_FAMILIES)
def test_weights_of_a_hub_are_fetched_where_its_packages_are(family: str) -> None:
    rules = (CHECKOUT / "workflow" / "rules" / "weights.smk").read_text()
    files = re.findall(r'"\.\./\.\./(envs/\w+\.yaml)"', rules)
    needed = needed_by(SCRIPTS / "fetch_weights.py", *HUB_FAMILIES[family])
    missing = {file: needed - set(pins(CHECKOUT / file)) for file in files}
    assert set() in missing.values(), f"no rule can fetch {family}/…: {missing}"


def test_every_environment_is_used() -> None:
    rules = "".join(path.read_text() for path in (CHECKOUT / "workflow").rglob("*.smk"))
    assert [path.name for path in ENVS if f"envs/{path.name}" not in rules] == []
