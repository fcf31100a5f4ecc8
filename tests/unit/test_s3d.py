"""S3D: the published keys, the preprocessing, feature and logits against the plain network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from network_factory import bilinear, random_frames, randomised
from reelstack.errors import WeightsError
from reelstack.models.base import Extractor
from reelstack.models.registry import create_extractor, model_entry
from reelstack.models.s3d import published_key
from torch import nn
from torchvision.models.video import s3d

NAME = "s3d_kinetics400"
ENTRY = model_entry(NAME)


def load(path: Path) -> Extractor:
    extractor = create_extractor(ENTRY)
    extractor.load({"rgb": path}, device="cpu", precision="fp32")
    return extractor


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return randomised(s3d())


@pytest.fixture(scope="module")
def checkpoint(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s3d") / "published.pt"
    torch.save({published_key(k): v for k, v in network.state_dict().items()}, path)
    return path


class TestKeys:
    def test_every_parameter_has_one(self, network: nn.Module) -> None:
        keys = {published_key(key) for key in network.state_dict()}
        assert len(keys) == 464
        separable = r"base\.(0|3|\d+\.branch[12]\.1)\.(conv|bn)_[st]"
        plain = r"base\.(2|\d+\.branch(0\.0|1\.0|2\.0|3\.1))\.(conv|bn)"
        leaf = r"weight|bias|running_mean|running_var|num_batches_tracked"
        form = re.compile(rf"({separable}|{plain}|fc\.0)\.({leaf})")
        assert [key for key in keys if not form.fullmatch(key)] == []

    @pytest.mark.parametrize(
        ("key", "shape"),
        [
            ("base.0.conv_s.weight", (64, 3, 1, 7, 7)),
            ("base.0.conv_t.weight", (64, 64, 7, 1, 1)),
            ("base.2.conv.weight", (64, 64, 1, 1, 1)),
            ("base.3.conv_t.weight", (192, 192, 3, 1, 1)),
            ("base.5.branch0.0.conv.weight", (64, 192, 1, 1, 1)),
            ("base.8.branch1.0.conv.weight", (96, 480, 1, 1, 1)),
            ("base.9.branch2.1.bn_t.running_mean", (64,)),
            ("base.12.branch1.1.conv_s.weight", (320, 160, 1, 3, 3)),
            ("base.15.branch3.1.bn.bias", (128,)),
            ("fc.0.weight", (400, 1024, 1, 1, 1)),
        ],
    )
    def test_shapes(self, checkpoint: Path, key: str, shape: tuple[int, ...]) -> None:
        assert tuple(torch.load(checkpoint, weights_only=True)[key].shape) == shape

    def test_keys_as_saved_from_several_gpus(self, checkpoint: Path, tmp_path: Path) -> None:
        state = torch.load(checkpoint, weights_only=True)
        torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "parallel.pt")
        loaded = load(tmp_path / "parallel.pt").classifier.state_dict()
        assert torch.equal(loaded["1.weight"], state["fc.0.weight"])

    def test_another_model_s_checkpoint(self, network: nn.Module, tmp_path: Path) -> None:
        torch.save(network.state_dict(), tmp_path / "torchvision.pth")
        with pytest.raises(WeightsError, match=r"missing: base\.0\.conv_s\.weight"):
            load(tmp_path / "torchvision.pth")


def test_batch_norm_adds_a_thousandth(network: nn.Module) -> None:
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm3d)} == {1e-3}


@pytest.mark.parametrize("size", [(240, 320), (320, 240), (97, 130), (224, 224), (360, 481)])
def test_preprocessing(size: tuple[int, int]) -> None:
    """The factor sets the coordinates; of 97 rows it makes 223, not 224."""
    pixels = random_frames(2, *size)
    extractor = create_extractor(ENTRY)
    result = extractor.preprocess(pixels)["rgb"]
    factor = 224 / min(size)
    scaled = tuple(int(side * factor) for side in size)
    top, left = (round((side - 224) / 2) for side in scaled)
    assert result.shape == (2, 3, min(224, scaled[0]), min(224, scaled[1]))
    for frame, channel in np.ndindex(2, 3):
        plane = pixels[frame, :, :, channel] / 255
        expected = bilinear(plane, scaled, factor=factor)[top : top + 224, left : left + 224]
        assert abs(result[frame, channel].numpy() - expected).max() < 2e-4
    for picture, frame in zip(extractor.resized(pixels), pixels, strict=True):
        assert picture.shape == (*scaled, 3)
        expected = bilinear(frame[:, :, 0], scaled, factor=factor)
        assert abs(picture[:, :, 0] - expected).max() <= 0.51


def test_feature_and_logits_are_those_of_the_plain_network(
    network: nn.Module, checkpoint: Path
) -> None:
    """The logits are a mean over time of the convolution, here of the feature alone."""
    clips = torch.rand(1, 21, 3, 224, 224)
    extractor = load(checkpoint)
    features = extractor.forward({"rgb": clips})
    logits = extractor.classify(features)
    with torch.inference_mode():
        maps = network.avgpool(network.features(clips.transpose(1, 2)))
        expected = network(clips.transpose(1, 2))
    assert maps.shape == (1, 1024, 2, 1, 1), "one step in time would not show the mean"
    assert features["rgb"].shape == (1, ENTRY.feature_dim)
    assert logits.shape == (1, ENTRY.num_classes)
    assert (features["rgb"] - maps.mean((2, 3, 4))).abs().max() < 1e-4 * maps.std()
    assert (logits - expected).abs().max() < 1e-4 * expected.std()


def test_the_least_stack(network: nn.Module) -> None:
    def time_steps(frames: int) -> int:
        with torch.inference_mode():
            return network.features(torch.zeros(1, 3, frames, 32, 32)).shape[2]

    assert time_steps(ENTRY.least_stack) == 2, "what the pooling needs"
    assert time_steps(ENTRY.least_stack - 1) == 1
