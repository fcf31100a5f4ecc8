"""torchvision's video networks: published facts, preprocessing, feature and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_factory import bilinear, random_frames, randomised
from reelstack.models import torchvision_video
from reelstack.models.base import Extractor
from reelstack.models.labels import published_names
from reelstack.models.registry import MODELS, create_extractor
from reelstack.models.weights import catalogue
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.video.mvit import MSBlockConfig, MViT

NAMES = [name for name in MODELS if MODELS[name].family == "torchvision_video"]
HEADS = {"mvit_v1_b": "head.1", "mvit_v2_s": "head.1", "s3d_torchvision": "classifier.1"}
SWIN = "swin3d_t"


def on_meta(name: str) -> nn.Module:
    extractor = create_extractor(MODELS[name])
    with torch.device("meta"):
        return extractor.build_network({})


def load(name: str, network: nn.Module, folder: Path, **settings: object) -> Extractor:
    torch.save(network.state_dict(), folder / "weights.pth")
    extractor = create_extractor(MODELS[name], settings=settings)
    extractor.load({"rgb": folder / "weights.pth"}, device="cpu", precision="fp32")
    return extractor


@pytest.mark.parametrize("name", NAMES)
class TestPublished:
    def test_weights(self, name: str) -> None:
        options = MODELS[name].options
        weights = get_model_weights(options["network"])[options["weights"]]
        (published,) = catalogue()[name].values()
        assert published.url == weights.url
        assert f"-{published.sha256}.pth" in weights.url
        assert list(published_names(MODELS[name])) == weights.meta["categories"]

    def test_network(self, name: str) -> None:
        entry, network = MODELS[name], on_meta(name)
        weights = get_model_weights(entry.options["network"])[entry.options["weights"]]
        assert sum(p.numel() for p in network.parameters()) == weights.meta["num_params"]
        head = network.get_submodule(HEADS.get(name, "head"))
        assert head.weight.shape[:2] == (entry.num_classes, entry.feature_dim)

    def test_windows(self, name: str) -> None:
        entry = MODELS[name]
        weights = get_model_weights(entry.options["network"])[entry.options["weights"]]
        assert entry.fixed_stack is name.startswith("mvit"), "its positions are learned"
        if entry.fixed_stack:
            assert entry.stack_size == weights.meta["min_temporal_size"]
        assert entry.least_stack <= max(1, weights.meta["min_temporal_size"])


PRESETS = {
    "mvit_v2_s": ((0.45,) * 3, (0.225,) * 3),
    SWIN: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "s3d_torchvision": ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
}


@pytest.mark.parametrize("size", [(240, 320), (300, 254)])
@pytest.mark.parametrize("name", PRESETS)
def test_preprocessing(name: str, size: tuple[int, int]) -> None:
    """Shorter side to 256 (S3D: both), rounded to whole levels, centre 224."""
    pixels = random_frames(2, *size)
    extractor = create_extractor(MODELS[name])
    result = extractor.preprocess(pixels)["rgb"]
    assert result.shape == (2, 3, 224, 224)
    scaled = tuple(int(256 * side / min(size)) for side in size)
    scaled = (256, 256) if name == "s3d_torchvision" else scaled
    top, left = (round((side - 224) / 2) for side in scaled)
    mean, std = PRESETS[name]
    pictures = extractor.resized(pixels)
    for frame, channel in np.ndindex(2, 3):
        levels = bilinear(pixels[frame, :, :, channel], scaled)
        assert pictures[frame].shape == (*scaled, 3)
        assert abs(pictures[frame][:, :, channel] - levels).max() < 0.51
        crop = pictures[frame][top : top + 224, left : left + 224, channel] / 255
        expected = (crop - mean[channel]) / std[channel]
        assert abs(result[frame, channel].numpy() - expected).max() < 1e-5


def small_mvit(_name: str, **_options: Any) -> MViT:
    """MViT of two blocks for 4 frames of 32×32."""
    stages = [
        MSBlockConfig(1, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
        MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
    ]
    return MViT((32, 32), 4, stages, residual_pool=False, residual_with_cls_embed=False,
                rel_pos_embed=False, proj_after_attn=False)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mvit_v1_b", (2, 4, 3, 32, 32)),
        (SWIN, (2, 4, 3, 64, 64)),
        ("s3d_torchvision", (1, 13, 3, 224, 224)),
    ],
)
def test_feature_and_logits_are_those_of_the_plain_network(
    name: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "mvit_v1_b":
        monkeypatch.setattr(torchvision_video, "get_model", small_mvit)
    torch.manual_seed(0)
    extractor = create_extractor(MODELS[name])
    network = randomised(extractor.build_network({}))
    extractor = load(name, network, tmp_path)
    clips = torch.rand(shape)
    features = extractor.forward({"rgb": clips})
    logits = extractor.classify(features)
    reads: list[torch.Tensor] = []
    head = network.get_submodule(HEADS.get(name, "head"))
    head.register_forward_hook(lambda _module, inputs, _output: reads.append(inputs[0]))
    with torch.inference_mode():
        expected = network(clips.transpose(1, 2))
    read = reads[0].flatten(1)
    assert (features["rgb"] - read).abs().max() < 1e-4 * read.std()
    assert (logits - expected).abs().max() < 1e-4 * expected.std()


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    torch.manual_seed(0)
    return get_model(SWIN).eval()


@pytest.mark.parametrize("layer", ["features.0", "features.2.0", "norm"])
def test_channels_of_video_swin_s_layers_are_last(
    layer: str, swin: nn.Module, tmp_path: Path
) -> None:
    extractor = load(SWIN, swin, tmp_path, layer=layer)
    clips = torch.rand(1, 4, 3, 96, 128)
    outputs = extractor.outputs(extractor.forward({"rgb": clips}))["rgb"]
    seen: list[torch.Tensor] = []
    handle = swin.get_submodule(layer).register_forward_hook(lambda *event: seen.append(event[2]))
    with torch.inference_mode():
        swin(clips.transpose(1, 2))
    handle.remove()
    assert seen[0].ndim == 5
    assert outputs.shape == (1, seen[0].shape[-1])
    assert (outputs - seen[0].mean((1, 2, 3))).abs().max() < 1e-4 * outputs.std()


@pytest.mark.parametrize("frames", [1, 3, 10])
def test_video_swin_reads_any_number_of_frames(frames: int, swin: nn.Module) -> None:
    with torch.inference_mode():
        assert swin(torch.zeros(1, 3, frames, 64, 64)).shape == (1, 400)
