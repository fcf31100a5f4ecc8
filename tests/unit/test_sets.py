"""Feature sets of all models: their checkpoints, their own keys, and keys that are refused."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from reelstack import models
from reelstack.config import Config, FeatureSet, load_config
from reelstack.errors import ConfigError
from reelstack.extract import api
from reelstack.files import CHECKOUT
from reelstack.models.entries import OPEN_ENTRIES
from reelstack.models.entry import COMMON_SETTINGS
from reelstack.models.registry import MODELS, create_extractor, model_entry
from reelstack.models.weights import Request, ensure_checkpoint

R21D = "r2plus1d_18_16_kinetics"
I3D = "i3d_kinetics400"
CLIP = "clip/ViT-B-32"
OPEN_NAMES = {"timm/<name>": "timm/resnet18.a1_in1k", "hf/<repo or folder>": "hf/owner/name"}
NAMES = [*MODELS, *OPEN_NAMES.values()]


def load(weights: dict[str, Any] | None = None, **sets: dict[str, Any]) -> Config:
    return load_config({"videos": ["in"], "features": sets, "weights": weights or {}})


def feature_set(model: str, **settings: Any) -> FeatureSet:
    return load(a={"model": model, **settings}).feature_sets["a"]


def fails(model: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        feature_set(model, **settings)
    return str(caught.value)


class TestCheckpoints:
    def test_sets_that_share_a_checkpoint_share_its_record(self) -> None:
        of_sets = load(
            a={"model": "resnet18"},
            b={"model": "resnet18", "step_size": 5},
            c={"model": I3D, "streams": ["rgb"]},
            d={"model": I3D, "flow": "pwc"},
        )
        assert of_sets.checkpoints == {
            "resnet18.rgb": Request("resnet18", "rgb"),
            f"{I3D}.rgb": Request(I3D, "rgb"),
            f"{I3D}.flow": Request(I3D, "flow"),
            f"{I3D}.pwc": Request(I3D, "pwc"),
        }

    @pytest.mark.parametrize(
        ("streams", "flow", "components"),
        [
            (None, None, ["rgb", "flow", "raft"]),
            (None, "pwc", ["rgb", "flow", "pwc"]),
            (None, "tvl1", ["rgb", "flow"]),
            (["rgb"], None, ["rgb"]),
            (["rgb"], "pwc", ["rgb"]),
            (["flow"], "raft_kitti", ["flow", "raft_kitti"]),
        ],
    )
    def test_only_what_the_streams_need(
        self, streams: list[str] | None, flow: str | None, components: list[str]
    ) -> None:
        settings = {"streams": streams, "flow": flow}
        of_set = feature_set(I3D, **{k: v for k, v in settings.items() if v is not None})
        assert of_set.records == {c: f"{I3D}.{c}" for c in components}

    def test_a_local_file_is_that_of_its_component(self, tmp_path: Path) -> None:
        file = tmp_path / "w.pth"
        file.touch()
        of_sets = load({I3D: {"flow": str(file)}}, a={"model": I3D, "flow": "tvl1"})
        assert {record: request.local for record, request in of_sets.checkpoints.items()} == {
            f"{I3D}.rgb": None,
            f"{I3D}.flow": str(file),
        }
        assert of_sets.checkpoints[f"{I3D}.flow"].inputs() == [str(file)]

    def test_revisions_of_a_repository_have_records_of_their_own(self) -> None:
        of_sets = load(
            a={"model": "hf/owner/name"},
            b={"model": "hf/owner/name", "step_size": 3},
            c={"model": "hf/owner/name", "revision": "v2"},
            d={"model": "hf/owner-name"},
        )
        records = [of_sets.feature_sets[name].records["rgb"] for name in "abcd"]
        assert records[0] == records[1]
        assert len(set(records)) == 3
        revisions = {request.revision for request in of_sets.checkpoints.values()}
        assert revisions == {"main", "v2"}

    def test_every_record_is_a_file_name_of_its_own(self) -> None:
        of_models = {name: set(feature_set(name).records.values()) for name in NAMES}
        assert sum(map(len, of_models.values())) == len(set().union(*of_models.values()))
        for records in of_models.values():
            assert all(re.fullmatch(r"[\w.@-]+", record) for record in records)

    def test_a_folder_in_place_of_a_repository(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        folder = tmp_path / "models" / "mine"
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "config.json"):
            (folder / name).touch()
        (request,) = load(a={"model": "hf/models/mine"}).checkpoints.values()
        files = ["config.json", "model.safetensors"]
        assert [Path(f).resolve() for f in request.inputs()] == [folder / f for f in files]

    @pytest.mark.parametrize("name", NAMES)
    def test_requests_are_plain_data_for_a_rule(self, name: str) -> None:
        for request in load(a={"model": name}).checkpoints.values():
            facts = json.loads(json.dumps(request.__dict__))
            assert Request(**facts) == request
            published = request.published()
            assert json.loads(json.dumps(published)) == published


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_every_model_come_back(name: str) -> None:
    of_model = feature_set(name)
    parameters = json.loads(json.dumps(of_model.parameters()))
    again = FeatureSet.from_parameters("a", parameters)
    assert again.parameters() == of_model.parameters()
    assert parameters["version"] == model_entry(name).version
    assert again.entry == of_model.entry


def test_the_size_in_the_store_is_no_parameter_of_the_computation() -> None:
    small = feature_set("raft_sintel", size=[64, 64])
    assert small.settings["size"] == [64, 64]
    assert small.parameters() == feature_set("raft_sintel").parameters()
    assert feature_set("raft_sintel", side_size=64).parameters() != small.parameters()


class TestRefused:
    @pytest.mark.parametrize(
        ("model", "settings"),
        [
            (R21D, {"flow": "raft"}),
            (R21D, {"labels": ["cat"]}),
            ("raft_sintel", {"flow": "pwc"}),
            (CLIP, {"hop_seconds": 0.5}),
            ("vggish", {"stack_size": 16}),
            ("vggish", {"step_size": 16}),
            ("vggish", {"frame_interval": 2}),
            ("vggish", {"fps": 5}),
            ("vggish", {"total": 20}),
            ("hf/owner/name", {"prompt": "{}"}),
        ],
    )
    def test_a_key_that_the_model_has_no_use_for(self, model: str, settings: dict) -> None:
        text = fails(model, **settings)
        (key,) = settings
        assert f"features.a.{key} is set, but {model} has no use for it; its own keys: " in text
        own = text.rpartition("its own keys: ")[2].split(", ")
        assert set(COMMON_SETTINGS) <= set(own) == set(model_entry(model).settings)

    @pytest.mark.parametrize("fps", [5, {"method": "sample"}])
    def test_a_rate_beside_a_number_of_frames(self, fps: Any) -> None:
        text = fails(R21D, fps=fps, total=20)
        assert f"features.a has both fps ({fps}) and total (20); allowed: one of them" in text

    @pytest.mark.parametrize("method", ["reencode", "sample", "source"])
    def test_a_number_of_frames_replaces_the_top_level_rate(self, method: str) -> None:
        sets = {"a": {"model": R21D, "total": 20}}
        raw = {"videos": ["in"], "fps": {"method": method}, "features": sets}
        of_set = load_config(raw).feature_sets["a"]
        assert (of_set.total, of_set.fps, of_set.encoding) == (20, None, None)

    @pytest.mark.parametrize(
        ("model", "least"), [(I3D, 10), ("s3d_kinetics400", 13), ("s3d_torchvision", 13)]
    )
    def test_windows_that_the_network_pools_away(self, model: str, least: int) -> None:
        text = fails(model, stack_size=least - 1)
        assert f"features.a.stack_size is {least - 1}; {model} allows {least} or more" in text
        assert feature_set(model, stack_size=least).stack_size == least

    @pytest.mark.parametrize(("model", "own"), [("raft_sintel", 2), ("mvit_v2_s", 16)])
    def test_windows_of_one_size(self, model: str, own: int) -> None:
        text = fails(model, stack_size=own + 1)
        assert f"features.a.stack_size is {own + 1}; {model} allows only {own}" in text
        assert feature_set(model, stack_size=own).stack_size == own

    @pytest.mark.parametrize("model", ["raft_sintel", "pwc_sintel", I3D])
    def test_flow_of_frames_that_are_not_consecutive(self, model: str) -> None:
        text = fails(model, frame_interval=2)
        assert f"features.a.frame_interval is 2; the stream flow of {model} allows only 1" in text
        assert feature_set(model, frame_interval=1).frame_interval == 1
        assert feature_set(I3D, frame_interval=2, streams=["rgb"]).frame_interval == 2

    @pytest.mark.parametrize("pool", ["max", "none"])
    def test_a_pool_without_a_layer(self, pool: str) -> None:
        assert f"features.a.pool is {pool!r}, but there is no layer to pool" in fails(
            R21D, pool=pool
        )
        assert feature_set(R21D, pool=pool, layer="layer4").settings["pool"] == pool


SOUND, FRAMES = {"model": "vggish"}, {"model": R21D}


class TestAlignment:
    def test_with_a_set_of_frames(self) -> None:
        of_sets = load(frames=FRAMES, sound=SOUND | {"align": "frames"})
        assert of_sets.feature_sets["sound"].settings["align"] == "frames"

    @pytest.mark.parametrize("other", ["fraems", "other", "sound"])
    def test_with_an_unknown_set_or_another_sound(self, other: str) -> None:
        sound = SOUND | {"align": other}
        with pytest.raises(ConfigError) as caught:
            load(frames=FRAMES, other=SOUND, sound=sound)
        text = str(caught.value)
        allowed = "allowed: a set that reads frames: frames."
        assert f"features.sound.align is {other!r}; {allowed}" in text
        assert ("Did you mean 'frames'?" in text) is (other == "fraems")

    def test_where_there_is_none(self) -> None:
        text = fails("vggish", align="a")
        assert "features.a.align is 'a'; allowed: a set that reads frames: there is none." in text


class TestLabels:
    def test_as_a_list(self) -> None:
        of_set = feature_set(CLIP, labels=["a cat", "a dog", "a cow"])
        assert of_set.settings["labels"] == ["a cat", "a dog", "a cow"]
        assert of_set.top_k == 3

    def test_as_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "names.txt").write_text("a cat\n  \n\tünï \r\na cow", encoding="utf-8")
        assert feature_set(CLIP, labels="names.txt").settings["labels"] == ["a cat", "ünï", "a cow"]

    def test_as_a_file_of_the_checkout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        names = (CHECKOUT / "resources/demo/labels.txt").read_text().splitlines()
        assert feature_set(CLIP, labels="resources/demo/labels.txt").settings["labels"] == names

    def test_as_a_file_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        text = fails(CLIP, labels="names.txt")
        assert "features.a.labels is 'names.txt', which is no file; allowed: a list" in text
        assert str(tmp_path) in text

    def test_without_any_the_checkpoint_decides_how_many_classes_there_are(self) -> None:
        assert feature_set(CLIP).settings["labels"] is None
        assert feature_set("timm/resnet18").top_k == 5


class TestOpenNames:
    def test_every_pattern_is_tried_here(self) -> None:
        assert OPEN_NAMES.keys() == {entry.name for entry in OPEN_ENTRIES}

    @pytest.mark.parametrize("pattern", OPEN_NAMES)
    def test_what_follows_the_prefix_is_the_name(self, pattern: str) -> None:
        name = OPEN_NAMES[pattern]
        entry = model_entry(name)
        assert entry.name == name
        assert entry.family == pattern.partition("/")[0]
        assert feature_set(name).model == name
        assert load(a={"model": name}).sets_of(entry.family) == ["a"]

    @pytest.mark.parametrize("name", ["timm/", "hf/", "timm", "hf", "tim/resnet18"])
    def test_a_prefix_alone_is_no_model(self, name: str) -> None:
        text = fails(name)
        assert f"features.a.model is {name!r}; allowed: " in text
        assert all(pattern in text for pattern in OPEN_NAMES)

    def test_they_can_have_local_weights(self, tmp_path: Path) -> None:
        file = tmp_path / "w.safetensors"
        file.touch()
        of_sets = load({"timm/resnet18": str(file)}, a={"model": "timm/resnet18"})
        (request,) = of_sets.checkpoints.values()
        assert request.local == str(file)


PACKAGES = {
    "clip": "open_clip",
    "timm": "timm",
    "hf": "transformers",
    "mmaction2": "cv2",
    "r2plus1d_pytorch": "cv2",
}
"""What the core installation leaves out, by extra."""
WITH_EXTRA = {model_entry(name).extra: name for name in NAMES if model_entry(name).extra}


class TestMissingPackages:
    @pytest.fixture(autouse=True)
    def _imported_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [n for n in sys.modules if n.startswith("reelstack.models.")]:
            family = name.rpartition(".")[2]
            if family in PACKAGES:
                monkeypatch.delitem(sys.modules, name)

    def test_every_extra_is_tried_here(self) -> None:
        assert WITH_EXTRA.keys() == PACKAGES.keys()

    @pytest.mark.parametrize("extra", PACKAGES)
    def test_the_error_names_extra_and_environment(
        self, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, PACKAGES[extra], None)
        entry = model_entry(WITH_EXTRA[extra])
        with pytest.raises(ConfigError) as caught:
            create_extractor(entry)
        text = str(caught.value)
        assert f"{entry.name} needs the package {PACKAGES[extra]}, which" in text
        assert f"pip install 'reelstack[{extra}]'" in text
        assert f"--sdm conda (envs/{entry.family}.yaml)" in text

    @pytest.mark.parametrize(
        ("name", "package"),
        [
            ("hf/owner/name", "huggingface_hub"),
            ("timm/resnet18", "huggingface_hub"),
            ("timm/resnet18", "timm"),
        ],
    )
    def test_also_where_the_weights_are_fetched(
        self, name: str, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "reelstack.models.hub", raising=False)
        monkeypatch.delattr(models, "hub", raising=False)  # where an earlier import left it
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ConfigError, match=f"{name} needs the package {package}, which"):
            ensure_checkpoint(Request(name, "rgb"))

    def test_before_a_checkpoint_is_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "open_clip", None)
        monkeypatch.setattr(api, "ensure_checkpoint", lambda _: pytest.fail("downloads"))
        with pytest.raises(ConfigError, match="needs the package open_clip"):
            api.open_extractor(feature_set(CLIP), weights=None, device="cpu")

    def test_a_package_of_the_core_is_no_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        importlib.import_module("reelstack.models.resnet")
        monkeypatch.delitem(sys.modules, "reelstack.models.resnet")
        monkeypatch.setitem(sys.modules, "torchvision.models", None)
        with pytest.raises(ModuleNotFoundError):
            create_extractor(MODELS["resnet18"])
