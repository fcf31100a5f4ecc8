"""Checkpoints of the Hugging Face Hub: repositories of transformers, and timm's.

Files go to the Hub's own cache ($HF_HOME), which other tools share; HF_HUB_OFFLINE is honoured.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from reelstack.errors import WeightsError

_FAILURES = (EntryNotFoundError, HFValidationError, HTTPError, OSError, RuntimeError)
"""Answers of the Hub, and what its transports raise: HTTPError (httpx), RuntimeError (hf_xet)."""


def snapshot(repo: str, *, revision: str, local_files_only: bool) -> tuple[Path, str]:
    """The folder with a repository's configuration and safetensors, and its commit.

    Args:
        repo: `owner/name`, or a local folder, which is used as it is (its commit is "").
        revision: branch, tag or commit.
        local_files_only: take what is in the cache, without asking the Hub.

    Raises:
        WeightsError: for an unknown or private repository or revision, one that is not in the
            cache where the Hub cannot be asked, and one without safetensors; with the fix.
    """
    if Path(repo).is_dir():
        return with_safetensors(Path(repo)), ""
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=["*.json", "*.safetensors"],
            ignore_patterns=["*/*"],
        )
    except _FAILURES as error:
        raise WeightsError(_reason(repo, revision, error)) from error
    return with_safetensors(Path(folder)), Path(folder).name


def with_safetensors(folder: Path) -> Path:
    """The folder, if it has weights that can be read without running code from them.

    Raises:
        WeightsError: if it has none.
    """
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} has no .safetensors file. Other formats (.bin, .pt, .h5) are not read, "
            "because reading them can run code. Use a revision with safetensors (the Hub's "
            "converter offers one as 'refs/pr/…'), or save the model again with save_pretrained."
        )
    return folder


def timm_checkpoint(name: str) -> Path:
    """timm's own weights of a model: safetensors, or the torch file where there are none.

    Args:
        name: as timm spells it, with or without the tag of the weights.

    Raises:
        ConfigError: for a name that timm does not know.
        WeightsError: for a model without weights on the Hub, and if they cannot be had.
    """
    family = importlib.import_module("reelstack.models.timm")  # timm is not in every environment
    published = family.pretrained_config(name)
    if not published.hf_hub_id:
        where = f"only at {published.url}" if published.url else "nowhere"
        raise WeightsError(
            f"timm publishes weights of timm/{name} {where}: name a local file in the config as "
            f"weights: {{timm/{name}: {{rgb: PATH}}}}"
        )
    repo, _, revision = published.hf_hub_id.partition("@")
    try:
        return _either_file(repo, revision or None)
    except _FAILURES as error:
        raise WeightsError(_reason(repo, revision or "main", error)) from error


def _either_file(repo: str, revision: str | None) -> Path:
    try:
        return Path(hf_hub_download(repo, "model.safetensors", revision=revision))
    except EntryNotFoundError as error:
        # Not in the cache: then the Hub was out of reach, and need not be asked again.
        cached = isinstance(error, LocalEntryNotFoundError)
        return Path(
            hf_hub_download(repo, "pytorch_model.bin", revision=revision, local_files_only=cached)
        )


def _reason(repo: str, revision: str, error: Exception) -> str:
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; name a branch, tag or commit of it"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no repository {repo} that you may read: check the spelling; for a private "
            "or gated one accept its terms and log in (hf auth login, or HF_TOKEN)"
        )
    if isinstance(error, HFValidationError):
        return f"{repo!r} is no folder, and no repository's name (owner/name): {error}"
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return (
        f"{repo} at {revision!r} is not in the cache {constants.HF_HUB_CACHE}, and could not be "
        f"fetched ({reason}). Fetch it where there is a network (hf download {repo}) and copy the "
        "cache ($HF_HOME), name a local copy, or unset local_files_only and HF_HUB_OFFLINE"
    )
