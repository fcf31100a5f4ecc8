"""Reading checkpoints: never executed, never silently incomplete."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reelstack.errors import WeightsError

_LISTED = 8


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a torch file, on the CPU.

    A torch file may be the state dict itself or hold it under `state_dict`; it is read with
    `weights_only=True`, so code in it is refused.

    Raises:
        WeightsError: for a missing, truncated or unsafe file, or one without tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"checkpoint {path} holds more than tensors and is not loaded, because reading it "
            f"would run code from it: {_first_line(error)}. Save its state dict alone."
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


def load_checkpoint(network: nn.Module, path: Path | str, *, model: str) -> None:
    """Load a published checkpoint into `network`, all of it or nothing.

    `num_batches_tracked` may be absent: inference does not use it.

    Raises:
        WeightsError: listing missing and unexpected keys and keys of another shape.
    """
    state = read_state_dict(path)
    expected = network.state_dict()
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:_LISTED])}{' …' if len(keys) > _LISTED else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", shapes),
        )
        if keys
    ]
    if problems:
        raise WeightsError(f"checkpoint {path} is not one of {model}:\n  " + "\n  ".join(problems))
    network.load_state_dict(state, strict=False)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _kind(content: object) -> str:
    if isinstance(content, dict):
        return f"a mapping with the keys {', '.join(map(str, list(content)[:_LISTED])) or 'none'}"
    return re.sub(r"<class '(.*)'>", r"\1", str(type(content)))
