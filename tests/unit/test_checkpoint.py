"""Checkpoints: all of it or nothing, and never executed."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reelstack.errors import WeightsError
from reelstack.models.checkpoint import load_state, read_state_dict
from safetensors.torch import save_file
from torch import nn


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {k: torch.rand_like(v.float()).to(v.dtype) for k, v in network().state_dict().items()}


def load(target: nn.Module, path: Path, **options: Any) -> None:
    load_state(target, read_state_dict(path), path=path, model="some_model", **options)


def fails(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load(network(), path)
    return str(caught.value)


SAVERS: dict[str, Callable[[dict, Path], None]] = {
    "plain.pth": torch.save,
    "wrapped.pth": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "old_format.pt": lambda state, path: torch.save(
        state, path, _use_new_zipfile_serialization=False
    ),
    "tensors.safetensors": lambda state, path: save_file(state, path),
}


@pytest.mark.parametrize("name", SAVERS)
def test_every_format_gives_the_same_tensors(tmp_path: Path, state: dict, name: str) -> None:
    SAVERS[name](state, tmp_path / name)
    loaded = read_state_dict(tmp_path / name)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[k], state[k]) for k in state)
    target = network()
    load(target, tmp_path / name)
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items())


def test_counters_of_batch_norm_may_be_absent(tmp_path: Path, state: dict) -> None:
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pth")
    target = network()
    load(target, tmp_path / "w.pth")
    assert torch.equal(target.state_dict()["0.weight"], state["0.weight"])


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path: Path, state: dict) -> None:
    del state["0.bias"], state["2.weight"]
    state["extra.weight"] = torch.zeros(2)
    state["1.weight"] = torch.zeros(5, 2)
    torch.save(state, tmp_path / "w.pth")
    target = network()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load(target, tmp_path / "w.pth")
    text = str(caught.value)
    assert "w.pth is not one of some_model" in text
    assert "2 missing: 0.bias, 2.weight" in text
    assert "1 unexpected: extra.weight" in text
    assert "1 wrong shape: 1.weight (5, 2) instead of (4,)" in text
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_a_long_list_is_shortened(tmp_path: Path, state: dict) -> None:
    state |= {f"extra.{n}": torch.zeros(1) for n in range(50)}
    torch.save(state, tmp_path / "w.pth")
    text = fails(tmp_path / "w.pth")
    assert "50 unexpected: extra.0, " in text
    assert text.endswith("…")
    assert "extra.20" not in text


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_truncated_file(tmp_path: Path, state: dict, name: str, share: float) -> None:
    SAVERS["plain.pth" if name.endswith("pth") else "tensors.safetensors"](state, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    text = fails(tmp_path / name)
    assert f"{name} " in text
    assert "cannot be read" in text or "holds more than tensors" in text


class Harmful:
    """Touches a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("saver", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, state: dict, saver: str) -> None:
    victim = tmp_path / "was-here"
    content = {"state_dict": state, "hook": Harmful(victim)}
    path = tmp_path / "w.pth"
    if saver == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    text = fails(path)
    assert not victim.exists(), "the checkpoint ran code"
    assert "would run code" in text
    assert "Save its state dict alone" in text
    pickle.loads(pickle.dumps(Harmful(victim)))
    assert victim.exists(), "the test's own bomb is a dud"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "a mapping with the keys none"),
        ({"epoch": 3, "lr": 0.1}, "a mapping with the keys epoch, lr"),
        ([1, 2], "list"),
        (torch.zeros(3), "torch.Tensor"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert f"is no state dict: it holds {says}" in fails(tmp_path / "w.pth")


def test_a_missing_file(tmp_path: Path) -> None:
    assert fails(tmp_path / "w.pth") == f"checkpoint {tmp_path / 'w.pth'}: no such file"


def renamed(key: str) -> str:
    """What a checkpoint calls the parameter `key` of the network."""
    return f"module.{key}"


def test_a_checkpoint_with_names_of_its_own(tmp_path: Path, state: dict) -> None:
    torch.save({renamed(key): value for key, value in state.items()}, tmp_path / "w.pth")
    target = network()
    load(target, tmp_path / "w.pth", published=renamed)
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items())


def test_what_such_a_checkpoint_lacks_is_told_in_its_own_names(tmp_path: Path, state: dict) -> None:
    del state["0.bias"]
    published = {renamed(key): value for key, value in state.items()} | {"2.bias": torch.zeros(2)}
    torch.save(published, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing: module\.0\.bias\n.*1 unexpected: 2\.bias$"):
        load(network(), tmp_path / "w.pth", published=renamed)


def test_a_network_that_was_saved_from_data_parallel(tmp_path: Path, state: dict) -> None:
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "w.pth")
    target = network()
    load(target, tmp_path / "w.pth")
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items())
    half = {key if "0." in key else f"module.{key}": value for key, value in state.items()}
    torch.save(half, tmp_path / "w.pth")
    assert "unexpected: module.1.weight, " in fails(tmp_path / "w.pth")


def test_keys_that_the_network_has_no_use_for(tmp_path: Path, state: dict) -> None:
    torch.save(state | {"text.0": torch.zeros(1), "text.1": torch.zeros(1)}, tmp_path / "w.pth")
    target = network()
    load(target, tmp_path / "w.pth", ignored=r"text\.\d+")
    assert torch.equal(target.state_dict()["0.weight"], state["0.weight"])
    with pytest.raises(WeightsError, match=r"1 unexpected: text\.1"):
        load(network(), tmp_path / "w.pth", ignored=r"text\.0")


def test_no_pattern_excuses_a_missing_parameter(tmp_path: Path, state: dict) -> None:
    """Whatever a family ignores, nothing runs untrained."""
    del state["0.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing: 0\.bias"):
        load(network(), tmp_path / "w.pth", ignored=r".*bias")


def test_logs_of_a_trainer_beside_the_tensors_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmengine's checkpoints hold its log buffers and numbers of numpy; its package is not here."""
    name = "mmengine.logging.history_buffer"
    module = types.ModuleType(name)
    buffer = type("HistoryBuffer", (), {"__module__": name})
    module.HistoryBuffer = buffer  # type: ignore[attr-defined]
    log = buffer()
    log.history, log.count = np.arange(3.0), np.int64(3)
    for package in ("mmengine", "mmengine.logging", name):
        monkeypatch.setitem(sys.modules, package, module)
    content = {"meta": {"accuracy": np.float64(0.7)}, "message_hub": {"log": log}}
    torch.save({**content, "state_dict": network().state_dict()}, tmp_path / "w.pth")
    for package in ("mmengine", "mmengine.logging", name):
        monkeypatch.delitem(sys.modules, package)
    assert read_state_dict(tmp_path / "w.pth").keys() == network().state_dict().keys()


def test_a_network_saved_from_data_parallel(tmp_path: Path) -> None:
    parallel = {f"module.{key}": value for key, value in network().state_dict().items()}
    target = network()
    load_state(target, parallel, path=tmp_path / "w.pth", model="some_model")
    for key, value in target.state_dict().items():
        assert torch.equal(value, parallel[f"module.{key}"])
