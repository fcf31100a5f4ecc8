"""Weights: the catalogue, verification, and where the files are.

Nothing here imports torch: verifying is hashing. Reading is `reelstack.models.checkpoint`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from reelstack.errors import ConfigError, WeightsError
from reelstack.files import CHECKOUT, locked, sha256_of, write_text
from reelstack.ingest.inputs import resolve
from reelstack.models.download import download
from reelstack.models.entry import ModelEntry
from reelstack.models.registry import missing_package, model_entry

HUB_FAMILIES = ("hf", "timm")
"""Their checkpoints are repositories of the Hugging Face Hub."""

CATALOGUE = CHECKOUT / "resources" / "weights.yaml"


@dataclass(frozen=True)
class CatalogueEntry:
    """Where a checkpoint comes from.

    Attributes:
        licence, origin, format: as published; `format` names the layout of the keys.
        url: to download from; None for one that ships with the checkout.
        file: path in the checkout of one that ships with it.
        sha256: full digest, or the published prefix of at least 8 hex digits; None where none
            is published: the record then says what was downloaded.
        size_bytes: None if not published.
    """

    licence: str
    origin: str
    format: str
    sha256: str | None
    url: str | None = None
    file: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A verified file or folder: `file` is relative to the checkout if inside, else absolute."""

    file: str
    sha256: str
    size_bytes: int
    source: str

    @property
    def path(self) -> Path:
        """Where it is on this machine."""
        return CHECKOUT / self.file


@dataclass(frozen=True)
class Request:
    """One checkpoint to have.

    Attributes:
        local: a file (or the folder of an `hf/…` model) in the published format, in place of a
            download.
        revision, local_files_only: of a repository, for `hf/…` models.
    """

    model: str
    component: str
    local: str | None = None
    revision: str = "main"
    local_files_only: bool = False

    @classmethod
    def of(
        cls,
        entry: ModelEntry,
        component: str,
        settings: Mapping[str, Any],
        local: str | os.PathLike[str] | None = None,
    ) -> Request:
        """The request of a set with these settings."""
        own = {k: settings[k] for k in ("revision", "local_files_only") if k in settings}
        folder = resolve(entry.name.removeprefix("hf/")) if entry.family == "hf" else None
        if local is None and folder is not None and folder.is_dir():
            local = folder
        return cls(entry.name, component, None if local is None else os.fspath(local), **own)

    @property
    def hub(self) -> str | None:
        """The family whose package fetches it; None for a local file and for a download."""
        family = model_entry(self.model).family
        return family if self.local is None and family in HUB_FAMILIES else None

    def inputs(self) -> list[str]:
        """The local files, as inputs of a rule."""
        if self.local is None or not Path(self.local).is_dir():
            return [] if self.local is None else [self.local]
        return [str(file) for file in model_files(Path(self.local))]

    def published(self) -> dict[str, Any] | None:
        """The catalogue's entry as plain data, for the rule's `params`."""
        entry = catalogue().get(self.model, {}).get(self.component)
        return None if entry is None else asdict(entry)


@cache
def catalogue() -> Mapping[str, Mapping[str, CatalogueEntry]]:
    """`resources/weights.yaml`: model → component → entry."""
    raw = yaml.safe_load(CATALOGUE.read_text())
    return {
        model: {component: CatalogueEntry(**facts) for component, facts in components.items()}
        for model, components in raw.items()
    }


def weights_folder() -> Path:
    """Where downloads are kept, for all datasets: $REELSTACK_WEIGHTS or resources/weights."""
    return Path(os.environ.get("REELSTACK_WEIGHTS") or CHECKOUT / "resources" / "weights")


def weights_states(entry: ModelEntry) -> tuple[str, str]:
    """Licences of a model's checkpoints, and whether they are on disk, for the table of models."""
    published = catalogue().get(entry.name, {})
    if not published:
        hub = entry.family in HUB_FAMILIES
        return ("of the repository", "to fetch") if hub else ("", "give your own")
    licences = {re.split(r"[;(]", c.licence)[0].strip() for c in published.values()}
    states = {
        "in the checkout" if c.file else "fetched" if _download_path(c).exists() else "to fetch"
        for c in published.values()
    }
    return " / ".join(sorted(licences)), " / ".join(sorted(states))


def _download_path(published: CatalogueEntry) -> Path:
    assert published.url is not None
    return weights_folder() / published.url.rsplit("/", 1)[-1]


def not_a_checkpoint(path: Path, entry: ModelEntry) -> str:
    """What a local path is not: "no file" or, of an `hf/…` model, "no folder"; "" if it is one."""
    if entry.family == "hf":
        return "" if path.is_dir() else "no folder"
    return "" if path.is_file() else "no file"


def ensure_checkpoint(request: Request) -> Checkpoint:
    """Have a checkpoint on disk, verified; download it if it is missing.

    Raises:
        WeightsError: if it is missing, cannot be downloaded or has the wrong hash.
        ConfigError: if the package that fetches it is not installed.
    """
    model, component = request.model, request.component
    if request.local is not None:
        path = Path(request.local)
        if missing := not_a_checkpoint(path, model_entry(model)):
            raise WeightsError(f"weights of {model} ({component}): {path} is {missing}")
        return _checkpoint(path, source=f"local file {path.name}")
    published = catalogue().get(model, {}).get(component)
    if published is not None:
        return _published(model, published)
    if request.hub:
        try:
            return _from_hub(request)
        except ModuleNotFoundError as error:
            raise ConfigError(missing_package(model_entry(model), error.name)) from error
    raise WeightsError(
        f"no checkpoint of {model} ({component}) is published: name a local one in the config as "
        f"weights: {{{model}: {{{component}: PATH}}}}, or as `weights` of extract_video"
    )


def _published(model: str, published: CatalogueEntry) -> Checkpoint:
    if published.file:
        path = CHECKOUT / published.file
    else:
        path = _download_path(published)
        with locked(path.with_name(f".{path.name}.lock")):  # datasets share the folder
            if not path.exists():
                download(str(published.url), path, size_bytes=published.size_bytes)
    checkpoint = _checkpoint(path, source=published.url or str(published.file))
    if not checkpoint.sha256.startswith(published.sha256 or ""):
        raise WeightsError(
            f"checkpoint {path} has sha256 {checkpoint.sha256}, but {published.sha256} is "
            f"published for {model}: the file is corrupt or another one. Delete it to have "
            "it fetched again, or name it in the config under `weights` to use it as it is."
        )
    return checkpoint


def _from_hub(request: Request) -> Checkpoint:
    from reelstack.models import hub  # an extra; only these models need it

    if request.hub == "timm":
        file = hub.timm_checkpoint(request.model.removeprefix("timm/"))
        return _checkpoint(file, source=f"timm {file.parent.name}")
    repo = request.model.removeprefix("hf/")
    folder, commit = hub.snapshot(
        repo, revision=request.revision, local_files_only=request.local_files_only
    )
    return _checkpoint(folder, source=f"{repo} at {commit}")


def _checkpoint(path: Path, *, source: str) -> Checkpoint:
    if not path.exists():
        raise WeightsError(f"checkpoint {path} is missing from the checkout; restore it with git")
    path = Path(os.path.abspath(path))  # a link may lead to a file without a suffix
    inside = path.is_relative_to(CHECKOUT)
    file = path.relative_to(CHECKOUT).as_posix() if inside else str(path)
    if path.is_dir():
        size = sum(file.stat().st_size for file in model_files(path))
        return Checkpoint(file, folder_digest(path), size, source)
    return Checkpoint(file, sha256_of(path), path.stat().st_size, source)


def folder_digest(folder: Path) -> str:
    """The sha256 over the names and hashes of a folder's `model_files`."""
    lines = [f"{file.name} {sha256_of(file)}" for file in model_files(folder)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files of a folder that a model is read from."""
    return sorted(f for f in folder.iterdir() if f.suffix in (".json", ".safetensors"))


def write_record(path: Path | str, request: Request, checkpoint: Checkpoint) -> None:
    """Write the record of a checkpoint, an input of the extraction jobs that read it."""
    facts = {"component": request.component, **asdict(checkpoint)}
    write_text(path, json.dumps(facts, indent=1) + "\n")


def read_records(paths: Iterable[Path | str]) -> dict[str, Checkpoint]:
    """Component → checkpoint of the records of one feature set.

    Raises:
        WeightsError: if one of the files has gone since.
    """
    checkpoints = {}
    for path in paths:
        facts = json.loads(Path(path).read_text())
        component = facts.pop("component")
        checkpoint = checkpoints[component] = Checkpoint(**facts)
        if not checkpoint.path.exists():
            raise WeightsError(
                f"checkpoint {checkpoint.path} has gone since {path} was written: delete {path} "
                "and run snakemake again"
            )
    return checkpoints
