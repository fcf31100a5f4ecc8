"""Reading the tensors of a TorchScript archive without running anything in it.

An archive (`torch.jit.save`) is a zip: `data.pkl` pickles the module tree, `data/<key>` holds the
storages, `code/` the classes as text, with the names of each one's parameters and buffers. OpenAI
publishes CLIP in this format. `torch.jit.load` would compile the code, and `torch.load` refuses it.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from reelstack.errors import WeightsError

_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
_LISTS = ("build_boollist", "build_doublelist", "build_intlist", "build_tensorlist")
_CLASS = re.compile(r"^class (\w+)\(Module\):$")
_NAMES = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$")


class _Module:
    """Stands for a scripted module: its attributes are in `__dict__`."""

    qualified_name: str


def is_torchscript(path: Path | str) -> bool:
    """Whether a file is a zip with the record that only TorchScript archives have."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path | str) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive, as `torch.jit.load(path).state_dict()`.

    Tensors are on the CPU, in the stored dtypes; names that share a storage still share it.

    Raises:
        WeightsError: for a damaged archive, and for one whose pickle names anything but tensors,
            scripted modules and plain values: nothing in it is run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _state_dict(archive)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"checkpoint {path} is a TorchScript archive with more than tensors in it and is not "
            f"loaded: {error}. Save its state dict alone."
        ) from error
    except _DAMAGE as error:
        raise WeightsError(
            f"checkpoint {path} cannot be read as a TorchScript archive: {error}. It may be cut "
            "short; delete it to have it fetched again."
        ) from error


_DAMAGE = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What unpickling and rebuilding tensors raise when bytes are not what they should be."""


def _state_dict(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    root = archive.namelist()[0].partition("/")[0]
    module = _Unpickler(archive, root).load()
    return dict(_tensors(module, _stored_names(archive, root), ""))


def _stored_names(archive: zipfile.ZipFile, root: str) -> dict[str, list[str]]:
    """Qualified class name → names of its parameters and buffers, from the code as text."""
    names: dict[str, list[str]] = {}
    for record in archive.namelist():
        if not (record.startswith(f"{root}/code/") and record.endswith(".py")):
            continue
        module = record[len(f"{root}/code/") : -len(".py")].replace("/", ".")
        current: list[str] = []
        for line in archive.read(record).decode().splitlines():
            if found := _CLASS.match(line):
                current = names.setdefault(f"{module}.{found[1]}", [])
            elif found := _NAMES.match(line):
                current += re.findall(r'"([^"]+)"', found[1])
    return names


def _tensors(
    module: _Module, names: Mapping[str, list[str]], prefix: str
) -> Iterator[tuple[str, Tensor]]:
    attributes = vars(module)
    for name in names[module.qualified_name]:
        if attributes[name] is not None:
            yield prefix + name, attributes[name]
    for name, value in attributes.items():
        if isinstance(value, _Module):
            yield from _tensors(value, names, f"{prefix}{name}.")


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows tensors, scripted modules and plain values, and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    @override
    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name.partition(".")[0] == "__torch__":
            name = f"{module_name}.{global_name}"
            return type(global_name, (_Module,), {"qualified_name": name})
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        if (module_name, global_name) in _ALLOWED:
            return _ALLOWED[module_name, global_name]
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")

    @override
    def persistent_load(self, pid: Any) -> Tensor:
        """The storage of a persistent id as a flat tensor; ids are as `torch.save` writes them."""
        kind, dtype, key, _location, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it holds a {kind} that is not a storage")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            if len(content) != count * dtype.itemsize:
                raise ValueError(f"data/{key} has {len(content)} bytes for {count} of {dtype}")
            self._storages[key] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: object) -> Any:
    return value


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", name): _first for name in _LISTS},
}
