"""timm's models: its own transform, features and logits, with the smallest networks it has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

timm = pytest.importorskip("timm")

from reelstack.errors import ConfigError, WeightsError  # noqa: E402
from reelstack.models.base import Extractor  # noqa: E402
from reelstack.models.entries import IMAGENET  # noqa: E402
from reelstack.models.labels import read_names  # noqa: E402
from reelstack.models.registry import create_extractor, model_entry  # noqa: E402
from reelstack.models.timm import class_names_of, classifier_of  # noqa: E402

SMALL = ("test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_mambaout")


def network(name: str, seed: int = 3) -> Any:
    torch.manual_seed(seed)
    model = timm.create_model(name).eval()
    with torch.no_grad():  # what starts as zeros or ones would hide mistakes
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def opened(name: str, path: Path, state: Any = None, **settings: Any) -> Extractor:
    torch.save(network(name).state_dict() if state is None else state, path / "timm.pth")
    extractor = create_extractor(model_entry(f"timm/{name}"), settings=settings)
    extractor.load({"rgb": path / "timm.pth"}, device="cpu", precision="fp32")
    return extractor


def frames(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, 180, 230, 3), dtype=np.uint8)


def assert_features(extractor: Extractor, model: Any) -> torch.Tensor:
    """Features equal the plain model's on the same pixels; returns them."""
    pixels = extractor.preprocess(frames())["rgb"]
    features = extractor.forward({"rgb": pixels[:, None]})["rgb"]
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    return features


@pytest.mark.parametrize("name", SMALL)
def test_features_and_logits_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    extractor, model = opened(name, tmp_path), network(name)
    features = assert_features(extractor, model)
    logits = extractor.classify({"rgb": features})
    assert logits is not None
    pixels = extractor.preprocess(frames())["rgb"]
    with torch.inference_mode():
        torch.testing.assert_close(logits, model(pixels), rtol=1e-4, atol=1e-4)
    assert extractor.class_names == read_names(IMAGENET)
    alone = torch.cat([extractor.forward({"rgb": p[None, None]})["rgb"] for p in pixels])
    torch.testing.assert_close(alone, features, rtol=1e-4, atol=1e-5)
    stack = extractor.forward({"rgb": pixels[None]})["rgb"]
    torch.testing.assert_close(stack[0], features.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit", "tf_efficientnet_lite0"])
def test_pixels_are_those_of_the_weights_own_transform(name: str, tmp_path: Path) -> None:
    extractor = opened(name, tmp_path)
    settings = timm.data.resolve_data_config(pretrained_cfg=network(name).pretrained_cfg)
    transform = timm.data.create_transform(**settings, is_training=False)
    video = frames()
    expected = torch.stack([transform(Image.fromarray(frame)) for frame in video])
    assert torch.equal(extractor.preprocess(video)["rgb"], expected)
    shown = extractor.resized(video)[0]
    assert (shown.dtype, shown.ndim) == (np.uint8, 3)
    assert min(shown.shape[:2]) == transform.transforms[0].size


def test_a_convolution_as_classifier(tmp_path: Path) -> None:
    extractor, model = opened("dla46_c", tmp_path), network("dla46_c")
    logits = extractor.classify({"rgb": assert_features(extractor, model)})
    assert logits is not None
    with torch.inference_mode():
        expected = model(extractor.preprocess(frames())["rgb"])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_no_predictions_where_the_features_do_not_decide_them(tmp_path: Path) -> None:
    """A distilled model averages two classifiers of two tokens."""
    name = "deit_tiny_distilled_patch16_224"
    extractor = opened(name, tmp_path)
    features = assert_features(extractor, network(name))
    assert extractor.classify({"rgb": features}) is None


class Unlike(nn.Module):
    """Logits that are no function of the pooled features, as VOLO's."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        pooled = x.mean((2, 3))
        return (
            pooled if pre_logits else self.head(pooled) + x.amax((1, 2, 3), keepdim=False)[:, None]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(x)


def test_a_classifier_that_adds_something_else() -> None:
    assert classifier_of(Unlike(), (3, 8, 8)) is None


def test_keys_that_timm_converts(tmp_path: Path) -> None:
    state = network("test_vit").state_dict()
    converted = {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}
    extractor = opened("test_vit", tmp_path, converted)
    assert_features(extractor, network("test_vit"))
    assert "state_dict" not in extractor.networks["rgb"].pretrained_cfg


def test_an_incomplete_checkpoint_is_refused_where_timm_is_lenient(tmp_path: Path) -> None:
    state = network("dla46_c").state_dict()
    del state["level2.tree1.conv1.weight"]
    with pytest.raises(WeightsError, match=r"1 missing: level2\.tree1\.conv1\.weight"):
        opened("dla46_c", tmp_path, state)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not one of timm/test_vit:\n.*missing"):
        opened("test_vit", tmp_path, network("test_resnet").state_dict())


@pytest.mark.parametrize(
    ("name", "layer", "places"),
    [
        ("test_resnet", "layer3", (2, 3)),
        ("test_vit", "blocks.2", (1,)),
        ("test_mambaout", "stages.3", (1, 2)),  # its maps are (B, h, w, C)
    ],
)
def test_a_layer_is_tapped(name: str, layer: str, places: tuple[int, ...], tmp_path: Path) -> None:
    extractor = opened(name, tmp_path, layer=layer)
    pixels = extractor.preprocess(frames())["rgb"]
    features = extractor.outputs(extractor.forward({"rgb": pixels[:, None]}))["rgb"]
    model, kept = network(name), []
    model.get_submodule(layer).register_forward_hook(lambda *seen: kept.append(seen[2]))
    with torch.inference_mode():
        model.forward_features(pixels)
    torch.testing.assert_close(features, kept[0].mean(places), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet5O", "has no model of that name. Did you mean 'resnet50'"),
        ("resnet18.nothing", r"allowed: timm/resnet18, timm/resnet18\.a1_in1k"),
        ("hf-hub:owner/name", "has no model of that name"),
    ],
)
def test_an_unknown_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        create_extractor(model_entry(f"timm/{name}"))


@pytest.mark.parametrize(
    ("count", "first"),
    [(0, None), (3, None), (1000, "tench"), (11821, "benthos"), (21841, "organism")],
)
def test_class_names(count: int, first: str | None) -> None:
    names = class_names_of(SimpleNamespace(num_classes=count))  # type: ignore[arg-type]
    assert len(names) == (count if first else 0)
    assert not first or first in names[0]
