"""Weights: the catalogue, downloads that resume, verification, and where the files are.

Nothing here imports torch: verifying is hashing. Reading is `reelstack.models.checkpoint`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import requests
import yaml
from tqdm import tqdm

from reelstack.errors import WeightsError
from reelstack.files import CHECKOUT, locked, sha256_of, write_text
from reelstack.models.registry import ModelEntry

CATALOGUE = CHECKOUT / "resources" / "weights.yaml"
ATTEMPTS = 5
TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class CatalogueEntry:
    """Where a checkpoint comes from.

    Attributes:
        licence, origin, format: as published; `format` names the layout of the keys.
        url: to download from; None for one that ships with the checkout.
        file: path in the checkout of one that ships with it.
        sha256: full digest, or the published prefix of at least 8 hex digits.
        size_bytes: None if not published.
    """

    licence: str
    origin: str
    format: str
    sha256: str
    url: str | None = None
    file: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A verified file: `file` is relative to the checkout if inside, else absolute."""

    file: str
    sha256: str
    size_bytes: int
    source: str

    @property
    def path(self) -> Path:
        """Where the file is on this machine."""
        return CHECKOUT / self.file


@cache
def catalogue() -> Mapping[str, Mapping[str, CatalogueEntry]]:
    """`resources/weights.yaml`: model → component → entry."""
    raw = yaml.safe_load(CATALOGUE.read_text())
    return {
        model: {component: CatalogueEntry(**facts) for component, facts in components.items()}
        for model, components in raw.items()
    }


def catalogue_facts(model: str) -> dict[str, Any]:
    """The catalogue's entries of a model as plain data, for a rule's `params`."""
    return {c: asdict(entry) for c, entry in catalogue().get(model, {}).items()}


def weights_folder() -> Path:
    """Where downloads are kept, for all datasets: $REELSTACK_WEIGHTS or resources/weights."""
    return Path(os.environ.get("REELSTACK_WEIGHTS") or CHECKOUT / "resources" / "weights")


def ensure_weights(
    entry: ModelEntry, local: Mapping[str, str | Path] | None = None
) -> dict[str, Checkpoint]:
    """Have every component's checkpoint on disk, verified; download what is missing.

    Args:
        local: component → path of a checkpoint in the published format, in place of a download.

    Raises:
        WeightsError: if a file is missing, cannot be downloaded or has the wrong hash.
    """
    return {c: _ensure_component(entry, c, (local or {}).get(c)) for c in entry.components}


def weights_states(entry: ModelEntry) -> tuple[str, str]:
    """Licences of a model's checkpoints, and whether they are on disk, for the table of models."""
    published = catalogue().get(entry.name, {})
    licences = {c.licence.split(";")[0] for c in published.values()}
    states = {
        "in the checkout" if c.file else "fetched" if _download_path(c).exists() else "to fetch"
        for c in published.values()
    }
    return " / ".join(sorted(licences)), " / ".join(sorted(states))


def _download_path(published: CatalogueEntry) -> Path:
    assert published.url is not None
    return weights_folder() / published.url.rsplit("/", 1)[-1]


def _ensure_component(entry: ModelEntry, component: str, local: str | Path | None) -> Checkpoint:
    if local is not None:
        if not Path(local).is_file():
            raise WeightsError(f"weights of {entry.name} ({component}): {local} is no file")
        return _checkpoint(Path(local), source=f"local file {Path(local).name}")
    published = catalogue().get(entry.name, {}).get(component)
    if published is None:
        raise WeightsError(
            f"{entry.name} ({component}) is not in {CATALOGUE}: name a local checkpoint as "
            f"weights: {{{entry.name}: {{{component}: PATH}}}}"
        )
    if published.file:
        path = CHECKOUT / published.file
    else:
        path = _download_path(published)
        with locked(path.with_name(f".{path.name}.lock")):  # datasets share the folder
            if not path.exists():
                download(str(published.url), path, size_bytes=published.size_bytes)
    checkpoint = _checkpoint(path, source=published.url or str(published.file))
    if not checkpoint.sha256.startswith(published.sha256):
        raise WeightsError(
            f"checkpoint {path} has sha256 {checkpoint.sha256}, but {published.sha256} is "
            f"published for {entry.name}: the file is corrupt or another one. Delete it to have "
            "it fetched again, or name it in the config under `weights` to use it as it is."
        )
    return checkpoint


def _checkpoint(path: Path, *, source: str) -> Checkpoint:
    if not path.is_file():
        raise WeightsError(f"checkpoint {path} is missing from the checkout; restore it with git")
    path = path.resolve()
    inside = path.is_relative_to(CHECKOUT)
    file = path.relative_to(CHECKOUT).as_posix() if inside else str(path)
    return Checkpoint(file, sha256_of(path), path.stat().st_size, source)


def download(
    url: str, path: Path, *, size_bytes: int | None = None, attempts: int = ATTEMPTS
) -> None:
    """Fetch `url` to `path`, resuming what an earlier try left in `<path>.part`.

    Raises:
        WeightsError: after `attempts` failures, with the last reason and the offline way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in range(1, attempts + 1):
        try:
            _fetch(url, part, size_bytes=size_bytes)
            os.replace(part, path)
            return
        except (requests.RequestException, OSError) as error:
            final = isinstance(error, requests.HTTPError) and error.response.status_code < 500
            if attempt == attempts or final:
                raise WeightsError(
                    f"{url} could not be downloaded ({error}). Without network: put the file at "
                    f"{path}, or name it in the config under `weights`."
                ) from error
            time.sleep(min(2.0**attempt, 30.0) / 2)


def _fetch(url: str, part: Path, *, size_bytes: int | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if have and answer.status_code == 416:
            part.unlink()  # longer than the file: a leftover of another version
            raise requests.ConnectionError("the partial download did not fit; starting over")
        answer.raise_for_status()
        resumed = answer.status_code == 206
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else size_bytes
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError(f"got {part.stat().st_size} of {total} bytes")


def write_record(path: Path | str, model: str, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Write a model's weights record, the input of its extraction jobs."""
    components = {c: asdict(checkpoint) for c, checkpoint in checkpoints.items()}
    write_text(path, json.dumps({"model": model, "components": components}, indent=1) + "\n")


def read_record(path: Path | str) -> dict[str, Checkpoint]:
    """The checkpoints of a weights record.

    Raises:
        WeightsError: if one of them has gone since.
    """
    content = json.loads(Path(path).read_text())
    checkpoints = {c: Checkpoint(**facts) for c, facts in content["components"].items()}
    for checkpoint in checkpoints.values():
        if not checkpoint.path.is_file():
            raise WeightsError(
                f"checkpoint {checkpoint.path} has gone since {path} was written: delete {path} "
                "and run snakemake again"
            )
    return checkpoints
