"""The config: every wrong value is named, every default is filled in."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from reelstack.config import FeatureSet, load_config
from reelstack.errors import ConfigError
from reelstack.files import CHECKOUT
from reelstack.models.registry import MODELS

R21D = "r2plus1d_18_16_kinetics"
DEMO_WEIGHTS = "resources/demo/motion_r2plus1d.safetensors"
COMMON = {"layer": None, "pool": "mean", "dtype": "float32", "keep_frames": False}


def config(**changes: Any) -> dict[str, Any]:
    return {"videos": ["in"], "features": {"a": {"model": R21D}}, **changes}


def of_set(**settings: Any) -> dict[str, Any]:
    return config(features={"a": {"model": R21D, **settings}})


def fails(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(raw)
    return str(caught.value)


def test_defaults_are_filled_in() -> None:
    raw = config()
    before = copy.deepcopy(raw)
    merged = load_config(raw).merged
    assert raw == before, "the caller's mapping was changed"
    assert merged == {
        "videos": ["in"],
        "features": {"a": {"model": R21D}},
        "output": "results",
        "fps": {
            "target": 25,
            "method": "reencode",
            "encoder": {
                "codec": "libx264",
                "preset": merged["fps"]["encoder"]["preset"],  # chosen by measurement
                "crf": merged["fps"]["encoder"]["crf"],
                "pix_fmt": "yuv420p",
            },
        },
        "keep_reencoded": True,
        "shard": {"max_videos": 64, "max_bytes": 4_000_000_000},
        "tail": "drop",
        "precision": "fp32",
        "predictions": {"top_k": 5},
        "strict": False,
        "weights": {},
    }


def test_merging_twice_changes_nothing() -> None:
    merged = load_config(config(fps={"target": 5})).merged
    assert load_config(merged).merged == merged
    assert load_config(yaml.safe_load(yaml.safe_dump(merged))).merged == merged


def test_the_shipped_config_is_valid_and_uses_the_shipped_model() -> None:
    shipped = load_config(yaml.safe_load((CHECKOUT / "config/config.yaml").read_text()))
    assert {s.model for s in shipped.feature_sets.values()} == {"r2plus1d_tiny_motion"}
    assert shipped.checkpoints.keys() == {"r2plus1d_tiny_motion.rgb"}
    assert shipped.encodings == {"fps25": 25.0}


@pytest.mark.parametrize("name", MODELS)
def test_windows_default_to_the_models_own(name: str) -> None:
    of_model = load_config(config(features={"a": {"model": name}})).feature_sets["a"]
    entry = MODELS[name]
    assert (of_model.stack_size, of_model.step_size) == (entry.stack_size, entry.step_size)
    assert of_model.frame_interval == entry.frame_interval
    assert of_model.streams == entry.streams
    assert of_model.settings == entry.settings
    assert of_model.entry is entry


def test_a_set_overrides_the_top_level() -> None:
    raw = config(
        tail="pad",
        precision="bf16",
        predictions={"top_k": 2},
        features={
            "inherits": {"model": R21D},
            "own": {
                "model": R21D,
                "tail": "drop",
                "precision": "fp32",
                "predictions": {"top_k": 0},
                "stack_size": 8,
                "step_size": 40,
                "streams": ["rgb"],
            },
        },
    )
    sets = load_config(raw).feature_sets
    assert sets["inherits"] == FeatureSet(
        name="inherits",
        model=R21D,
        streams=("rgb",),
        stack_size=16,
        step_size=16,
        frame_interval=1,
        tail="pad",
        precision="bf16",
        top_k=2,
        fps=25.0,
        fps_method="reencode",
        total=None,
        settings=COMMON,
    )
    assert sets["own"] == replace(
        sets["inherits"],
        name="own",
        stack_size=8,
        step_size=40,
        tail="drop",
        precision="fp32",
        top_k=0,
    )


def test_top_k_ends_at_the_number_of_classes() -> None:
    raw = config(predictions={"top_k": 999}, features={"a": {"model": "r2plus1d_tiny_motion"}})
    assert load_config(raw).feature_sets["a"].top_k == 8


@pytest.mark.parametrize(
    ("top", "own", "expected"),
    [
        ({}, None, (25.0, "reencode", "fps25")),
        ({"target": 12.5}, None, (12.5, "reencode", "fps12.5")),
        ({}, 10, (10.0, "reencode", "fps10")),
        ({"method": "sample"}, 10, (10.0, "sample", None)),
        ({}, {"method": "sample"}, (25.0, "sample", None)),
        ({}, {"target": 5, "method": "sample"}, (5.0, "sample", None)),
        ({}, {"target": 29.97}, (29.97, "reencode", "fps29.97")),
        ({}, {"method": "source"}, (None, "source", None)),
        ({"method": "source"}, None, (None, "source", None)),
        ({"method": "source", "target": 5}, None, (None, "source", None)),
        ({"method": "source"}, {"method": "sample"}, (25.0, "sample", None)),
    ],
)
def test_frame_rates_of_a_set(top: dict, own: Any, expected: tuple) -> None:
    raw = of_set(fps=own) if own is not None else of_set()
    feature_set = load_config(raw | {"fps": top}).feature_sets["a"]
    assert (feature_set.fps, feature_set.fps_method, feature_set.encoding) == expected


@pytest.mark.parametrize(
    ("top", "own"),
    [({}, {"method": "source", "target": 5}), ({"method": "source"}, {"target": 5})],
)
def test_a_rate_with_source_is_a_contradiction(top: dict, own: dict) -> None:
    text = fails(of_set(fps=own) | {"fps": top})
    assert "features.a.fps.target is 5, but the method is 'source'" in text
    assert "allowed: method reencode or sample" in text


def test_encodings_are_those_that_some_set_reads() -> None:
    sets = {
        "a": {"model": R21D},
        "b": {"model": "resnet18", "fps": 5},
        "c": {"model": "resnet18", "fps": {"method": "sample", "target": 7}},
        "d": {"model": "resnet18", "fps": 25.0},
    }
    loaded = load_config(config(features=sets))
    assert loaded.encodings == {"fps25": 25.0, "fps5": 5.0}
    assert loaded.sets_of("resnet") == ["b", "c", "d"]
    assert loaded.sets_of("r21d") == ["a"]
    assert loaded.checkpoints.keys() == {f"{R21D}.rgb", "resnet18.rgb"}


def test_parameters_hold_all_but_the_name_and_come_back() -> None:
    feature_set = load_config(of_set(fps=5, tail="pad")).feature_sets["a"]
    parameters = feature_set.parameters()
    assert parameters == {
        "model": R21D,
        "streams": ["rgb"],
        "stack_size": 16,
        "step_size": 16,
        "frame_interval": 1,
        "tail": "pad",
        "precision": "fp32",
        "top_k": 5,
        "fps": 5.0,
        "fps_method": "reencode",
        "total": None,
        "settings": COMMON,
        "version": MODELS[R21D].version,
    }
    assert FeatureSet.from_parameters("a", parameters) == feature_set


class TestWeights:
    def test_a_path_is_the_first_component(self, tmp_path: Path) -> None:
        file = tmp_path / "w.pth"
        file.touch()
        assert load_config(config(weights={R21D: str(file)})).weights == {R21D: {"rgb": str(file)}}

    def test_a_mapping_names_components(self, tmp_path: Path) -> None:
        file = tmp_path / "w.pth"
        file.touch()
        loaded = load_config(config(weights={R21D: {"rgb": str(file)}}))
        assert loaded.weights == {R21D: {"rgb": str(file)}}

    def test_relative_paths_start_here_and_then_in_the_checkout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        raw = config(weights={"r2plus1d_tiny_motion": DEMO_WEIGHTS})
        shipped = {"rgb": str(CHECKOUT / DEMO_WEIGHTS)}
        assert load_config(raw).weights["r2plus1d_tiny_motion"] == shipped
        own = tmp_path / DEMO_WEIGHTS
        own.parent.mkdir(parents=True)
        shutil.copy(CHECKOUT / DEMO_WEIGHTS, own)
        assert load_config(raw).weights["r2plus1d_tiny_motion"] == {"rgb": DEMO_WEIGHTS}

    def test_an_unknown_model(self) -> None:
        text = fails(config(weights={"resnet_50": "w.pth"}))
        assert "weights.resnet_50: unknown model; " in text
        assert "allowed: r2plus1d_18_16_kinetics, " in text
        assert "Did you mean 'resnet50'?" in text

    def test_an_unknown_component(self) -> None:
        text = fails(config(weights={R21D: {"rbg": "w.pth"}}))
        assert f"weights.{R21D}.rbg: unknown component; allowed: rgb." in text
        assert "Did you mean 'rgb'?" in text

    def test_a_missing_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        text = fails(config(weights={R21D: "w.pth"}))
        assert f"weights.{R21D}.rgb is 'w.pth', which is no file" in text
        assert str(tmp_path) in text

    def test_a_folder_is_a_checkpoint_of_transformers_only(self, tmp_path: Path) -> None:
        folder = {"rgb": str(tmp_path)}
        assert "which is no file" in fails(config(weights={R21D: folder}))
        assert load_config(config(weights={"hf/x": folder})).weights == {"hf/x": folder}
        file = tmp_path / "w.safetensors"
        file.touch()
        assert "which is no folder" in fails(config(weights={"hf/x": str(file)}))


def test_an_unknown_model_of_a_set_is_named_with_the_nearest() -> None:
    text = fails(config(features={"a": {"model": "r2plus1d_18_16_kinetic"}}))
    assert "features.a.model is 'r2plus1d_18_16_kinetic'; allowed: " in text
    assert all(name in text for name in MODELS)
    assert f"Did you mean '{R21D}'?" in text


def test_an_unknown_stream() -> None:
    text = fails(of_set(streams=["rbg"]))
    assert f"features.a.streams has 'rbg'; {R21D} computes: rgb. Did you mean 'rgb'?" in text


def test_all_problems_are_told_at_once() -> None:
    text = fails({"vidoes": ["in"], "tail": "x", "features": {"a": {"model": R21D, "step": 1}}})
    assert len(text.splitlines()) == 5  # title, unknown key, missing key, tail, features.a.step
