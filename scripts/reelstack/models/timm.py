"""Any image model of timm per frame, with the transform and the classifier of its own weights.

Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_data_config
from timm.models import PretrainedCfg
from torch import Tensor, nn
from typing_extensions import override

from reelstack.errors import ConfigError, WeightsError, nearest
from reelstack.models.base import FrameNetwork, Inputs
from reelstack.models.checkpoint import load_state, read_state_dict
from reelstack.models.entries import IMAGENET
from reelstack.models.entry import ModelEntry
from reelstack.models.labels import read_names


def pretrained_config(name: str) -> PretrainedCfg:
    """What timm knows of a model's published weights: input, transform, classes, repository.

    Args:
        name: with or without the tag of the weights; without it, timm's default.

    Raises:
        ConfigError: for a name or tag that timm does not have, with the nearest ones.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(
            f"model is 'timm/{name}'; timm {timm.__version__} has no model of that name."
            f"{nearest(architecture, timm.list_models())}"
        )
    names = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in names:
        tags = ", ".join(f"timm/{other}" for other in names)
        raise ConfigError(f"model is 'timm/{name}'; allowed: timm/{architecture}, {tags}")
    return timm.get_pretrained_cfg(name) or PretrainedCfg(architecture=architecture)


class TimmExtractor(FrameNetwork):
    """The weights' own transform on PIL images → pooled features before the classifier, (B, D)."""

    final: nn.Module | None

    def __init__(
        self, entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        super().__init__(entry, streams, settings)
        self.name = entry.name.removeprefix("timm/")
        self.input = resolve_data_config(pretrained_cfg=pretrained_config(self.name).to_dict())
        self.transform: Callable[[Image.Image], Tensor] = create_transform(**self.input)

    @override
    def build_network(self, state: Mapping[str, Tensor]) -> nn.Module:
        network: nn.Module = timm.create_model(self.name)
        return network

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        path = weights["rgb"]
        state = read_state_dict(path)
        network = self.build_network(state)
        try:
            load_state(network, state, path=path, model=self.entry.name)
        except WeightsError:
            converted = converted_network(self.name, state)  # keys of another code base?
            if converted is None:
                raise
            network = converted
        self.layout = self.memory_format()
        network = self.prepare(network, self.layout)
        if getattr(network, "output_fmt", None) == "NHWC":
            self.channel_axis = -1
        self.final = classifier_of(network, self.input["input_size"])
        self.class_names = class_names_of(network)
        self.networks = {"rgb": network}

    @override
    def prepare(self, network: nn.Module, layout: torch.memory_format) -> nn.Module:
        # timm's batch norms contain the activation, so they are not folded into convolutions.
        moved: nn.Module = network.eval().to(self.device).to(memory_format=layout)  # type: ignore[call-overload]
        return moved

    @override
    def preprocess(
        self, frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None
    ) -> Inputs:
        planes = [self.transform(Image.fromarray(frame)) for frame in frames]
        return {"rgb": torch.stack(planes).to(self.device)}

    @override
    def resized(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        resize = self.transform.transforms[0]  # type: ignore[attr-defined]
        return [np.asarray(resize(Image.fromarray(frame))) for frame in frames]

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        network: Any = self.networks["rgb"]
        frames = self.arrange(windows["rgb"])
        with self.inference():
            features = network.forward_head(network.forward_features(frames), pre_logits=True)
        return {"rgb": features.float().unflatten(0, windows["rgb"].shape[:2]).mean(1)}

    @override
    def classify(self, features: Mapping[str, Tensor]) -> Tensor | None:
        if self.final is None:
            return None
        with torch.inference_mode():
            logits: Tensor = self.final(features["rgb"])
            return logits


_NOT_CONVERTED = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What timm's converters raise on keys that they do not know."""


def converted_network(name: str, state: Mapping[str, Tensor]) -> nn.Module | None:
    """The network from keys that timm itself converts; None if it cannot, or not all of them.

    For some models timm leaves weights that a checkpoint lacks as they were drawn. Two networks
    differ in those.
    """
    networks = []
    for _ in range(2):
        try:
            network = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)}
            )
        except _NOT_CONVERTED:
            return None
        del network.pretrained_cfg["state_dict"]
        networks.append(network)
    first, second = (network.state_dict() for network in networks)
    complete = all(torch.equal(first[key], second[key]) for key in first)
    return networks[0] if complete else None


def classifier_of(network: nn.Module, input_size: tuple[int, int, int]) -> nn.Module | None:
    """What turns pooled features into the model's logits.

    None for a model without classes, and where the logits are not a function of the pooled features
    alone (distilled models, CrossViT, VOLO …), as seen on one probe image of `input_size`.
    """
    model: Any = network
    classifier = model.get_classifier()
    if isinstance(classifier, nn.Conv2d):
        classifier = nn.Sequential(nn.Unflatten(1, (-1, 1, 1)), classifier, nn.Flatten())
    if not model.num_classes or not isinstance(classifier, nn.Module):
        return None
    device = next(network.parameters()).device
    probe = torch.linspace(-1, 1, int(np.prod(input_size)), device=device).view(1, *input_size)
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(probe), pre_logits=True)
        try:
            logits = classifier(features)
        except (IndexError, NotImplementedError, RuntimeError):
            return None
        same = torch.allclose(logits, model(probe), rtol=1e-3, atol=1e-4)
    return classifier if same else None


def class_names_of(network: nn.Module) -> tuple[str, ...]:
    """The classes of an ImageNet subset by their number, in timm's words beyond ImageNet-1k."""
    count = int(getattr(network, "num_classes", 0))
    if count == 1000:
        return read_names(IMAGENET)
    subset = infer_imagenet_subset({"num_classes": count})
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


def build(entry: ModelEntry, streams: Sequence[str], settings: Mapping[str, Any]) -> TimmExtractor:
    """The family's extractor for `entry`."""
    return TimmExtractor(entry, streams, settings)
