"""The keys of a feature set as keywords of a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from reelstack.config import FeatureSet, load_config
from reelstack.errors import ConfigError

_NAME = "set"


class SetOptions(TypedDict, total=False):
    """What `extract_video` takes besides its own arguments; None is as good as left out.

    The meaning is that of a set's keys in the config (config/README.md); `fps` picks frames at a
    constant rate without re-encoding, and every frame is read without it.
    """

    streams: Sequence[str] | None
    stack_size: int | None
    step_size: int | None
    frame_interval: int | None
    fps: float | None
    total: int | None
    tail: str
    precision: str
    top_k: int
    layer: str | None
    pool: str
    dtype: str
    flow: str
    side_size: int | None
    resize_to_smaller_edge: bool
    hop_seconds: float
    clips: int
    crops: int
    labels: Sequence[str] | str | None
    prompt: str
    output: str
    revision: str
    local_files_only: bool


def set_of(model: str, options: SetOptions) -> FeatureSet:
    """The feature set of these options, checked as one of a config is.

    Raises:
        ConfigError: naming key, value, what is allowed and the nearest spelling.
    """
    given = {key: _plain(value) for key, value in options.items() if value is not None}
    if "fps" in given:
        given["fps"] = {"method": "sample", "target": given["fps"]}
    if "top_k" in given:
        given["predictions"] = {"top_k": given.pop("top_k")}
    one_set = {_NAME: {"model": model} | given}
    every_frame = {"method": "source"}
    try:
        config = load_config({"videos": ["-"], "fps": every_frame, "features": one_set})
    except ConfigError as error:
        text = str(error).replace(f"features.{_NAME}.", "").replace(f"features.{_NAME} has", "has")
        raise ConfigError(text) from None
    return config.feature_sets[_NAME]


def _plain(value: Any) -> Any:
    """A tuple as a list, a number of numpy as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value
