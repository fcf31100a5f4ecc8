"""The cheapest model of every family, made small, with random weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from network_factory import randomised
from reelstack.models.i3d import I3D
from reelstack.models.networks.pwc import PWCNet
from reelstack.models.networks.vggish import VGGish
from reelstack.models.registry import create_extractor, model_entry
from torch import Tensor, nn
from torchvision.models.video import s3d
from torchvision.models.video.swin_transformer import SwinTransformer3d
from torchvision.transforms._presets import VideoClassification

NAMES = ["cartwheel", "dive", "jump", "swing", "throw"]


def _small_pooling(make: Callable[..., nn.Module], name: str, *args: Any, **options: Any) -> Any:
    """A network for 64×64, whose last maps are 2×2 and not 7×7."""
    network = make(*args, **options)
    network.set_submodule(name, nn.AvgPool3d(2, stride=1))
    return network


def _small_swin(*_: Any, **__: Any) -> nn.Module:
    """Video Swin with one block a stage; its feature has 768 values, as that of swin3d_t."""
    return SwinTransformer3d([2, 4, 4], 96, [1] * 4, [3, 6, 12, 24], [8, 7, 7])


def _small_transform(_network: str) -> Mapping[str, Any]:
    transforms = partial(VideoClassification, crop_size=(64, 64), resize_size=(72,))
    return {"KINETICS400_V1": SimpleNamespace(transforms=transforms)}


def _small_clip(_name: str) -> dict[str, Any]:
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    vision = {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16}
    return {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}


def _r2plus1d_pytorch() -> nn.Module:
    from reelstack.models.networks.r2plus1d_pytorch import R2Plus1DClassifier

    return R2Plus1DClassifier(len(NAMES), (1, 1, 1, 1))


@dataclass(frozen=True)
class Case:
    """A family's cheapest model.

    Attributes:
        stack, step, interval, extra: its windows, in frames (VGGish: in spectra).
        options: of its sets, beside the windows.
        layer, channels: one inside of it; "" where there is none.
        classes: of its classifier; 0: none.
        network: what its checkpoint is of, where the extractor does not build it from nothing.
        wrapped: whether the published file holds the tensors under `state_dict`.
        package: without which the family is not there.
        small: attribute of a module → what stands in for it, to save time.
    """

    model: str
    stack: int
    step: int
    layer: str = ""
    channels: int = 0
    classes: int = 0
    interval: int = 1
    extra: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    network: Callable[[], nn.Module] | None = None
    wrapped: bool = False
    package: str | None = None
    small: Mapping[str, Any] = field(default_factory=dict)

    @property
    def component(self) -> str:
        return model_entry(self.model).components[0]

    @property
    def span(self) -> int:
        """Frames from the first that a window needs to the last."""
        return (self.stack + self.extra - 1) * self.interval + 1


_MODELS = "reelstack.models."
CASES: dict[str, Case] = {
    "r21d": Case("r2plus1d_tiny_motion", 4, 2, "layer2", 40, classes=8),
    "resnet": Case(
        "resnet18", 3, 2, "layer2.0", 128, classes=1000,
        small={f"{_MODELS}resnet.RESIZE": 72, f"{_MODELS}resnet.CROP": 64},
    ),
    "i3d": Case(
        "i3d_kinetics400", 10, 5, "mixed_3b", 256, classes=400, extra=1,
        options={"streams": ["rgb"]}, network=partial(I3D, 3),
        small={
            f"{_MODELS}i3d.SIDE": 72,
            f"{_MODELS}i3d.CROP": 64,
            f"{_MODELS}i3d.I3D": partial(_small_pooling, I3D, "avg_pool"),
        },
    ),
    "flow": Case("pwc_sintel", 2, 2, network=PWCNet),
    "s3d": Case(
        "s3d_kinetics400", 13, 6, "features.3", 192, classes=400,
        small={
            f"{_MODELS}s3d.SIDE": 64,
            f"{_MODELS}s3d.s3d": partial(_small_pooling, s3d, "avgpool"),
        },
    ),
    "vggish": Case(
        "vggish", 96, 32, "features.3", 16, options={"hop_seconds": 0.32}, network=VGGish,
        small={
            f"{_MODELS}networks.vggish._HIDDEN": 64,
            f"{_MODELS}networks.vggish._CHANNELS": ((8,), (16,), (16, 16), (32, 32)),
        },
    ),
    "mmaction2": Case(
        "mmaction2/r2plus1d_r34_8x8x1", 8, 4, "backbone.layer2", 128, classes=400, interval=8,
        wrapped=True, package="cv2",
        small={
            f"{_MODELS}mmaction2.SIDE": 72,
            f"{_MODELS}mmaction2.CENTRE": 64,
            f"{_MODELS}networks.mmaction2.BLOCKS": (1, 1, 1, 1),
        },
    ),
    "r2plus1d_pytorch": Case(
        "r2plus1d_pytorch", 4, 2, "res2plus1d.conv3", 128, classes=len(NAMES),
        options={"labels": NAMES}, network=_r2plus1d_pytorch, wrapped=True, package="cv2",
        small={
            f"{_MODELS}r2plus1d_pytorch.HEIGHT": 36,
            f"{_MODELS}r2plus1d_pytorch.WIDTH": 48,
            f"{_MODELS}r2plus1d_pytorch.CROP": 32,
        },
    ),
    "torchvision_video": Case(
        "swin3d_t", 4, 2, "features.2", 192, classes=400,
        small={
            f"{_MODELS}torchvision_video.get_model": _small_swin,
            f"{_MODELS}torchvision_video.get_model_weights": _small_transform,
        },
    ),
    "clip": Case(
        "clip/ViT-B-32", 3, 2, "transformer.resblocks.0", 64, classes=len(NAMES),
        options={"labels": NAMES}, package="open_clip",
        small={"open_clip.get_model_config": _small_clip},
    ),
    "timm": Case("timm/test_resnet", 3, 2, "layer2", 48, classes=1000, package="timm"),
    "hf": Case(
        "hf/<folder>", 4, 2, "videomae.encoder.layer.0", 24, classes=len(NAMES),
        package="transformers",
    ),
}  # fmt: skip
"""By family."""


@contextmanager
def made_small(case: Case) -> Iterator[None]:
    """The stand-ins are in place; skips where the family's package is missing."""
    if case.package is not None:
        pytest.importorskip(case.package)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in case.small.items():
            module, _, attribute = name.rpartition(".")
            patch.setattr(importlib.import_module(module), attribute, value)
        yield


def published_state(case: Case) -> dict[str, Tensor]:
    """Random weights under the published names."""
    torch.manual_seed(0)
    if case.network is not None:
        return dict(_lively(case.network()).state_dict())
    extractor: Any = create_extractor(model_entry(case.model))
    state = _lively(extractor.build_network({})).state_dict()
    return {extractor.published_key(key): value for key, value in state.items()}


def _lively(network: nn.Module) -> nn.Module:
    """Weights that carry the input through every layer: PyTorch's own let deep networks fade."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight)
    return randomised(network)


def save_checkpoint(case: Case, folder: Path) -> Path:
    """A file (hf: a folder) with random weights in the published layout."""
    if case.model.startswith("hf/"):
        return save_videomae(folder)
    state = published_state(case)
    torch.save({"meta": {"epoch": 3}, "state_dict": state} if case.wrapped else state, folder / "w")
    return folder / "w"


def save_videomae(folder: Path) -> Path:
    import transformers

    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(NAMES)),
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    facts = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder
