"""Every family refuses weights that are not its own, all of it or nothing, and runs none."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from family_cases import CASES, NAMES, made_small, published_state, save_videomae
from family_factory import Family
from reelstack.errors import WeightsError
from safetensors.torch import load_file, save_file
from torch import Tensor

State = dict[str, Tensor]
FILES = [name for name in CASES if name != "hf"]


@pytest.fixture(scope="module", params=FILES)
def published(request: pytest.FixtureRequest) -> Iterator[tuple[Family, State]]:
    """A family, and zeros of the published names and shapes, which take no room in a file."""
    case = CASES[request.param]
    with made_small(case):
        state = {
            key: torch.zeros((), dtype=value.dtype).expand(value.shape)
            for key, value in published_state(case).items()
        }
        yield Family(case, Path(), Path()), state


def save(family: Family, content: State, path: Path) -> Path:
    torch.save({"state_dict": content} if family.case.wrapped else content, path)
    return path


def refusal(family: Family, path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        family.open(family.set(), path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def weight_of(state: State) -> str:
    """A key in the middle, of a weight and not of a counter."""
    keys = [key for key, value in state.items() if value.ndim > 1]
    return keys[len(keys) // 2]


class TestFiles:
    def test_the_right_one_is_taken(self, published: tuple[Family, State], tmp_path: Path) -> None:
        """What the others are broken from."""
        family, state = published
        family.open(family.set(), save(family, state, tmp_path / "w.pth"))

    def test_a_missing_key(self, published: tuple[Family, State], tmp_path: Path) -> None:
        family, state = published
        key = weight_of(state)
        rest = {k: value for k, value in state.items() if k != key}
        text = refusal(family, save(family, rest, tmp_path / "w.pth"))
        assert f"is not one of {family.case.model}" in text
        assert f"1 missing: {key}" in text
        assert "unexpected" not in text

    def test_an_unexpected_key(self, published: tuple[Family, State], tmp_path: Path) -> None:
        family, state = published
        more = {**state, "extra.weight": torch.zeros(2)}
        text = refusal(family, save(family, more, tmp_path / "w.pth"))
        assert "1 unexpected: extra.weight" in text
        assert "missing" not in text

    def test_another_shape(self, published: tuple[Family, State], tmp_path: Path) -> None:
        family, state = published
        key = weight_of(state)
        shape = tuple(state[key].shape)
        other = {**state, key: torch.zeros(1).expand(shape[0] + 1, *shape[1:])}
        text = refusal(family, save(family, other, tmp_path / "w.pth"))
        assert f"1 wrong shape: {key} {tuple(other[key].shape)} instead of {shape}" in text

    @pytest.mark.parametrize("share", [0.3, 0.95])
    def test_a_truncated_file(
        self, published: tuple[Family, State], share: float, tmp_path: Path
    ) -> None:
        family, state = published
        path = save(family, state, tmp_path / "w.pth")
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "cannot be read" in refusal(family, path)

    def test_code_is_not_run(self, published: tuple[Family, State], tmp_path: Path) -> None:
        family, state = published
        victim = tmp_path / "was-here"
        path = save(family, {**state, "hook": Harmful(victim)}, tmp_path / "w.pth")
        assert "would run code" in refusal(family, path)
        assert not victim.exists(), "the checkpoint ran code"
        pickle.loads(pickle.dumps(Harmful(victim)))
        assert victim.exists(), "the test's own bomb is a dud"

    def test_weights_of_another_family(
        self, published: tuple[Family, State], tmp_path: Path
    ) -> None:
        family, _ = published
        other = {f"layers.{n}.weight": torch.zeros(2, 2) for n in range(20)}
        text = refusal(family, save(family, other, tmp_path / "w.pth"))
        assert "missing: " in text
        assert "20 unexpected: layers.0.weight, " in text


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.victim),)


KEY = "videomae.encoder.layer.1.output.dense.weight"


class TestFolders:
    @pytest.fixture
    def family(self, tmp_path: Path) -> Family:
        with made_small(CASES["hf"]):
            return Family(CASES["hf"], save_videomae(tmp_path), tmp_path)

    @staticmethod
    def change(family: Family, edit: Callable[[State], object]) -> Path:
        path = family.checkpoint / "model.safetensors"
        state = load_file(path)
        assert KEY in state
        edit(state)
        save_file(state, path, metadata={"format": "pt"})
        return family.checkpoint

    def test_the_right_one_is_taken(self, family: Family) -> None:
        family.open(family.set(), self.change(family, dict.copy))

    def test_a_missing_key(self, family: Family) -> None:
        text = refusal(family, self.change(family, lambda state: state.pop(KEY)))
        assert f"1 missing: {KEY}" in text

    def test_an_unexpected_key_is_logged(
        self, family: Family, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Repositories hold what is for training alone, such as decoders."""
        extra = {"extra.weight": torch.zeros(2)}
        folder = self.change(family, lambda state: state.update(extra))
        with caplog.at_level("INFO", logger="reelstack"):
            family.open(family.set(), folder)
        assert f"{folder}: not used: extra.weight" in caplog.messages

    def test_another_shape(self, family: Family) -> None:
        other = {KEY: torch.zeros(3, 3)}
        text = refusal(family, self.change(family, lambda state: state.update(other)))
        assert KEY in text

    @pytest.mark.parametrize("share", [0.3, 0.95])
    def test_a_truncated_file(self, family: Family, share: float) -> None:
        path = family.checkpoint / "model.safetensors"
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "cannot be loaded as a videomae" in refusal(family, family.checkpoint)

    def test_pickles_are_not_read(self, family: Family) -> None:
        path = family.checkpoint / "model.safetensors"
        victim = family.checkpoint / "was-here"
        torch.save(
            {**load_file(path), "hook": Harmful(victim)}, path.with_name("pytorch_model.bin")
        )
        path.unlink()
        assert "has no .safetensors file" in refusal(family, family.checkpoint)
        assert not victim.exists()

    def test_another_number_of_classes(self, family: Family) -> None:
        path = family.checkpoint / "config.json"
        facts = json.loads(path.read_text())
        names = {str(number): f"class {number}" for number in range(len(NAMES) + 2)}
        path.write_text(json.dumps({**facts, "id2label": names, "label2id": {}}))
        assert "classifier.weight" in refusal(family, family.checkpoint)
