"""Inner layers as features: pooling by definition, values by a plain hook of a plain network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from network_factory import random_frames, randomised
from reelstack.errors import ConfigError
from reelstack.files import CHECKOUT
from reelstack.models.base import Extractor, Inputs, SingleNetwork
from reelstack.models.checkpoint import read_state_dict
from reelstack.models.layers import LayerTap
from reelstack.models.registry import MODELS, create_extractor
from torch import Tensor, nn

TINY = "r2plus1d_tiny_motion"
SHIPPED = CHECKOUT / "resources/demo/motion_r2plus1d.safetensors"


class Answer(nn.Module):
    """A layer that answers what it was made with, whatever it is asked."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Any:
        return self.value


def tapped(value: Any) -> LayerTap:
    """A tap on a layer that has just answered `value`."""
    network = nn.ModuleDict({"inner": Answer(value)})
    tap = LayerTap({"rgb": network}, "rgb", "inner", model="some_model")
    network["inner"](torch.zeros(1))
    return tap


def values(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


class TestPooling:
    @pytest.mark.parametrize(
        ("shape", "channel_axis", "channels", "others"),
        [
            ((4, 5), 1, 1, ()),
            ((4, 5, 6, 7), 1, 1, (2, 3)),
            ((4, 5, 3, 6, 7), 1, 1, (2, 3, 4)),
            ((4, 3, 6, 7, 5), -1, 4, (1, 2, 3)),
            ((4, 9, 5), 1, 2, (1,)),
            ((4, 9, 5), -1, 2, (1,)),
            ((4, 5), -1, 1, ()),
        ],
    )
    @pytest.mark.parametrize("pool", ["mean", "max", "none"])
    def test_over_everything_but_the_channels(
        self, shape: tuple, channel_axis: int, channels: int, others: tuple, pool: str
    ) -> None:
        output = values(*shape)
        found = tapped(output).pooled(4, pool, channel_axis=channel_axis)
        expected = output
        if pool != "none" and others:
            expected = output.mean(others) if pool == "mean" else output.amax(others)
            assert expected.shape == (4, shape[channels])
        assert torch.allclose(found, expected, atol=1e-6)
        assert found.dtype == torch.float32

    @pytest.mark.parametrize("shape", [(5,), (5, 6, 7), (9, 5)])
    @pytest.mark.parametrize("pool", ["mean", "max", "none"])
    def test_frames_of_a_window_are_regrouped_and_pooled_too(
        self, shape: tuple[int, ...], pool: str
    ) -> None:
        output = values(2 * 3, *shape)
        found = tapped(output).pooled(2, pool, channel_axis=1)
        grouped = output.unflatten(0, (2, 3))
        if pool == "none":
            assert torch.equal(found, grouped)
            return
        others = {1: (1,), 3: (1, 3, 4), 2: (1, 2)}[len(shape)]
        expected = grouped.mean(others) if pool == "mean" else grouped.amax(others)
        assert found.shape == (2, 5)
        assert torch.allclose(found, expected, atol=1e-6)

    def test_half_precision_comes_out_as_float32(self) -> None:
        output = values(2, 5, 4).bfloat16()
        found = tapped(output).pooled(2, "mean", channel_axis=1)
        assert found.dtype == torch.float32
        assert torch.allclose(found, output.float().mean(1), atol=1e-6)

    @pytest.mark.parametrize("kind", [tuple, list])
    def test_the_first_of_several_outputs(self, kind: type) -> None:
        first = values(2, 5)
        answer = kind([first, values(2, 9)])
        assert torch.equal(tapped(answer).pooled(2, "mean", channel_axis=1), first)


class TestErrors:
    @pytest.mark.parametrize(
        ("layer", "nearest"), [("layer5", "layer"), ("layer4.0.cnv1", "layer4.0.conv1"), ("x", "")]
    )
    def test_an_unknown_layer(self, layer: str, nearest: str) -> None:
        extractor = create_extractor(MODELS[TINY], settings={"layer": layer})
        with pytest.raises(ConfigError) as caught:
            extractor.load({"rgb": SHIPPED}, device="cpu", precision="fp32")
        text = str(caught.value)
        assert f"layer is {layer!r}; {TINY} (rgb) has: stem, layer1, " in text
        assert "and what is inside of them." in text
        assert (f"Did you mean '{nearest}" in text) is bool(nearest)

    def test_the_network_as_a_whole_is_no_layer(self) -> None:
        with pytest.raises(ConfigError, match="layer is ''"):
            LayerTap({"rgb": nn.Sequential(nn.ReLU())}, "rgb", "", model="some_model")

    def test_a_stream_without_a_network(self) -> None:
        with pytest.raises(ConfigError, match="'x', but some_model has no layers to choose from"):
            LayerTap({"rgb": nn.Identity()}, "flow", "x", model="some_model")

    @pytest.mark.parametrize("answer", [{"a": torch.zeros(1)}, None, (None, torch.zeros(1))])
    def test_an_output_that_is_no_tensor(self, answer: Any) -> None:
        with pytest.raises(ConfigError, match=r"layer is 'inner', whose output is a \w+; allowed"):
            tapped(answer)

    def test_a_layer_that_does_not_run(self) -> None:
        tap = LayerTap({"rgb": nn.Sequential(nn.ReLU())}, "rgb", "0", model="some_model")
        with pytest.raises(ConfigError, match="layer is '0', which the model does not run"):
            tap.pooled(1, "mean", channel_axis=1)

    def test_an_output_is_not_taken_twice(self) -> None:
        tap = tapped(values(2, 5))
        tap.pooled(2, "mean", channel_axis=1)
        with pytest.raises(ConfigError, match="does not run"):
            tap.pooled(2, "mean", channel_axis=1)

    def test_rows_that_are_no_windows(self) -> None:
        with pytest.raises(ConfigError, match=r"whose output \(7, 5\) is not a row a window \(2 "):
            tapped(values(7, 5)).pooled(2, "mean", channel_axis=1)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(0)
    extractor = create_extractor(MODELS["resnet18"])
    assert isinstance(extractor, SingleNetwork)
    torch.save(randomised(extractor.build_network({})).state_dict(), file)
    return {"resnet18": file, TINY: SHIPPED}


def load(model: str, file: Path, **settings: Any) -> Extractor:
    extractor = create_extractor(MODELS[model], settings=settings)
    extractor.load({"rgb": file}, device="cpu", precision="fp32")
    return extractor


def windows_of(extractor: Extractor, *, batch: int, stack: int) -> Inputs:
    items = extractor.preprocess(random_frames(batch * stack, 60, 80))
    return {"rgb": items["rgb"].unflatten(0, (batch, stack))}


def by_a_plain_hook(model: str, file: Path, layer: str, windows: Tensor) -> Tensor:
    """What the layer gives in the published network as it is, before anything overwrites it."""
    extractor = create_extractor(MODELS[model])
    assert isinstance(extractor, SingleNetwork)
    state = read_state_dict(file)
    network = extractor.build_network(state).eval()
    network.load_state_dict(state, strict=False)
    seen: list[Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda *a: seen.append(a[2].clone()))
    with torch.inference_mode():
        network(windows.transpose(1, 2) if model == TINY else windows.flatten(0, 1))
    return seen[-1]


@pytest.mark.parametrize(
    ("model", "layer", "stack"),
    [
        ("resnet18", "layer4", 1),
        ("resnet18", "layer4.0.conv1", 1),
        ("resnet18", "bn1", 1),  # overwritten by the ReLU after it
        ("resnet18", "layer2.0.downsample.1", 2),
        (TINY, "layer3", 16),
        (TINY, "layer4.0.conv1.0.1", 16),  # overwritten too
        (TINY, "avgpool", 16),
    ],
)
@pytest.mark.parametrize("pool", ["mean", "max", "none"])
def test_values_are_those_of_the_published_network(
    checkpoints: dict[str, Path], model: str, layer: str, stack: int, pool: str
) -> None:
    extractor = load(model, checkpoints[model], layer=layer, pool=pool)
    windows = windows_of(extractor, batch=2, stack=stack)
    features = extractor.forward(windows)
    found = extractor.outputs(features)["rgb"]
    expected = by_a_plain_hook(model, checkpoints[model], layer, windows["rgb"])
    frames = len(expected) // 2
    if pool == "none":
        expected = expected if frames == 1 else expected.unflatten(0, (2, frames))
    else:
        maps = expected.unflatten(0, (2, frames)).transpose(1, 2).flatten(2)
        expected = maps.mean(2) if pool == "mean" else maps.amax(2)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.std())


@pytest.mark.parametrize("model", ["resnet18", TINY])
def test_predictions_stay_those_of_the_whole_network(
    checkpoints: dict[str, Path], model: str
) -> None:
    plain, inner = (load(model, checkpoints[model], layer=layer) for layer in (None, "layer2"))
    windows = windows_of(plain, batch=2, stack=16 if model == TINY else 1)
    expected, features = plain.forward(windows), inner.forward(windows)
    assert torch.equal(plain.outputs(expected)["rgb"], expected["rgb"])
    drift = inner.classify(features) - plain.classify(expected)
    assert drift.abs().max() < 1e-4 * plain.classify(expected).std()
    assert inner.outputs(features)["rgb"].shape != expected["rgb"].shape


def test_every_batch_gives_its_own_values() -> None:
    extractor = load(TINY, SHIPPED, layer="layer1")
    windows = windows_of(extractor, batch=3, stack=16)["rgb"]
    together = extractor.outputs(extractor.forward({"rgb": windows}))["rgb"]
    for number in range(3):
        features = extractor.forward({"rgb": windows[number : number + 1]})
        alone = extractor.outputs(features)["rgb"]
        assert (alone - together[number]).abs().max() < 1e-5 * together.std()
