"""Networks with random weights whose batch norms have something to do."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def randomised(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """`network` in eval mode, with random statistics, gains and biases in its batch norms."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                tensor.uniform_(low, high, generator=generator)
    return network.eval()


def random_frames(num_frames: int, height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """(T, H, W, 3) uint8 noise."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def bilinear(
    plane: NDArray[np.generic], size: tuple[int, int], *, factor: float | None = None
) -> NDArray[np.float64]:
    """(H, W) → `size`: plain bilinear sampling at pixel centres, edges repeated, no filter.

    Args:
        factor: how many pixels of the result make one of the source; `size` / (H, W) by default.
    """

    def positions(length: int, out: int) -> tuple[NDArray, NDArray, NDArray]:
        step = 1 / factor if factor else length / out
        at = np.clip((np.arange(out) + 0.5) * step - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, length - 1), at - low

    top, bottom, down = positions(plane.shape[0], size[0])
    left, right, across = positions(plane.shape[1], size[1])
    values = plane.astype(np.float64)
    rows = values[top] * (1 - down)[:, None] + values[bottom] * down[:, None]
    return rows[:, left] * (1 - across) + rows[:, right] * across
