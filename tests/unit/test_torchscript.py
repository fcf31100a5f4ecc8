"""TorchScript archives: the tensors of `torch.jit.load`, and nothing of them is run."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reelstack.errors import WeightsError
from reelstack.models.torchscript import is_torchscript, read_torchscript
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width).half()
        self.mask = torch.ones(width, width)  # an attribute, no buffer
        self.sizes = [1, 2, 3]
        self.name = "block"

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.half()).float() @ self.mask


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block(3)
        self.second = Block(4)  # the same class, with a mangled name in the archive
        self.norm = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.tied = self.norm[0].weight
        self.transposed = nn.Parameter(torch.rand(2, 5).t())
        whole = torch.arange(10.0)
        self.part, self.rest = nn.Parameter(whole[2:6]), nn.Parameter(whole[4:])
        self.absent = nn.Parameter(torch.zeros(0).half())
        self.register_buffer("resolution", torch.tensor(224))
        self.register_buffer("flags", torch.tensor([True, False]))

    def forward(self, x: Tensor) -> Tensor:
        total = (
            self.transposed.sum()
            + self.part.sum()
            + self.rest.sum()
            + self.tied.sum()
            + self.absent.sum()
        )
        wide = self.second(torch.cat([x, x[:, :1]], 1)).sum() + self.resolution + self.flags.sum()
        return self.first(self.norm(x)) + total + wide


NETWORK_KEYS = (b"tied", b"transposed", b"part", b"rest", b"absent", b"resolution", b"flags")


def scripted(network: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(network), str(path))
    return path


def traced(network: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.trace(network, torch.rand(2, 3)), str(path))
    return path


@pytest.fixture(autouse=True)
def _old_format() -> Any:
    with warnings.catch_warnings():  # torch.jit is deprecated; published files are in its format
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return scripted(Network().eval(), tmp_path / "network.pt")


@pytest.mark.parametrize("write", [scripted, traced])
def test_the_state_dict_of_torch(write: Callable[[nn.Module, Path], Path], tmp_path: Path) -> None:
    torch.manual_seed(4)
    path = write(Network().eval(), tmp_path / "network.pt")
    expected = torch.jit.load(str(path)).state_dict()
    state = read_torchscript(path)
    assert list(state) == list(expected)
    assert not any("mask" in key for key in state)
    for key, value in state.items():
        assert value.dtype == expected[key].dtype
        assert torch.equal(value, expected[key]), key
    assert state["first.linear.weight"].dtype == torch.float16
    assert state["transposed"].stride() == (1, 5)


def test_tensors_share_what_they_shared(archive: Path) -> None:
    state = read_torchscript(archive)
    assert state["tied"].data_ptr() == state["norm.0.weight"].data_ptr()
    assert state["part"][2:].data_ptr() == state["rest"].data_ptr()


def test_what_is_an_archive(archive: Path, tmp_path: Path) -> None:
    plain, text = tmp_path / "plain.pt", tmp_path / "text.pt"
    torch.save(Network().state_dict(), plain)
    text.write_text("no zip")
    assert [is_torchscript(path) for path in (archive, plain, text)] == [True, False, False]


def rewritten(archive: Path, record: str, content: bytes) -> Path:
    """A copy of the archive with other bytes in one record."""
    path = archive.with_name("rewritten.pt")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            wanted = info.filename.endswith(record)
            new.writestr(info.filename, content if wanted else old.read(info))
    return path


def code_of(archive: Path) -> tuple[str, str]:
    """The record with the code of `Network`, and what is in it."""
    with zipfile.ZipFile(archive) as stored:
        for name in stored.namelist():
            if name.endswith(".py") and "class Network(" in (code := stored.read(name).decode()):
                return name, code
    raise AssertionError


class Run:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_code_in_an_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = rewritten(archive, "data.pkl", pickle.dumps(Run(open, str(ran), "w"), 2))
    with pytest.raises(WeightsError, match="more than tensors in it and is not loaded: it names"):
        read_torchscript(path)
    assert not ran.exists()


@pytest.mark.parametrize(
    "call", [Run(torch.load, "x"), Run(torch._utils._rebuild_tensor, 1), Run(getattr, 1, "real")]
)
def test_only_what_archives_need_is_known(archive: Path, call: Run) -> None:
    path = rewritten(archive, "data.pkl", pickle.dumps(call, 2))
    with pytest.raises(WeightsError, match="it names"):
        read_torchscript(path)


def test_the_code_is_not_run(archive: Path, tmp_path: Path) -> None:
    """It is read as text; what torch would compile and import is not even valid here."""
    record, source = code_of(archive)
    ran = tmp_path / "ran"
    bad = f"open({str(ran)!r}, 'w')\nimport nothing.of.the.kind (\n{source}"
    path = rewritten(archive, record, bad.encode())
    expected, state = read_torchscript(archive), read_torchscript(path)
    assert list(state) == list(expected)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("record", "content"),
    [
        ("data.pkl", b""),
        ("data.pkl", b"\x80\x02]q\x00."),
        ("data.pkl", b"garbage"),
        ("data/0", b""),
        ("data/0", b"123"),
    ],
)
def test_damaged_records(archive: Path, record: str, content: bytes) -> None:
    with pytest.raises(WeightsError):
        read_torchscript(rewritten(archive, record, content))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_archive(archive: Path, share: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    assert not is_torchscript(archive)
    with pytest.raises(WeightsError, match="cut short"):
        read_torchscript(archive)


def test_a_module_in_itself_ends(archive: Path) -> None:
    """A pickle can hold cycles, which no network has."""
    module = code_of(archive)[0].partition("/code/")[2].removesuffix(".py").replace("/", ".")
    name = f"c{module}\nNetwork\n".encode()
    keys = [b"X%c\x00\x00\x00%s" % (len(key), key) for key in NETWORK_KEYS]
    attributes = b"(" + b"N".join(keys) + b"NX\x04\x00\x00\x00selfh\x01u"
    loop = b"\x80\x02" + name + b")\x81q\x01}" + attributes + b"b."
    with pytest.raises(WeightsError, match=r"cannot be read .*recursion"):
        read_torchscript(rewritten(archive, "data.pkl", loop))


def test_code_without_the_class(archive: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_torchscript(rewritten(archive, code_of(archive)[0], b""))
