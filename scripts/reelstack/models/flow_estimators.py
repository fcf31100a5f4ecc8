"""Optical flow by a network: what the flow family and I3D's flow stream share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.models.optical_flow import raft_large, raft_small
from typing_extensions import override

from reelstack.errors import VideoError
from reelstack.models.base import Extractor
from reelstack.models.checkpoint import load_state, read_state_dict
from reelstack.models.networks import pwc, raft

CPU_BYTES = 64 << 20
"""Of correlations that are in memory together: 6 pairs of 256×341, which are as fast as more. A
larger pair is computed alone."""

GPU_BYTES = 2 << 30
"""The same on a GPU."""

AUTHORS_UPDATES = 20
"""Updates of the flow with the authors' checkpoints, as in video_features and the authors' demo."""

TORCHVISION_UPDATES = 12
"""Updates with torchvision's checkpoints: what torchvision's networks do by default."""


class FlowEstimator(ABC):
    """Optical flow from each frame to the next."""

    @abstractmethod
    def flow(self, frames: NDArray[np.uint8]) -> Tensor:
        """(N + 1, H, W, 3) uint8 RGB → (N, 2, H, W) float32 (dx, dy) in pixels, on the device."""

    def padded_flow(self, frames: NDArray[np.uint8]) -> Tensor:
        """The same with the border that the network's input was padded by, if it was."""
        return self.flow(frames)


class Raft(FlowEstimator):
    """RAFT on frames padded to multiples of 8 by their edge, `pad // 2` of it left and on top.

    Args:
        name: "raft_sintel", "raft_kitti" (the authors' checkpoints), "raft_large" or "raft_small"
            (torchvision's).
        owner: says on which device and how precisely to compute.

    Raises:
        WeightsError: if the checkpoint is not one of RAFT's.
    """

    def __init__(self, name: str, path: Path, owner: Extractor) -> None:
        network = raft_small() if name == "raft_small" else raft_large()
        state = read_state_dict(path)
        if name in ("raft_large", "raft_small"):
            load_state(network, state, path=path, model=name)
            self._updates = TORCHVISION_UPDATES
        else:
            load_state(
                network,
                state,
                path=path,
                model=name,
                published=raft.authors_key,
                ignored=raft.IGNORED,
            )
            self._updates = AUTHORS_UPDATES
        self._network = owner.prepare(network, torch.contiguous_format)
        self._owner = owner

    @override
    def flow(self, frames: NDArray[np.uint8]) -> Tensor:
        height, width = frames.shape[1:3]
        left, _, top, _ = raft_padding(height, width)
        return self.padded_flow(frames)[:, :, top : top + height, left : left + width]

    @override
    def padded_flow(self, frames: NDArray[np.uint8]) -> Tensor:
        planes = as_planes(frames, self._owner.device).div_(255).mul_(2).sub_(1)
        planes = functional.pad(planes, raft_padding(*frames.shape[1:3]), mode="replicate")
        pairs = pairs_at_once(raft.pair_bytes(*planes.shape[2:]), self._owner.device)
        with self._owner.inference():
            return raft.consecutive_flow(
                self._network, planes, updates=self._updates, pairs_at_once=pairs
            )


class Pwc(FlowEstimator):
    """PWC-Net on frames stretched to multiples of 64, as BGR in [0, 1].

    Raises:
        WeightsError: if the checkpoint is not one of PWC-Net's.
    """

    def __init__(self, name: str, path: Path, owner: Extractor) -> None:
        network = pwc.PWCNet()
        state = {pwc.original_key(k): v for k, v in read_state_dict(path).items()}
        load_state(network, state, path=path, model=name)
        self._network = owner.prepare(network, torch.contiguous_format)
        self._owner = owner

    @override
    def flow(self, frames: NDArray[np.uint8]) -> Tensor:
        height, width = frames.shape[1:3]
        size = [-(-side // pwc.SIDE_MULTIPLE) * pwc.SIDE_MULTIPLE for side in (height, width)]
        pairs = pairs_at_once(pwc.pair_bytes(*size), self._owner.device)
        flows = []
        for first in range(0, len(frames) - 1, pairs):
            planes = as_planes(frames[first : first + pairs + 1], self._owner.device)
            planes = _stretched(planes.flip(1) / 255, size)
            with self._owner.inference():
                flow = self._network(planes)
            flows.append(_stretched(pwc.FLOW_SCALE * flow, (height, width)))
        scale = torch.tensor([width / size[1], height / size[0]], device=self._owner.device)
        return torch.cat(flows) * scale.view(2, 1, 1)


def load_network(name: str, path: Path, owner: Extractor) -> FlowEstimator:
    """The estimator `name` (one of `Raft`'s or "pwc_sintel") with the checkpoint at `path`."""
    return Pwc(name, path, owner) if name == "pwc_sintel" else Raft(name, path, owner)


def flow_into_frames(
    estimate: Callable[[NDArray[np.uint8]], Tensor],
    frames: Sequence[NDArray[np.uint8]],
    before: Sequence[NDArray[np.uint8]],
    none: Tensor,
) -> Tensor:
    """Flow into each frame from the one before it: (N, 2, h, w).

    Args:
        estimate: (M + 1, H, W, 3) → (M, 2, h, w).
        frames: N frames (H, W, 3), uint8 RGB.
        before: the one frame before them, or nothing at the start and after a gap.
        none: (1, 2, h, w), the item of the first frame if there is nothing before it.

    Raises:
        VideoError: if `before` has another size: there is no flow between the two.
    """
    if before and before[0].shape != frames[0].shape:
        old, new = (f"{f.shape[1]}×{f.shape[0]}" for f in (before[0], frames[0]))
        raise VideoError(
            "unreadable",
            f"the frame size changes from {old} to {new} within the video, and there is no optical "
            "flow between the two; fps.method: reencode gives all frames one size",
        )
    sequence = np.stack([*before, *frames])
    flows = [] if before else [none]
    if len(sequence) > 1:
        flows.append(estimate(sequence))
    return torch.cat(flows)


def raft_padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: up to the next multiples of 8, and at least the least side."""
    missing = [max(-(-side // 8) * 8, raft.LEAST_SIDE) - side for side in (width, height)]
    (left, right), (top, bottom) = ((pad // 2, pad - pad // 2) for pad in missing)
    return left, right, top, bottom


def as_planes(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32, 0–255."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return pixels.permute(0, 3, 1, 2).float().contiguous()


def pairs_at_once(pair_bytes: int, device: torch.device) -> int:
    """How many pairs of frames to compute together; one, however large, is always possible."""
    limit = CPU_BYTES if device.type == "cpu" else GPU_BYTES
    return max(1, limit // pair_bytes)


def _stretched(planes: Tensor, size: tuple[int, ...] | list[int]) -> Tensor:
    return functional.interpolate(planes, tuple(size), mode="bilinear", align_corners=False)
