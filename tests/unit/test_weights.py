"""The catalogue, downloads from a server on this machine, verification and records."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from reelstack.errors import WeightsError
from reelstack.files import CHECKOUT
from reelstack.models import download as downloads
from reelstack.models import weights
from reelstack.models.download import download
from reelstack.models.registry import MODELS
from reelstack.models.weights import (
    CatalogueEntry,
    Checkpoint,
    Request,
    catalogue,
    ensure_checkpoint,
    read_records,
    weights_states,
    write_record,
)

CONTENT = bytes(range(256)) * 1200  # 300 kB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = f"{SHA256[:7]}{int(SHA256[7], 16) ^ 1:x}"
"""The published prefix but for its last digit."""
ENTRY = MODELS["resnet18"]
REQUEST = Request(ENTRY.name, "rgb")
SHIPPED = Request("r2plus1d_tiny_motion", "rgb")


@dataclass
class Site:
    """What the server does, and what was asked of it."""

    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    drop_after: list[int] = field(default_factory=list)  # bytes of the next answers
    status: int = 200
    accepts_ranges: bool = True


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    settings = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            settings.ranges.append(asked)
            if settings.status != 200:
                self.send_error(settings.status)
                return
            start = 0
            if asked and settings.accepts_ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(CONTENT):
                    self.send_error(416)
                    return
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            sent = settings.drop_after.pop(0) if settings.drop_after else len(body)
            self.wfile.write(body[:sent])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    settings.url = f"http://127.0.0.1:{server.server_port}/model.pth"
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield settings
    server.shutdown()
    server.server_close()


class TestDownload:
    def test_whole(self, site: Site, tmp_path: Path) -> None:
        download(site.url, tmp_path / "deep" / "model.pth")
        assert (tmp_path / "deep" / "model.pth").read_bytes() == CONTENT
        assert [p.name for p in (tmp_path / "deep").iterdir()] == ["model.pth"]
        assert site.ranges == [None]

    def test_resumes_what_an_earlier_run_left(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "model.pth.part").write_bytes(CONTENT[:100_000])
        download(site.url, tmp_path / "model.pth")
        assert site.ranges == ["bytes=100000-"]
        assert (tmp_path / "model.pth").read_bytes() == CONTENT

    def test_a_server_that_cannot_resume_starts_over(self, site: Site, tmp_path: Path) -> None:
        site.accepts_ranges = False
        (tmp_path / "model.pth.part").write_bytes(b"x" * 100_000)
        download(site.url, tmp_path / "model.pth")
        assert (tmp_path / "model.pth").read_bytes() == CONTENT

    def test_a_part_that_is_too_long_starts_over(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "model.pth.part").write_bytes(CONTENT + b"more")
        download(site.url, tmp_path / "model.pth")
        assert (tmp_path / "model.pth").read_bytes() == CONTENT
        assert site.ranges == [f"bytes={len(CONTENT) + 4}-", None]

    def test_a_dropped_connection_is_tried_again_from_there(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(downloads, "_CHUNK_BYTES", 10_000)
        site.drop_after = [70_000, 50_000]
        download(site.url, tmp_path / "model.pth")
        assert (tmp_path / "model.pth").read_bytes() == CONTENT
        assert len(site.ranges) == 3
        resumed = [int(r.removeprefix("bytes=").removesuffix("-")) for r in site.ranges[1:] if r]
        assert resumed == [70_000, 120_000]

    def test_gives_up_after_its_attempts_and_keeps_what_it_has(
        self, site: Site, tmp_path: Path
    ) -> None:
        site.drop_after = [1000] * 9
        with pytest.raises(WeightsError, match="could not be downloaded") as caught:
            download(site.url, tmp_path / "model.pth", attempts=3)
        assert len(site.ranges) == 3
        assert f"put the file at {tmp_path / 'model.pth'}" in str(caught.value)
        assert not (tmp_path / "model.pth").exists()
        assert (tmp_path / "model.pth.part").exists()

    def test_an_overloaded_server_is_tried_again(self, site: Site, tmp_path: Path) -> None:
        site.status = 503
        with pytest.raises(WeightsError, match="503"):
            download(site.url, tmp_path / "model.pth", attempts=4)
        assert len(site.ranges) == 4

    @pytest.mark.parametrize("status", [403, 404])
    def test_what_is_not_there_is_not_tried_again(
        self, site: Site, tmp_path: Path, status: int
    ) -> None:
        site.status = status
        with pytest.raises(WeightsError, match=str(status)):
            download(site.url, tmp_path / "model.pth")
        assert len(site.ranges) == 1

    @pytest.mark.usefixtures("site")
    def test_no_server(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="Without network"):
            download("http://127.0.0.1:9/model.pth", tmp_path / "model.pth", attempts=2)


def publish(monkeypatch: pytest.MonkeyPatch, site: Site, sha256: str) -> None:
    facts = CatalogueEntry(licence="MIT", origin="x", format="y", sha256=sha256, url=site.url)
    monkeypatch.setattr(weights, "catalogue", lambda: {ENTRY.name: {"rgb": facts}})


class TestEnsure:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("REELSTACK_WEIGHTS", str(tmp_path / "cache"))
        return tmp_path / "cache"

    @pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
    def test_fetched_once_and_verified(
        self, site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, sha256: str
    ) -> None:
        publish(monkeypatch, site, sha256)
        assert weights_states(ENTRY) == ("MIT", "to fetch")
        expected = Checkpoint(str(folder / "model.pth"), SHA256, len(CONTENT), site.url)
        assert ensure_checkpoint(REQUEST) == expected
        assert ensure_checkpoint(REQUEST) == expected
        assert len(site.ranges) == 1
        assert weights_states(ENTRY) == ("MIT", "fetched")

    def test_two_datasets_that_need_it_at_once_fetch_it_once(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(monkeypatch, site, SHA256)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: ensure_checkpoint(REQUEST), range(4)))
        assert {checkpoint.sha256 for checkpoint in found} == {SHA256}
        assert len(site.ranges) == 1

    @pytest.mark.parametrize("sha256", ["0" * 64, OTHER, f"{OTHER}{SHA256[8:]}"])
    def test_another_content_is_refused(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, sha256: str
    ) -> None:
        publish(monkeypatch, site, sha256)
        with pytest.raises(WeightsError) as caught:
            ensure_checkpoint(REQUEST)
        text = str(caught.value)
        assert f"has sha256 {SHA256}, but {sha256} is published for resnet18" in text
        assert "Delete it to have it fetched again" in text

    def test_a_corrupt_file_in_the_cache_is_refused(
        self, site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(monkeypatch, site, SHA256)
        folder.mkdir()
        (folder / "model.pth").write_bytes(CONTENT[:-1])
        with pytest.raises(WeightsError, match="corrupt"):
            ensure_checkpoint(REQUEST)
        assert site.ranges == []

    def test_a_local_file_is_taken_as_it_is(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(monkeypatch, site, "0" * 64)
        own = tmp_path / "own.pth"
        own.write_bytes(b"abc")
        checkpoint = ensure_checkpoint(replace(REQUEST, local=str(own)))
        assert checkpoint.path == own
        assert checkpoint.sha256 == hashlib.sha256(b"abc").hexdigest()
        assert checkpoint.source == "local file own.pth"
        assert site.ranges == []

    def test_a_local_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"weights of resnet18 \(rgb\): .* is no file"):
            ensure_checkpoint(replace(REQUEST, local=str(tmp_path / "own.pth")))

    def test_a_model_that_is_not_in_the_catalogue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights, "catalogue", dict)
        with pytest.raises(WeightsError, match=r"weights: {resnet18: {rgb: PATH}}"):
            ensure_checkpoint(REQUEST)


def test_the_shipped_checkpoint_is_the_published_one() -> None:
    entry = MODELS["r2plus1d_tiny_motion"]
    checkpoint = ensure_checkpoint(SHIPPED)
    assert checkpoint.path.is_file()
    assert checkpoint.file == "resources/demo/motion_r2plus1d.safetensors", "relative: it may move"
    assert checkpoint.path == CHECKOUT / checkpoint.file
    assert weights_states(entry) == ("MIT", "in the checkout")


UNPUBLISHED = {
    "r2plus1d_pytorch": "whoever trains it has the only checkpoint",
}
"""Models without an entry in the catalogue, and why; the open-ended ones are of a hub."""


class TestCatalogue:
    def test_has_every_model_and_no_other(self) -> None:
        assert catalogue().keys() == MODELS.keys() - UNPUBLISHED.keys()

    @pytest.mark.parametrize("name", [name for name in MODELS if name not in UNPUBLISHED])
    def test_says_where_each_checkpoint_comes_from(self, name: str) -> None:
        components = catalogue()[name]
        assert set(components) == set(MODELS[name].components)
        for facts in components.values():
            assert bool(facts.url) != bool(facts.file)
            verified = len(facts.sha256 or "") == 64  # then the way it comes does not matter
            assert facts.url is None or facts.url.startswith("https://") or verified
            assert facts.licence
            assert facts.origin
            assert facts.format
            if facts.sha256 is None:
                assert facts.url, "what ships with the checkout is known"
                continue
            assert 8 <= len(facts.sha256) <= 64
            assert int(facts.sha256, 16) >= 0
            if len(facts.sha256) < 64:
                assert facts.sha256 in str(facts.url), "a prefix is published in the file's name"

    def test_a_file_is_downloaded_under_a_name_of_its_own(self) -> None:
        """The downloads of all models share a folder."""
        sources: dict[str, set[str]] = {}
        for components in catalogue().values():
            for facts in components.values():
                if facts.url:
                    sources.setdefault(facts.url.rpartition("/")[2], set()).add(facts.url)
        assert {name: urls for name, urls in sources.items() if len(urls) > 1} == {}
        assert all(name and "?" not in name for name in sources)

    @pytest.mark.parametrize("name", MODELS)
    def test_is_plain_data_for_a_rule(self, name: str) -> None:
        for component in MODELS[name].components:
            facts = Request(name, component).published()
            assert json.loads(json.dumps(facts)) == facts
            if name in UNPUBLISHED:
                assert facts is None
            else:
                assert facts["sha256"] == catalogue()[name][component].sha256

    @pytest.mark.parametrize("name", UNPUBLISHED)
    def test_without_a_published_checkpoint_the_fix_is_told(self, name: str) -> None:
        entry = MODELS[name]
        for component in entry.components:
            fix = re.escape(f"weights: {{{name}: {{{component}: PATH}}}}")
            with pytest.raises(WeightsError, match=fix):
                ensure_checkpoint(Request(name, component))
        assert weights_states(entry) == ("", "give your own")


class TestRecord:
    @staticmethod
    def write(path: Path, request: Request) -> Checkpoint:
        checkpoint = ensure_checkpoint(request)
        write_record(path, request, checkpoint)
        return checkpoint

    def test_comes_back(self, tmp_path: Path) -> None:
        shipped = self.write(tmp_path / "r.json", SHIPPED)
        assert read_records([tmp_path / "r.json"]) == {"rgb": shipped}

    def test_of_several_components(self, tmp_path: Path) -> None:
        written = {}
        for component in ("rgb", "flow"):
            own = tmp_path / f"{component}.pth"
            own.write_bytes(component.encode())
            request = Request("i3d_kinetics400", component, local=str(own))
            written[component] = self.write(tmp_path / f"{component}.json", request)
        records = [tmp_path / "flow.json", tmp_path / "rgb.json"]
        assert read_records(records) == written
        assert written["rgb"].path == tmp_path / "rgb.pth"

    def test_of_a_file_that_went(self, tmp_path: Path) -> None:
        own = tmp_path / "own.pth"
        own.write_bytes(b"abc")
        self.write(tmp_path / "r.json", replace(REQUEST, local=str(own)))
        own.unlink()
        with pytest.raises(WeightsError, match=r"own\.pth has gone since .*r\.json was written"):
            read_records([tmp_path / "r.json"])


class TestFolders:
    """A checkpoint can be a folder (`hf/…`)."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"abc")
        return folder

    def request(self, folder: Path) -> Request:
        return Request("hf/owner/name", "rgb", local=str(folder))

    def test_its_files_are_the_inputs_and_the_size(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        checkpoint = ensure_checkpoint(self.request(folder))
        assert (checkpoint.path, checkpoint.size_bytes) == (folder, 5)
        expected = [str(folder / name) for name in ("config.json", "model.safetensors")]
        assert self.request(folder).inputs() == expected

    @pytest.mark.parametrize("change", ["content", "name", "more"])
    def test_its_hash_follows_contents_and_names(self, folder: Path, change: str) -> None:
        before = ensure_checkpoint(self.request(folder)).sha256
        assert ensure_checkpoint(self.request(folder)).sha256 == before
        if change == "content":
            (folder / "config.json").write_text("{ }")
        elif change == "name":
            (folder / "config.json").rename(folder / "other.json")
        else:
            (folder / "more.json").touch()
        assert ensure_checkpoint(self.request(folder)).sha256 != before

    def test_no_other_model_is_a_folder(self, folder: Path) -> None:
        with pytest.raises(WeightsError, match=r"weights of resnet18 \(rgb\): .*model is no file"):
            ensure_checkpoint(replace(REQUEST, local=str(folder)))

    def test_none_of_these_is_a_file(self, folder: Path) -> None:
        with pytest.raises(WeightsError, match=r"safetensors is no folder"):
            ensure_checkpoint(self.request(folder / "model.safetensors"))


def test_a_checkpoint_without_a_published_hash_is_recorded_as_it_came(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELSTACK_WEIGHTS", str(tmp_path))
    facts = CatalogueEntry(licence="MIT", origin="x", format="y", sha256=None, url=site.url)
    monkeypatch.setattr(weights, "catalogue", lambda: {ENTRY.name: {"rgb": facts}})
    assert ensure_checkpoint(REQUEST).sha256 == SHA256
