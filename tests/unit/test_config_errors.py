"""A wrong value for every key of the config: the message names key, value and what is allowed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from reelstack.config import load_config
from reelstack.config.schema import SCHEMA_PATH
from reelstack.errors import ConfigError

SCHEMA: dict[str, Any] = yaml.safe_load(SCHEMA_PATH.read_text())
SET = "features.a"
BASE: dict[str, Any] = {"videos": ["in"], "features": {"a": {"model": "resnet50"}}}

LISTS: dict[str, list[Any]] = {"streams": [""], "size": [1, 1]}
"""Keys of a set whose values are lists, with one to put a wrong entry into."""

WRONG: list[tuple[str, Any, str]] = [
    ("videos", [], "at least one folder, glob, file or .txt/.csv list"),
    ("videos", "in", "a list of at least one"),
    ("videos.0", 7, "a path or a glob"),
    ("videos.0", "", "a path or a glob"),
    ("output", "", "path of a folder"),
    ("output", "out/{x}", "path of a folder, without < > { } * ?"),
    ("output", 3, "path of a folder"),
    ("fps", 25, "a mapping with target, method, encoder"),
    ("fps.target", 0, "a number above 0 and up to 1000"),
    ("fps.target", -25, "a number above 0 and up to 1000"),
    ("fps.target", 1001, "a number above 0 and up to 1000"),
    ("fps.target", "25", "a number above 0 and up to 1000"),
    ("fps.target", True, "a number above 0 and up to 1000"),
    ("fps.target", float("nan"), "a number above 0 and up to 1000"),
    ("fps.method", "resample", "reencode, sample, source"),
    ("fps.encoder", "libx264", "a mapping with codec, preset, crf, pix_fmt"),
    ("fps.encoder.codec", "libx263", "libx264, libx265"),
    ("fps.encoder.preset", "fastest", "ultrafast, superfast, veryfast"),
    ("fps.encoder.crf", 52, "a whole number from 0 (lossless) to 51"),
    ("fps.encoder.crf", -1, "a whole number from 0 (lossless) to 51"),
    ("fps.encoder.crf", 1.5, "a whole number from 0 (lossless) to 51"),
    ("fps.encoder.pix_fmt", "rgb24", "yuv420p, yuv422p, yuv444p"),
    ("keep_reencoded", "yes", "true or false"),
    ("shard", 64, "a mapping with max_videos, max_bytes"),
    ("shard.max_videos", 0, "a whole number of 1 or more"),
    ("shard.max_videos", 2.5, "a whole number of 1 or more"),
    ("shard.max_bytes", -1, "a whole number of 1 or more"),
    ("tail", "loop", "drop, pad"),
    ("precision", "fp16", "fp32, bf16"),
    ("predictions", 5, "a mapping with top_k"),
    ("predictions.top_k", -1, "a whole number of 0 or more"),
    ("predictions.top_k", "all", "a whole number of 0 or more"),
    ("strict", 1, "true or false"),
    ("weights", ["w.pth"], "a mapping model to path"),
    ("weights.resnet50", 1, "a path, or a mapping component to path"),
    ("weights.resnet50", {}, "a path, or a mapping component to path"),
    ("features", {}, "a mapping of at least one set"),
    ("features", ["resnet50"], "a mapping of at least one set"),
    (SET, "resnet50", "a mapping with at least model"),
    (f"{SET}.model", 50, "a model's name"),
    (f"{SET}.streams", [], "a list of the model's streams"),
    (f"{SET}.streams", ["rgb", "rgb"], "each once"),
    (f"{SET}.streams", "rgb", "a list of the model's streams"),
    (f"{SET}.streams.0", 1, "a stream's name"),
    (f"{SET}.stack_size", 0, "a whole number of 1 or more"),
    (f"{SET}.stack_size", "16", "a whole number of 1 or more"),
    (f"{SET}.step_size", 0, "a whole number of 1 or more"),
    (f"{SET}.step_size", -8, "a whole number of 1 or more"),
    (f"{SET}.fps", 0, "a number above 0 and up to 1000, or a mapping"),
    (f"{SET}.fps", "25", "a number above 0 and up to 1000, or a mapping"),
    (f"{SET}.fps.target", -1, "a number above 0 and up to 1000"),
    (f"{SET}.fps.method", "x", "reencode, sample, source"),
    (f"{SET}.tail", "loop", "drop, pad"),
    (f"{SET}.precision", "fp64", "fp32, bf16"),
    (f"{SET}.predictions", 3, "a mapping with top_k"),
    (f"{SET}.predictions.top_k", -2, "a whole number of 0 or more"),
    (f"{SET}.frame_interval", 0, "a whole number of 1 or more"),
    (f"{SET}.total", 0, "a whole number of 1 or more"),
    (f"{SET}.total", "20", "a whole number of 1 or more"),
    (f"{SET}.layer", "", "a layer's name, e.g. layer4.0.conv1"),
    (f"{SET}.layer", 4, "a layer's name"),
    (f"{SET}.pool", "sum", "mean, max, none"),
    (f"{SET}.dtype", "float64", "float32, float16"),
    (f"{SET}.keep_frames", "yes", "true or false"),
    (f"{SET}.flow", "farneback", "raft, raft_kitti, pwc, tvl1"),
    (f"{SET}.side_size", 15, "a whole number of 16 or more"),
    (f"{SET}.resize_to_smaller_edge", 1, "true or false"),
    (f"{SET}.size", 224, "[height, width], two whole numbers of 1 or more"),
    (f"{SET}.size", [224], "[height, width], two whole numbers of 1 or more"),
    (f"{SET}.size", [3, 224, 224], "[height, width], two whole numbers of 1 or more"),
    (f"{SET}.size.1", 0, "a whole number of 1 or more"),
    (f"{SET}.hop_seconds", 0, "a number of 0.01 or more"),
    (f"{SET}.hop_seconds", float("nan"), "a number of 0.01 or more"),
    (f"{SET}.align", 3, "the name of another set"),
    (f"{SET}.clips", -1, "a whole number of 0 or more"),
    (f"{SET}.crops", 2, "1, 3"),
    (f"{SET}.labels", [], "a list of class names, or a text file with one a line"),
    (f"{SET}.labels", ["cat", ""], "a list of class names, or a text file with one a line"),
    (f"{SET}.prompt", "a photo", "a sentence with {} in the place of the class name"),
    (f"{SET}.output", "mean", "pooled, tokens"),
    (f"{SET}.revision", "", "a commit, tag or branch"),
    (f"{SET}.local_files_only", "no", "true or false"),
]


def with_value(key: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(BASE)
    place: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if part in LISTS and isinstance(place, dict):
            place = raw["features"]["a"][part] = copy.copy(LISTS[part])
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return raw


def fails(raw: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(raw)
    return str(caught.value)


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG)
def test_message_names_key_value_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    text = fails(with_value(key, value))
    assert f"{key} is {value!r}; allowed: " in text
    assert allowed in text.split("allowed: ", 1)[1]


def schema_keys(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key that a config may have, sets written as `features.a`."""
    for key, rule in schema.get("properties", {}).items():
        yield f"{prefix}{key}"
        yield from schema_keys(rule, f"{prefix}{key}.")
        if key == "features":
            yield from schema_keys(rule["additionalProperties"], f"{SET}.")


def test_every_key_has_a_wrong_value_above() -> None:
    tried = {key for key, _, _ in WRONG}
    assert [key for key in schema_keys(SCHEMA) if key not in tried] == []


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("vidoes", "videos"),
        ("fps.targets", "target"),
        ("fps.encoder.presets", "preset"),
        ("shard.max_video", "max_videos"),
        ("predictions.topk", "top_k"),
        ("features.a.stepsize", "step_size"),
        ("features.a.predictions.topk", "top_k"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest_spelling(key: str, nearest: str) -> None:
    text = fails(with_value(key, 1))
    assert f"{key}: unknown key; allowed: " in text
    assert f"Did you mean '{nearest}'?" in text


@pytest.mark.parametrize("level", ["", "fps.", "fps.encoder.", "shard.", "predictions.", f"{SET}."])
def test_every_level_is_closed(level: str) -> None:
    assert f"{level}zzz: unknown key; allowed: " in fails(with_value(f"{level}zzz", 1))


def test_numbers_as_names_are_refused_like_others() -> None:
    assert "7: unknown key; allowed: videos, " in fails({**BASE, 7: "x"})
    assert "weights.7: unknown model" in fails({**BASE, "weights": {7: "x"}})
    features = {7: {"model": "resnet50"}}
    text = fails({**BASE, "features": features})
    assert "features has the name 7; allowed: names of letters" in text


@pytest.mark.parametrize("missing", ["videos", "features"])
def test_required_keys(missing: str) -> None:
    raw = {key: value for key, value in BASE.items() if key != missing}
    assert f"(top level): {missing} is missing; required: videos, features" in fails(raw)


def test_a_set_needs_a_model() -> None:
    assert f"{SET}: model is missing; required: model" in fails(with_value(SET, {}))


@pytest.mark.parametrize("name", ["", "a b", "../a", "a.b", "-a", "ä", "a/b", ".hidden"])
def test_names_of_sets_are_safe_as_folders(name: str) -> None:
    text = fails({**BASE, "features": {name: {"model": "resnet50"}}})
    assert repr(name) in text
    assert "names of letters, digits, _ and -" in text


def test_a_bad_nearest_spelling_is_not_made_up() -> None:
    assert "Did you mean" not in fails(with_value("qqqqqq", 1))
