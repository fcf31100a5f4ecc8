"""I3D, pretrained on ImageNet and Kinetics-400: one network on RGB, one on optical flow.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR
2017. DeepMind's checkpoints in hassony2's conversion to PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from reelstack.errors import ConfigError, nearest
from reelstack.models.base import Extractor, Inputs
from reelstack.models.checkpoint import load_state, read_state_dict
from reelstack.models.entry import ModelEntry
from reelstack.models.flow_estimators import (
    FlowEstimator,
    flow_into_frames,
    load_network,
)
from reelstack.models.images import resize, shorter_side
from reelstack.models.networks.i3d import I3D

SIDE = 256
"""The shorter side of the frames; flow is computed at this size."""

CROP = 224
CHANNELS = {"rgb": 3, "flow": 2}

LARGEST_FLOW = 20.0
"""Pixels; what is larger is cut. The range ±20 becomes the grey levels 0–256."""

NETWORKS = {"raft": "raft_sintel", "raft_kitti": "raft_kitti", "pwc": "pwc_sintel"}
"""Setting `flow`, which is also the checkpoint's component → the estimator."""

FLOWS = (*NETWORKS, "tvl1")


class I3DExtractor(Extractor):
    """Shorter side to 256 (PIL bilinear, uint8) → centre crop 224 → [-1, 1]; 1024-d per stream.

    A window reads one frame more than `stack_size`: the flow stream has the flow from each of the
    `stack_size` first frames to the next, the RGB stream these frames. Windows are the same
    whatever streams are asked for. Logits are the sum of the streams' logits.

    Raises:
        ConfigError: if `flow` is none of `FLOWS`.
    """

    head = "conv3d_0c_1x1"
    extra_frames = 1
    pairwise = True
    estimator: FlowEstimator

    def __init__(
        self, entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        super().__init__(entry, streams, settings)
        self.classifiers: dict[str, nn.Module] = {}
        if (flow := settings["flow"]) not in FLOWS:
            raise ConfigError(
                f"flow is {flow!r}; allowed: {', '.join(FLOWS)}.{nearest(str(flow), FLOWS)}"
            )

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        for stream in self.streams:
            assert self.entry.num_classes is not None
            network = I3D(CHANNELS[stream], self.entry.num_classes)
            state = read_state_dict(weights[stream])
            load_state(network, state, path=weights[stream], model=f"{self.entry.name} ({stream})")
            self.classifiers[stream] = network.conv3d_0c_1x1.eval().to(self.device)
            network.conv3d_0c_1x1 = nn.Identity()
            self.networks[stream] = self.prepare(network, torch.channels_last_3d)
        if "flow" in self.streams:
            flow = self.settings["flow"]
            self.estimator = (
                load_network(NETWORKS[flow], weights[flow], self)
                if flow in NETWORKS
                else tvl1_estimator(self.device)
            )

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        scaled = self.resized(frames)
        inputs = {}
        if "rgb" in self.streams:
            crops = centre_crop(torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2))
            inputs["rgb"] = to_unit_range(crops.to(self.device).float())
        if "flow" in self.streams:
            earlier = [] if before is None else self.resized(before[None])
            none = torch.zeros(1, 2, CROP, CROP, device=self.device)
            inputs["flow"] = flow_into_frames(self._flow_levels, scaled, earlier, none)
        return inputs

    def _flow_levels(self, frames: NDArray[np.uint8]) -> Tensor:
        # RAFT's map is cropped with the border that its input was padded by, as in video_features.
        return to_unit_range(grey_levels(centre_crop(self.estimator.padded_flow(frames))))

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        size = shorter_side(frames.shape[1:], SIDE)
        return [resize(frame, size) for frame in frames]

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        frames = {"rgb": slice(None, -1), "flow": slice(1, None)}
        features = {}
        with self.inference():
            for stream in self.streams:
                clips = windows[stream][:, frames[stream]].transpose(1, 2)
                clips = clips.contiguous(memory_format=torch.channels_last_3d)
                features[stream] = self.networks[stream](clips).float()
        return features

    @override
    def classify(self, features: Mapping[str, Tensor]) -> Tensor | None:
        with torch.inference_mode():
            logits = [self.classifiers[stream](features[stream]) for stream in self.streams]
            return torch.stack(logits).sum(0)


def centre_crop(planes: Tensor) -> Tensor:
    """(N, C, H, W) → (N, C, 224, 224); of an odd rest the smaller half is left and on top."""
    top, left = ((side - CROP) // 2 for side in planes.shape[2:])
    return planes[..., top : top + CROP, left : left + CROP]


def grey_levels(flow: Tensor) -> Tensor:
    """±20 pixels as whole grey levels 0–256 (256 for 20 exactly), halves rounded to even."""
    return (128 + 255 / (2 * LARGEST_FLOW) * flow.clamp(-LARGEST_FLOW, LARGEST_FLOW)).round()


def to_unit_range(levels: Tensor) -> Tensor:
    """0–255 → [-1, 1]."""
    return 2 * levels / 255 - 1


def tvl1_estimator(device: torch.device) -> FlowEstimator:
    """TV-L1, whose package the core installation leaves out.

    Raises:
        ConfigError: if it is not installed, naming extra and environment.
    """
    try:
        from reelstack.models.tvl1 import TvL1

        return TvL1(device)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"flow is 'tvl1', which needs OpenCV with its contrib modules ({error.name} is "
            "missing): pip install 'reelstack[tvl1]' (in a checkout: pip install -e '.[tvl1]'), "
            "or run the workflow with --sdm conda (envs/i3d.yaml)"
        ) from error


def build(entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]) -> I3DExtractor:
    """The family's extractor for `entry`."""
    return I3DExtractor(entry, streams, settings)
