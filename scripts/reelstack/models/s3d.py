"""S3D: separable 3D convolutions in an Inception network, weights of kylemin/S3D.

Xie et al., "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video
Classification", ECCV 2018. Trained on Kinetics-400 with 64 frames at 25 fps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.video import s3d
from typing_extensions import override

from reelstack.models.base import ClipNetwork, Inputs
from reelstack.models.entry import ModelEntry

SIDE = 224


class S3DNetwork(ClipNetwork):
    """torchvision's S3D; the feature is the mean over time of the pooled maps, (B, 1024).

    The classifier is a 1×1×1 convolution whose outputs are averaged over time, which is the same
    as the convolution of that mean.
    """

    head = "classifier"

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        network: nn.Module = s3d(num_classes=self.entry.num_classes)
        return network

    @override
    def classify(self, features: Mapping[str, Tensor]) -> Tensor | None:
        with torch.inference_mode():
            logits: Tensor = self.classifier(features["rgb"][..., None, None, None])
            return logits.flatten(1)


class S3DExtractor(S3DNetwork):
    """[0, 1] without normalisation, shorter side scaled to 224, centre crop 224."""

    @override
    def published_key(self, key: str) -> str:
        return published_key(key)

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        planes = scale(torch.from_numpy(np.ascontiguousarray(frames)).to(self.device))
        top, left = (round((side - SIDE) / 2) for side in planes.shape[2:])
        return {"rgb": planes[..., top : top + SIDE, left : left + SIDE]}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        planes = scale(torch.from_numpy(np.ascontiguousarray(frames)))
        return list((planes * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def scale(pixels: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, h, w) float32 in [0, 1] with the shorter side at 224.

    Bilinear, not antialiased. The factor itself sets the coordinates and the sides are rounded
    down, which makes the shorter one 223 for some sizes (e.g. 314).
    """
    planes = pixels.permute(0, 3, 1, 2).float() / 255
    return functional.interpolate(
        planes,
        scale_factor=SIDE / min(pixels.shape[1:3]),
        mode="bilinear",
        align_corners=False,
        recompute_scale_factor=False,
    )


def published_key(key: str) -> str:
    """The name of a parameter of torchvision's S3D in kylemin's checkpoint."""
    key = key.replace("features.", "base.").replace("classifier.1.", "fc.0.")
    key = key.replace("branch0.", "branch0.0.")
    parts = ("conv", "bn")
    if found := re.fullmatch(r"(base\.[03]|.*branch[12]\.1)\.([01])\.([01])\.(\w+)", key):
        module, factor, part, leaf = found.groups()
        return f"{module}.{parts[int(part)]}_{'st'[int(factor)]}.{leaf}"
    if found := re.fullmatch(r"(base\..*)\.([01])\.(\w+)", key):
        module, part, leaf = found.groups()
        return f"{module}.{parts[int(part)]}.{leaf}"
    return key


def build(entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]) -> S3DExtractor:
    """The family's extractor for `entry`."""
    return S3DExtractor(entry, streams, settings)
