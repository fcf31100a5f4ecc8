"""Reading checkpoints: never executed, never silently incomplete."""

from __future__ import annotations

import codecs
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import safe_globals

from reelstack.errors import WeightsError
from reelstack.models.torchscript import is_torchscript, read_torchscript

_LISTED = 8
_PARALLEL = "module."


class _Ignored:
    """Stands for an object that is in a checkpoint beside its tensors; nothing of it is run."""

    def __setstate__(self, state: object) -> None:
        """Forget it."""


_BESIDE_THE_TENSORS: list[Any] = [
    (_Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
    (np.dtype, "numpy.dtype"),
    (np.ndarray, "numpy.ndarray"),
    *((np.dtypes.__dict__[name], f"numpy.dtypes.{name}") for name in np.dtypes.__all__),
    *(
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for core in ("core", "_core")
    ),
    (codecs.encode, "_codecs.encode"),
]
"""Training logs of mmengine and numbers of numpy, which checkpoints carry along."""


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, a torch file or a TorchScript archive, on the CPU.

    A torch file may be the state dict itself or hold it under `state_dict`; it is read with
    `weights_only=True`, so code in it is refused. Of an archive only the tensors are read.

    Raises:
        WeightsError: for a missing, truncated or unsafe file, or one without tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if is_torchscript(path):
            return read_torchscript(path)
        with safe_globals(_BESIDE_THE_TENSORS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"checkpoint {path} holds more than tensors and is not loaded, because reading it "
            f"would run code from it ({_named_code(error)}). Save its state dict alone."
        ) from error
    except (RuntimeError, SafetensorError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"checkpoint {path} cannot be read: {_first_line(error)}. It may be cut "
            "short or of another format; delete it to have it fetched again."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = isinstance(content, dict) and all(isinstance(v, Tensor) for v in content.values())
    if not tensors or not content:
        raise WeightsError(f"checkpoint {path} is no state dict: it holds {_kind(content)}")
    return dict(content)


def load_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    path: Path | str,
    model: str,
    published: Callable[[str], str] = str,
    ignored: str | None = None,
) -> None:
    """Load a published checkpoint into `network`, all of it or nothing.

    `num_batches_tracked` may be absent: inference does not use it. So may the prefix `module.` of a
    network that was saved from DataParallel, or it may be there.

    Args:
        state: the checkpoint's tensors; `path` and `model` are for the error.
        published: the network's key → the checkpoint's.
        ignored: regular expression of the checkpoint's keys that the network has no use for.

    Raises:
        WeightsError: listing missing and unexpected keys and keys of another shape.
    """
    expected = {published(key): (key, value) for key, value in network.state_dict().items()}
    if all(k.startswith(_PARALLEL) for k in state) and not any(
        k.startswith(_PARALLEL) for k in expected
    ):
        state = {k.removeprefix(_PARALLEL): value for k, value in state.items()}
    problems = _differences({name: value for name, (_, value) in expected.items()}, state, ignored)
    if problems:
        raise WeightsError(f"checkpoint {path} is not one of {model}:\n  " + "\n  ".join(problems))
    network.load_state_dict(
        {key: state[name] for name, (key, _) in expected.items() if name in state}, strict=False
    )


def _differences(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], ignored: str | None
) -> list[str]:
    """A line per kind of difference, listing the first keys."""
    optional = re.compile(rf".*num_batches_tracked|{ignored or '(?!)'}")
    kinds = {
        "missing": [
            k for k in expected if k not in state and not k.endswith("num_batches_tracked")
        ],
        "unexpected": [k for k in state if k not in expected and not optional.fullmatch(k)],
        "wrong shape": [
            f"{k} {tuple(state[k].shape)} instead of {tuple(value.shape)}"
            for k, value in expected.items()
            if k in state and state[k].shape != value.shape
        ],
    }
    return [
        f"{len(keys)} {kind}: {', '.join(keys[:_LISTED])}{' …' if len(keys) > _LISTED else ''}"
        for kind, keys in kinds.items()
        if keys
    ]


def _named_code(error: Exception) -> str:
    """What the pickle asks for, without torch's advice to run it."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1].rstrip(".") if found else "its pickle is no plain data"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _kind(content: object) -> str:
    if isinstance(content, dict):
        return f"a mapping with the keys {', '.join(map(str, list(content)[:_LISTED])) or 'none'}"
    return re.sub(r"<class '(.*)'>", r"\1", str(type(content)))
