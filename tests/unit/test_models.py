"""The models, one by one from the registry: shapes, keys, preprocessing, precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from reelstack.errors import ConfigError, WeightsError
from reelstack.files import CHECKOUT
from reelstack.models.base import Extractor, SingleNetwork, fold_batch_norm
from reelstack.models.labels import class_names
from reelstack.models.registry import MODELS, ModelEntry, create_extractor, model_entry
from torch import nn
from torch.nn import functional

TINY = "r2plus1d_tiny_motion"
WIDE = [name for name in MODELS if MODELS[name].family == "r21d"]
FRAME_WISE = [name for name in MODELS if MODELS[name].family == "resnet"]
RUN = [TINY, "resnet18"]  # the others differ in depth only; their numbers are parity's business


def random_weights(entry: ModelEntry, folder: Path) -> dict[str, Path]:
    """A checkpoint of random, well-scaled weights with the statistics of no data."""
    torch.manual_seed(0)
    extractor = create_extractor(entry)
    assert isinstance(extractor, SingleNetwork)
    network = extractor.build_network()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                tensor.uniform_(low, high)
    torch.save(network.state_dict(), folder / f"{entry.name}.pth")
    return {"rgb": folder / f"{entry.name}.pth"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Checkpoints by model; what `load` has read is kept beside them."""
    folder = tmp_path_factory.mktemp("weights")
    shipped = {"rgb": CHECKOUT / "resources/demo/motion_r2plus1d.safetensors"}
    return {"resnet18": random_weights(MODELS["resnet18"], folder), TINY: shipped}


def load(name: str, checkpoints: dict, *, precision: str = "fp32") -> Extractor:
    known = checkpoints.setdefault("loaded", {})
    if (name, precision) not in known:
        extractor = create_extractor(MODELS[name])
        extractor.load(checkpoints[name], device="cpu", precision=precision)
        known[name, precision] = extractor
    return known[name, precision]


def frames(num_frames: int, height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def on_meta(name: str) -> nn.Module:
    extractor = create_extractor(MODELS[name])
    assert isinstance(extractor, SingleNetwork)
    with torch.device("meta"):
        return extractor.build_network()


class TestRegistry:
    @pytest.mark.parametrize("name", MODELS)
    def test_entries_are_complete(self, name: str) -> None:
        entry = MODELS[name]
        assert entry.name == name
        assert min(entry.stack_size, entry.step_size, entry.version, entry.feature_dim) >= 1
        assert entry.gmac > 0
        assert entry.streams
        assert entry.components

    @pytest.mark.parametrize("name", MODELS)
    def test_class_names_fit_the_classifier(self, name: str) -> None:
        names = class_names(MODELS[name])
        assert len(names) == (MODELS[name].num_classes if MODELS[name].labels else 0)
        assert all(text == text.strip() and text for text in names)

    def test_known_classes(self) -> None:
        assert class_names(MODELS["resnet50"])[0] == "tench"
        kinetics = class_names(MODELS["r3d_18"])
        assert (kinetics[0], kinetics[399]) == ("abseiling", "zumba")
        assert len(set(kinetics)) == 400

    def test_an_unknown_model(self) -> None:
        with pytest.raises(ConfigError, match=r"model is 'resnet5'; allowed: .*Did you mean"):
            model_entry("resnet5")


class TestNetworks:
    @pytest.mark.parametrize("name", MODELS)
    def test_feature_and_classes_are_the_registry_s(self, name: str) -> None:
        classifier = on_meta(name).get_submodule("fc")
        assert classifier.in_features == MODELS[name].feature_dim
        assert classifier.out_features == MODELS[name].num_classes

    @pytest.mark.parametrize(
        ("name", "count"),
        [
            ("r2plus1d_18_16_kinetics", 31_505_325),
            ("r2plus1d_34_32_ig65m_ft_kinetics", 63_697_175),
            ("r2plus1d_34_8_ig65m_ft_kinetics", 63_697_175),
            ("r2plus1d_34_32_ig65m", 63_697_175 - 41 * 513),
            ("r2plus1d_34_8_ig65m", 63_697_175 + 87 * 513),
            ("r3d_18", 33_371_472),
            ("mc3_18", 11_695_440),
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet101", 44_549_160),
            ("resnet152", 60_192_808),
        ],
    )
    def test_published_numbers_of_parameters(self, name: str, count: int) -> None:
        assert sum(p.numel() for p in on_meta(name).parameters()) == count

    @pytest.mark.parametrize("name", [n for n in WIDE if "_34_" in n])
    def test_the_34_layer_network_of_ig65m(self, name: str) -> None:
        network = on_meta(name)
        shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
        assert shapes["layer2.0.conv2.0.0.weight"] == (288, 128, 1, 3, 3)
        assert shapes["layer3.0.conv2.0.0.weight"] == (576, 256, 1, 3, 3)
        assert shapes["layer4.0.conv2.0.3.weight"] == (512, 1152, 3, 1, 1)
        assert shapes["layer3.5.conv1.0.0.weight"] == (576, 256, 1, 3, 3)
        assert shapes["stem.0.weight"] == (45, 3, 1, 7, 7)
        assert "layer4.3.conv1.0.0.weight" not in shapes
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
        assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.9)}

    def test_the_18_layer_network_has_torchvision_s_norms(self) -> None:
        norms = [m for m in on_meta(WIDE[0]).modules() if isinstance(m, nn.BatchNorm3d)]
        assert {(m.eps, m.momentum) for m in norms} == {(1e-5, 0.1)}


def bilinear(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """Plain bilinear sampling at pixel centres, edges repeated; no filter against aliasing."""

    def positions(size: int, out: int) -> tuple[NDArray, NDArray, NDArray]:
        at = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, size - 1), at - low

    top, bottom, down = positions(plane.shape[0], height)
    left, right, across = positions(plane.shape[1], width)
    rows = plane[top] * (1 - down)[:, None] + plane[bottom] * down[:, None]
    return rows[:, left] * (1 - across) + rows[:, right] * across


SIZES = [(240, 320), (128, 171), (90, 60), (480, 270), (31, 57)]


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_of_video_networks(size: tuple[int, int]) -> None:
    extractor = create_extractor(MODELS[WIDE[0]])
    pixels = frames(2, *size)
    result = extractor.preprocess(pixels)
    assert result.shape == (2, 3, 112, 112)
    assert result.dtype == torch.float32
    mean, std = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
    for frame in range(2):
        for channel in range(3):
            plane = pixels[frame, :, :, channel].astype(np.float32) / 255
            resized = bilinear(plane, 128, 171)[8:120, 30:142]
            expected = (resized - mean[channel]) / std[channel]
            assert abs(result[frame, channel].numpy() - expected).max() < 2e-4


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_of_resnet(size: tuple[int, int]) -> None:
    extractor = create_extractor(MODELS["resnet50"])
    pixels = frames(2, *size)
    result = extractor.preprocess(pixels)
    assert result.shape == (2, 3, 224, 224)
    height, width = size
    new = (int(256 * max(1, height / width)), int(256 * max(1, width / height)))
    for frame in range(2):
        image = Image.fromarray(pixels[frame]).resize(new[::-1], Image.Resampling.BILINEAR)
        top, left = round((new[0] - 224) / 2), round((new[1] - 224) / 2)
        crop = np.asarray(image)[top : top + 224, left : left + 224] / 255
        expected = (crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert abs(result[frame].permute(1, 2, 0).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("name", RUN)
def test_frames_are_preprocessed_one_by_one(checkpoints: dict, name: str) -> None:
    extractor = load(name, checkpoints)
    pixels = frames(5, 50, 70)
    together = extractor.preprocess(pixels)
    alone = torch.cat([extractor.preprocess(pixels[n : n + 1]) for n in range(5)])
    assert torch.equal(together, alone)


def inputs(extractor: Extractor, batch: int, *, stack: int | None = None) -> torch.Tensor:
    stack = stack or extractor.entry.stack_size
    pixels = extractor.preprocess(frames(batch * stack, 60, 80, seed=3))
    return pixels.view(batch, stack, *pixels.shape[1:])


@pytest.mark.parametrize("name", RUN)
def test_forward_and_classify(checkpoints: dict, name: str) -> None:
    extractor = load(name, checkpoints)
    windows = inputs(extractor, 3)
    features = extractor.forward(windows)
    assert features.keys() == {"rgb"}
    assert features["rgb"].shape == (3, MODELS[name].feature_dim)
    assert features["rgb"].dtype == torch.float32
    logits = extractor.classify(features)
    assert logits.shape == (3, MODELS[name].num_classes)
    assert logits.dtype == torch.float32
    assert torch.equal(extractor.forward(windows)["rgb"], features["rgb"]), "not deterministic"
    each = torch.cat([extractor.forward(windows[n : n + 1])["rgb"] for n in range(3)])
    assert (each - features["rgb"]).abs().max() < 1e-4 * features["rgb"].std()


@pytest.mark.parametrize("name", RUN)
def test_folding_changes_only_rounding(checkpoints: dict, name: str) -> None:
    """Features and logits of the published network as it is, in plain torch."""
    extractor = load(name, checkpoints)
    assert isinstance(extractor, SingleNetwork)
    plain = extractor.build_network().eval()
    if name == TINY:
        from safetensors.torch import load_file

        plain.load_state_dict(load_file(checkpoints[name]["rgb"]), strict=False)
    else:
        plain.load_state_dict(torch.load(checkpoints[name]["rgb"], weights_only=True))
    windows = inputs(extractor, 2)
    with torch.inference_mode():
        expected = plain(windows.flatten(0, 1) if name in FRAME_WISE else windows.transpose(1, 2))
    features = extractor.forward(windows)
    logits = extractor.classify(features)
    assert (logits - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    left = [
        m for m in extractor.network.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))
    ]
    assert left == [], "a batch norm was not folded"


def test_a_norm_that_follows_no_convolution_stays() -> None:
    torch.manual_seed(0)
    odd = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    odd[0].running_mean.uniform_(-1, 1)
    odd[3].running_var.uniform_(0.5, 2)
    image = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        before = odd(image)
        fold_batch_norm(odd)
        assert torch.equal(odd(image), before)


def test_resnet_of_a_longer_stack_is_the_mean_of_its_frames(checkpoints: dict) -> None:
    extractor = load("resnet18", checkpoints)
    windows = inputs(extractor, 2, stack=3)
    features = extractor.forward(windows)["rgb"]
    single = extractor.forward(windows.flatten(0, 1).unsqueeze(1))["rgb"].view(2, 3, -1)
    assert (features - single.mean(1)).abs().max() < 1e-4 * features.std()


@pytest.mark.parametrize("name", RUN)
def test_bf16_is_close_and_not_the_same(checkpoints: dict, name: str) -> None:
    exact = load(name, checkpoints)
    reduced = load(name, checkpoints, precision="bf16")
    windows = inputs(exact, 2)
    expected, features = exact.forward(windows)["rgb"], reduced.forward(windows)["rgb"]
    assert features.dtype == torch.float32
    error = (features - expected).norm() / expected.norm()
    assert 0 < error < 0.03
    assert functional.cosine_similarity(features, expected).min() > 0.999


def test_an_unknown_precision(checkpoints: dict) -> None:
    with pytest.raises(ConfigError, match="precision is 'fp16'; allowed: fp32, bf16"):
        load(TINY, checkpoints, precision="fp16")


def test_a_checkpoint_of_another_model_is_refused(checkpoints: dict) -> None:
    extractor = create_extractor(MODELS["resnet34"])
    with pytest.raises(WeightsError, match="is not one of resnet34") as caught:
        extractor.load(checkpoints["resnet18"], device="cpu", precision="fp32")
    assert "missing: layer1.2.conv1.weight" in str(caught.value)


@pytest.mark.gpu
@pytest.mark.parametrize("name", RUN)
def test_a_gpu_gives_the_same_features(checkpoints: dict, name: str) -> None:
    here, there = load(name, checkpoints), create_extractor(MODELS[name])
    there.load(checkpoints[name], device="cuda", precision="fp32")
    expected = here.forward(inputs(here, 2))["rgb"]
    features = there.forward(inputs(there, 2))["rgb"].cpu()
    assert (features - expected).abs().max() < 1e-3 * expected.std()
