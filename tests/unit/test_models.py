"""The models, one by one from the registry: shapes, keys, preprocessing, precision."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest
import torch
from network_factory import bilinear, random_frames, randomised
from PIL import Image
from reelstack.config import load_config
from reelstack.errors import ConfigError, WeightsError
from reelstack.files import CHECKOUT
from reelstack.models.base import Extractor, Inputs, SingleNetwork
from reelstack.models.checkpoint import read_state_dict
from reelstack.models.entries import ENTRIES, OPEN_ENTRIES
from reelstack.models.entry import COMMON_SETTINGS, ModelEntry
from reelstack.models.folding import fold_batch_norm
from reelstack.models.labels import published_names
from reelstack.models.registry import MODELS, create_extractor, model_entry
from torch import nn
from torch.nn import functional

TINY = "r2plus1d_tiny_motion"
WIDE = [name for name in MODELS if MODELS[name].family == "r21d"]
FRAME_WISE = [name for name in MODELS if MODELS[name].family == "resnet"]
RUN = [TINY, "resnet18"]  # the others differ in depth only; their numbers are parity's business
ALL = (*ENTRIES, *OPEN_ENTRIES)
OF_ONE_NETWORK = [
    entry.name
    for entry in ENTRIES
    if entry.family in ("r21d", "resnet", "s3d", "torchvision_video", "mmaction2")
]
"""Models whose network does not depend on the checkpoint."""


def by_name(entry: ModelEntry) -> str:
    return entry.name


def build(name: str) -> nn.Module:
    extractor = create_extractor(MODELS[name])
    assert isinstance(extractor, SingleNetwork)
    return extractor.build_network({})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Checkpoints by model; what `load` has read is kept beside them."""
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(randomised(build("resnet18")).state_dict(), file)
    shipped = {"rgb": CHECKOUT / "resources/demo/motion_r2plus1d.safetensors"}
    return {"resnet18": {"rgb": file}, TINY: shipped}


def load(name: str, checkpoints: dict, *, precision: str = "fp32") -> Extractor:
    known = checkpoints.setdefault("loaded", {})
    if (name, precision) not in known:
        extractor = create_extractor(MODELS[name])
        extractor.load(checkpoints[name], device="cpu", precision=precision)
        known[name, precision] = extractor
    return known[name, precision]


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(name)


class TestRegistry:
    def test_names_are_the_keys(self) -> None:
        assert list(MODELS) == [entry.name for entry in ENTRIES]
        assert len(MODELS) == len(ENTRIES)

    @pytest.mark.parametrize("entry", ALL, ids=by_name)
    def test_entries_are_complete(self, entry: ModelEntry) -> None:
        known = [entry.stack_size, entry.step_size, entry.feature_dim, entry.gmac]
        assert all(value > 0 for value in known if value is not None)
        assert min(entry.version, entry.frame_interval, entry.least_stack) >= 1
        assert entry.least_stack <= (entry.stack_size or entry.least_stack)
        assert entry.num_classes is None or entry.num_classes >= 0
        assert entry.reads in ("frames", "audio")
        assert entry.timestamps in (None, "start", "end")
        assert entry.stack_size or not entry.fixed_stack
        assert (CHECKOUT / "scripts/reelstack/models" / f"{entry.family}.py").is_file()

    @pytest.mark.parametrize("entry", ALL, ids=by_name)
    def test_streams_and_components_fit(self, entry: ModelEntry) -> None:
        assert entry.streams
        assert len(set(entry.streams)) == len(entry.streams)
        flows = [entry.settings.get("flow"), *entry.components]
        needed = [
            entry.needed_components(streams, {**entry.settings, "flow": flow})
            for streams in (entry.streams, *((stream,) for stream in entry.streams))
            for flow in flows
        ]
        assert all(needed), "a stream without a checkpoint"
        assert set().union(*needed) == set(entry.components), "a checkpoint that none needs"

    @pytest.mark.parametrize("entry", ALL, ids=by_name)
    def test_defaults_are_what_a_set_may_say(self, entry: ModelEntry) -> None:
        assert entry.settings.keys() >= COMMON_SETTINGS.keys()
        name = entry.name.replace("<", "").replace(">", "")
        said = {key: value for key, value in entry.settings.items() if value is not None}
        sets = {"said": {"model": name} | said, "not": {"model": name}}
        loaded = load_config({"videos": ["in"], "features": sets}).feature_sets
        assert loaded["said"].parameters() == loaded["not"].parameters()

    @pytest.mark.parametrize("entry", [e for e in ALL if e.extra], ids=by_name)
    def test_extras_can_be_installed(self, entry: ModelEntry) -> None:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        assert extras[entry.extra]
        (everything,) = extras["all"]
        assert entry.extra in everything.partition("[")[2].rstrip("]").split(",")

    @pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
    def test_every_family_builds_its_extractor(self, entry: ModelEntry) -> None:
        for streams in (None, entry.streams[:1]):
            extractor = create_extractor(entry, streams)
            assert isinstance(extractor, Extractor)
            assert extractor.entry is entry
            assert extractor.streams == (streams or entry.streams)
            assert extractor.settings == entry.settings
            assert extractor.stack_size == entry.stack_size
            assert extractor.class_names == published_names(entry)
            assert extractor.extra_frames == 0 or extractor.pairwise

    @pytest.mark.parametrize("entry", ALL, ids=by_name)
    def test_class_names_fit_the_classifier(self, entry: ModelEntry) -> None:
        names = published_names(entry)
        assert len(names) == (entry.num_classes if entry.labels else 0)
        assert all(text == text.strip() and text for text in names)

    def test_known_classes(self) -> None:
        assert published_names(MODELS["resnet50"])[0] == "tench"
        kinetics = published_names(MODELS["r3d_18"])
        assert (kinetics[0], kinetics[399]) == ("abseiling", "zumba")
        assert len(set(kinetics)) == 400

    def test_an_unknown_model(self) -> None:
        with pytest.raises(ConfigError, match=r"model is 'resnet5'; allowed: .*Did you mean"):
            model_entry("resnet5")


class TestNetworks:
    @pytest.mark.parametrize("name", OF_ONE_NETWORK)
    def test_feature_and_classes_are_the_registry_s(self, name: str) -> None:
        extractor = create_extractor(MODELS[name])
        assert isinstance(extractor, SingleNetwork)
        with torch.device("meta"):
            classifier = extractor.build_network({}).get_submodule(extractor.head)
        *_, weight = (p for key, p in classifier.named_parameters() if key.endswith("weight"))
        expected = (MODELS[name].num_classes, MODELS[name].feature_dim)
        assert tuple(weight.shape[:2]) == expected

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


SIZES = [(240, 320), (128, 171), (90, 60), (480, 270), (31, 57)]


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_of_video_networks(size: tuple[int, int]) -> None:
    extractor = create_extractor(MODELS[WIDE[0]])
    pixels = random_frames(2, *size)
    result = extractor.preprocess(pixels)["rgb"]
    assert result.shape == (2, 3, 112, 112)
    assert result.dtype == torch.float32
    mean, std = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
    for frame in range(2):
        for channel in range(3):
            plane = pixels[frame, :, :, channel].astype(np.float32) / 255
            resized = bilinear(plane, (128, 171))[8:120, 30:142]
            expected = (resized - mean[channel]) / std[channel]
            assert abs(result[frame, channel].numpy() - expected).max() < 2e-4


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_of_resnet(size: tuple[int, int]) -> None:
    extractor = create_extractor(MODELS["resnet50"])
    pixels = random_frames(2, *size)
    result = extractor.preprocess(pixels)["rgb"]
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
    pixels = random_frames(5, 50, 70)
    together = extractor.preprocess(pixels)["rgb"]
    alone = torch.cat([extractor.preprocess(pixels[n : n + 1])["rgb"] for n in range(5)])
    assert torch.equal(together, alone)


def inputs(extractor: Extractor, batch: int, *, stack: int | None = None) -> Inputs:
    stack = stack or extractor.stack_size
    assert stack is not None
    items = extractor.preprocess(random_frames(batch * stack, 60, 80, seed=3))
    return {name: values.unflatten(0, (batch, stack)) for name, values in items.items()}


def part(windows: Inputs, number: int) -> Inputs:
    return {name: values[number : number + 1] for name, values in windows.items()}


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
    each = torch.cat([extractor.forward(part(windows, n))["rgb"] for n in range(3)])
    assert (each - features["rgb"]).abs().max() < 1e-4 * features["rgb"].std()


@pytest.mark.parametrize("name", RUN)
def test_folding_changes_only_rounding(checkpoints: dict, name: str) -> None:
    """Features and logits of the published network as it is, in plain torch."""
    extractor = load(name, checkpoints)
    assert isinstance(extractor, SingleNetwork)
    state = read_state_dict(checkpoints[name]["rgb"])
    plain = extractor.build_network(state).eval()
    plain.load_state_dict(state, strict=False)
    windows = inputs(extractor, 2)
    rgb = windows["rgb"]
    with torch.inference_mode():
        expected = plain(rgb.flatten(0, 1) if name in FRAME_WISE else rgb.transpose(1, 2))
    features = extractor.forward(windows)
    logits = extractor.classify(features)
    assert (logits - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    modules = extractor.networks["rgb"].modules()
    left = [m for m in modules if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
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
    one_by_one = {"rgb": windows["rgb"].flatten(0, 1).unsqueeze(1)}
    single = extractor.forward(one_by_one)["rgb"].view(2, 3, -1)
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
