"""Networks that R2Plus1D-PyTorch has trained: R(2+1)D with any number of blocks and classes.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
No checkpoint is published: it is the user's, as that trainer saves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from reelstack.errors import ConfigError
from reelstack.models.base import ClipNetwork, Inputs
from reelstack.models.entry import ModelEntry
from reelstack.models.networks.r2plus1d_pytorch import R2Plus1DClassifier

HEIGHT, WIDTH = 128, 171
CROP = 112


class R2Plus1DPytorchExtractor(ClipNetwork):
    """Resize to 128×171 (OpenCV bilinear, uint8) → centre crop 112 → (x − 128) / 128.

    The trainer itself crops at random, in validation too; the centre stands for that here.
    """

    head = "linear"

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        classes = len(state["linear.weight"]) if "linear.weight" in state else 1
        if self.class_names and len(self.class_names) != classes and "linear.weight" in state:
            raise ConfigError(
                f"labels has {len(self.class_names)} names, but the checkpoint of "
                f"{self.entry.name} has {classes} classes: name them all, in the order of the "
                "trainer's class folders (sorted), or leave labels out"
            )
        return R2Plus1DClassifier(classes, layer_sizes(state))

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        top, left = (round((side - CROP) / 2) for side in (HEIGHT, WIDTH))
        crops = np.stack(self.resized(frames))[:, top : top + CROP, left : left + CROP]
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device)
        return {"rgb": ((pixels.float() - 128) / 128).permute(0, 3, 1, 2)}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        size = (WIDTH, HEIGHT)
        scaled = (cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames)
        return [np.asarray(frame, np.uint8) for frame in scaled]


def layer_sizes(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Residual blocks in each of the four layers of a checkpoint."""
    names = [key.split(".") for key in state]
    return tuple(
        1 + len({name[3] for name in names if name[:3] == ["res2plus1d", layer, "blocks"]})
        for layer in ("conv2", "conv3", "conv4", "conv5")
    )


def build(
    entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
) -> R2Plus1DPytorchExtractor:
    """The family's extractor for `entry`."""
    cv2.setNumThreads(torch.get_num_threads())  # it would take all cores of the machine
    return R2Plus1DPytorchExtractor(entry, streams, settings)
