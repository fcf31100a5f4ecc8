"""Checkpoints of the Hugging Face Hub, without asking it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

from huggingface_hub import errors  # noqa: E402
from reelstack.errors import ConfigError, WeightsError  # noqa: E402
from reelstack.models import hub  # noqa: E402
from reelstack.models.registry import model_entry  # noqa: E402
from reelstack.models.weights import Request, ensure_checkpoint  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def store(cache: Path, repo: str, *files: str) -> Path:
    """What a download of a repository's `main` leaves in the cache."""
    root = cache / f"models--{repo.replace('/', '--')}"
    folder = root / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    (root / "blobs").mkdir()
    for name in files:
        (root / "blobs" / f"hash of {name}").write_bytes(b"content")
        (folder / name).symlink_to(f"../../blobs/hash of {name}")
    return folder


def fails(repo: str = "owner/name", **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        hub.snapshot(repo, **{"revision": "main", "local_files_only": False, **options})
    return str(caught.value)


@pytest.mark.parametrize("local_files_only", [True, False])
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_cached_repository_and_its_commit(
    cache: Path, revision: str, local_files_only: bool
) -> None:
    folder = store(cache, "owner/name", "config.json", "model.safetensors")
    found = hub.snapshot("owner/name", revision=revision, local_files_only=local_files_only)
    assert found == (folder, COMMIT)


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"content")
    assert hub.snapshot(str(tmp_path), revision="main", local_files_only=True) == (tmp_path, "")


@pytest.mark.parametrize("local_files_only", [True, False])
def test_an_empty_cache(cache: Path, local_files_only: bool) -> None:
    text = fails(local_files_only=local_files_only)
    assert f"owner/name at 'main' is not in the cache {cache}" in text
    assert "hf download owner/name" in text


def test_a_repository_without_safetensors(cache: Path) -> None:
    folder = store(cache, "owner/name", "config.json", "pytorch_model.bin")
    assert f"{folder} has no .safetensors file" in fails()


def test_only_configuration_and_safetensors_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["config.json", "model.safetensors", "model.py", "pytorch_model.bin", "sub/x.json"]
    asked = {}

    def fetch(repo: str, **options: Any) -> str:
        asked.update(options)
        wanted = {k: v for k, v in options.items() if k.endswith("_patterns")}
        chosen = huggingface_hub.utils.filter_repo_objects(names, **wanted)
        assert list(chosen) == ["config.json", "model.safetensors"]
        (tmp_path / COMMIT).mkdir()
        (tmp_path / COMMIT / "model.safetensors").write_bytes(repo.encode())
        return str(tmp_path / COMMIT)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    found = hub.snapshot("owner/name", revision="v2", local_files_only=False)
    assert found == (tmp_path / COMMIT, COMMIT)
    assert (asked["revision"], asked["local_files_only"]) == ("v2", False)


RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.RepositoryNotFoundError("no", response=RESPONSE), "check the spelling"),
        (errors.GatedRepoError("no", response=RESPONSE), "log in"),
        (errors.RevisionNotFoundError("no", response=RESPONSE), "has no revision 'main'"),
        (errors.HfHubHTTPError("503 of it", response=RESPONSE), "503 of it"),
        (OSError("disk full\nmore"), r"\(disk full\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_hub_answers(error: Exception, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    with pytest.raises(WeightsError, match=text):
        hub.snapshot("owner/name", revision="main", local_files_only=False)


def test_a_name_that_is_none() -> None:
    assert "'/no/such/folder' is no folder, and no repository's name" in fails("/no/such/folder")


@pytest.fixture
def _timm() -> None:
    pytest.importorskip("timm")


@pytest.mark.usefixtures("_timm")
@pytest.mark.parametrize(
    "files", [("model.safetensors", "pytorch_model.bin"), ("pytorch_model.bin",)]
)
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mobilenetv3_small_050.lamb_in1k"])
def test_weights_of_timm(cache: Path, name: str, files: tuple[str, ...]) -> None:
    folder = store(cache, "timm/mobilenetv3_small_050.lamb_in1k", *files)
    assert hub.timm_checkpoint(name) == folder / files[0]


@pytest.mark.usefixtures("_timm")
def test_a_record_names_the_file_and_not_the_blob_that_it_links_to(cache: Path) -> None:
    """The format is known by the file's name."""
    folder = store(cache, "timm/resnet18.a1_in1k", "model.safetensors")
    entry = model_entry("timm/resnet18")
    checkpoint = ensure_checkpoint(Request.of(entry, "rgb", entry.settings))
    assert checkpoint.path == folder / "model.safetensors"


@pytest.mark.usefixtures("_timm")
def test_weights_of_timm_that_are_not_there(cache: Path) -> None:
    with pytest.raises(WeightsError, match=f"timm/resnet18.* is not in the cache {cache}"):
        hub.timm_checkpoint("resnet18")


@pytest.mark.usefixtures("_timm")
def test_weights_of_timm_that_are_not_on_the_hub() -> None:
    with pytest.raises(WeightsError, match=r"only at https://.*\.pth: name a local file"):
        hub.timm_checkpoint("legacy_seresnet18")


@pytest.mark.usefixtures("_timm")
def test_a_name_that_timm_does_not_know() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'resnet50'"):
        hub.timm_checkpoint("resnet5O")
