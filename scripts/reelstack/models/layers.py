"""Inner layers as features: `layer: layer4.0.conv1`, pooled to one vector a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reelstack.errors import ConfigError, nearest

POOLS = ("mean", "max", "none")


class LayerTap:
    """Keeps the last output of one layer.

    Args:
        networks: stream → network.
        stream: whose network to look at.
        layer: the module's name in it, as in its state dict.
        model: for the error.

    Raises:
        ConfigError: if the model has no such layer, with the nearest names.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], stream: str, layer: str, *, model: str
    ) -> None:
        if stream not in networks:
            raise ConfigError(f"layer is {layer!r}, but {model} has no layers to choose from")
        modules = dict(networks[stream].named_modules())
        del modules[""]
        if layer not in modules:
            top = ", ".join(name for name in modules if "." not in name)
            raise ConfigError(
                f"layer is {layer!r}; {model} ({stream}) has: {top} and what is inside of them."
                f"{nearest(layer, modules)}"
            )
        self._name = layer
        self._output: Tensor | None = None
        self._channel_axis = _known_channel_axis(modules[layer])
        modules[layer].register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, (tuple, list)):
            output = output[0]
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"layer is {self._name!r}, whose output is a {type(output).__name__}; allowed: a "
                "layer with a tensor as output"
            )
        self._output = output.clone()  # what follows may overwrite it: most ReLUs do

    def pooled(self, count: int, pool: str, *, channel_axis: int) -> Tensor:
        """The last output, one row a window, float32.

        Args:
            count: number of windows B; an output with B·T rows (a network that reads single
                frames) is regrouped, and pooled over T too.
            pool: "mean" or "max" over everything but channels → (B, C); "none" → as it is.
            channel_axis: where the model has its channels if there are 4 or more axes.

        Raises:
            ConfigError: if the layer did not run, or its rows are no windows.
        """
        if self._output is None:
            raise ConfigError(f"layer is {self._name!r}, which the model does not run")
        output, self._output = self._output.float(), None
        if len(output) % count:
            raise ConfigError(
                f"layer is {self._name!r}, whose output {tuple(output.shape)} is not a row a "
                f"window ({count} windows)"
            )
        frames = len(output) // count
        if pool == "none":
            return output if frames == 1 else output.view(count, frames, *output.shape[1:])
        axis = 2 if output.ndim == 3 else (self._channel_axis or channel_axis) % output.ndim
        values = output.movedim(axis, -1) if output.ndim > 2 else output
        values = values.reshape(count, -1, values.shape[-1])
        return values.mean(1) if pool == "mean" else torch.amax(values, 1)


def _known_channel_axis(module: nn.Module) -> int | None:
    """Where a module has its channels whatever the model's convention; None if it follows that."""
    if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
        return -1
    convolutions = (nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d)
    return 1 if isinstance(module, convolutions) else None
