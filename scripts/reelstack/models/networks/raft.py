"""RAFT: torchvision's networks, run over consecutive frames.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.optical_flow import RAFT

LEAST_SIDE = 128
"""Pixels. The correlation pyramid halves 1/8 of the frame three times and needs 2 points to be left
to interpolate between."""

IGNORED = r"module\.cnet\..*\.norm3\..*"
"""Keys of the authors' checkpoints that are the same module as `downsample.1`, saved twice."""

_AUTHORS_NAMES = (
    (r"^feature_encoder\.", "fnet."),
    (r"^context_encoder\.", "cnet."),
    (r"^(.net)\.convnormrelu\.0\.", r"\1.conv1."),
    (r"^(.net)\.convnormrelu\.1\.", r"\1.norm1."),
    (r"^(.net)\.conv\.", r"\1.conv2."),
    (r"\.convnormrelu(\d)\.0\.", r".conv\1."),
    (r"\.convnormrelu(\d)\.1\.", r".norm\1."),
    (r"\.motion_encoder\.conv(c|f)(?:orr|low)(\d)\.0\.", r".encoder.conv\1\2."),
    (r"\.motion_encoder\.conv\.0\.", ".encoder.conv."),
    (r"\.recurrent_block\.convgru(\d)\.conv(.)\.", r".gru.conv\2\1."),
    (r"^mask_predictor\.convrelu\.0\.", "update_block.mask.0."),
    (r"^mask_predictor\.conv\.", "update_block.mask.2."),
)


def authors_key(key: str) -> str:
    """torchvision's name of a parameter → the one in the authors' checkpoints."""
    for pattern, name in _AUTHORS_NAMES:
        key = re.sub(pattern, name, key)
    return f"module.{key}"


def pair_bytes(height: int, width: int) -> int:
    """Size of one pair's correlation pyramid: 10 MB for 256×344, 5.7 GB for 1080p."""
    points = (height // 8) * (width // 8)
    return points * points * 4 * 85 // 64


def consecutive_flow(network: RAFT, frames: Tensor, *, updates: int, pairs_at_once: int) -> Tensor:
    """Optical flow from each frame to the next: (N + 1, 3, H, W) → (N, 2, H, W) float32 (dx, dy).

    torchvision's `forward` takes pairs: it would encode every frame twice, and upsample the flow
    after each update instead of the last alone.

    Args:
        network: torchvision's `raft_large` or `raft_small`.
        frames: in [-1, 1]; height and width are multiples of 8 of at least `LEAST_SIDE`.
        updates: recurrent updates of the flow.
        pairs_at_once: how many are in memory with all their maps and correlations.
    """
    parts = [frames[k : k + pairs_at_once] for k in range(0, len(frames), pairs_at_once)]
    features = torch.cat([network.feature_encoder(part).float() for part in parts])
    flows = []
    for k in range(0, len(frames) - 1, pairs_at_once):
        second = features[k + 1 : k + 1 + pairs_at_once]
        first = features[k : k + len(second)]
        context = network.context_encoder(frames[k : k + len(second)])
        flows.append(_updated_flow(network, first, second, context, updates=updates))
    return torch.cat(flows)


def _updated_flow(
    network: RAFT, first: Tensor, second: Tensor, context: Tensor, *, updates: int
) -> Tensor:
    size = network.update_block.hidden_state_size
    hidden, context = context[:, :size].tanh(), context[:, size:].relu()
    correlation = network.corr_block
    correlation.corr_pyramid = _correlation_pyramid(first, second, correlation.num_levels)
    start = _coordinates(first)
    flow = torch.zeros_like(start)
    for _ in range(updates):
        similarities = correlation.index_pyramid(start + flow)
        hidden, change = network.update_block(hidden, context, similarities, flow)
        flow = flow + change.float()
    correlation.corr_pyramid = []  # it would stay in memory until the next call
    if network.mask_predictor is None:  # raft_small
        return 8 * functional.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)
    return _convex_upsampling(flow, network.mask_predictor(hidden).float())


def _correlation_pyramid(first: Tensor, second: Tensor, levels: int) -> list[Tensor]:
    """All pairs of points of two maps (B, C, h, w): (B·h·w, 1, h/2ⁱ, w/2ⁱ) for each level i.

    torchvision's own makes a second copy of the largest level to scale it.
    """
    batch, channels, height, width = first.shape
    with torch.autocast(first.device.type, enabled=False):
        volume = (first / channels**0.5).flatten(2).mT @ second.flatten(2)
    pyramid = [volume.view(batch * height * width, 1, height, width)]
    while len(pyramid) < levels:
        pyramid.append(functional.avg_pool2d(pyramid[-1], 2))
    return pyramid


def _coordinates(maps: Tensor) -> Tensor:
    """(B, 2, h, w): x and y of every point."""
    batch, _, height, width = maps.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=maps.device),
        torch.arange(width, device=maps.device),
        indexing="ij",
    )
    return torch.stack([x, y]).float().repeat(batch, 1, 1, 1)


def _convex_upsampling(flow: Tensor, mask: Tensor) -> Tensor:
    """(B, 2, h, w) → (B, 2, 8h, 8w): each point a weighted mean of its 9 coarse neighbours."""
    batch, _, height, width = flow.shape
    weights = mask.view(batch, 1, 9, 64, height, width).softmax(2)
    neighbours = functional.unfold(8 * flow, 3, padding=1).view(batch, 2, 9, 1, height, width)
    points = (weights * neighbours).sum(2)
    return functional.pixel_shuffle(points.view(batch, 2 * 64, height, width), 8)
