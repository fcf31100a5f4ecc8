"""R2Plus1D-PyTorch's networks: what the checkpoint decides, the layout, the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from network_factory import bilinear, random_frames, randomised
from reelstack.errors import ConfigError, WeightsError
from reelstack.models.base import Extractor
from reelstack.models.networks.r2plus1d_pytorch import R2Plus1DClassifier
from reelstack.models.registry import create_extractor, model_entry
from torch import nn

pytest.importorskip("cv2")

ENTRY = model_entry("r2plus1d_pytorch")
CLASSES = 5


def save(network: nn.Module, path: Path) -> Path:
    """A checkpoint as the trainer saves it: with accuracy and optimiser."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    content = {
        "epoch": 45,
        "state_dict": network.state_dict(),
        "acc": torch.tensor(0.7, dtype=torch.float64),
        "opt_dict": optimiser.state_dict(),
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return randomised(R2Plus1DClassifier(CLASSES, (1, 2, 1, 1)))


@pytest.fixture(scope="module")
def checkpoint(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(network, tmp_path_factory.mktemp("trained") / "model_data.pth.tar")


def load(path: Path, **settings: object) -> Extractor:
    extractor = create_extractor(ENTRY, settings=settings)
    extractor.load({"rgb": path}, device="cpu", precision="fp32")
    return extractor


class TestNetwork:
    def test_the_18_layers_of_the_trainer(self) -> None:
        with torch.device("meta"):
            network = R2Plus1DClassifier(400, (2, 2, 2, 2))
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert len(shapes) == 277
        assert sum(p.numel() for p in network.parameters()) == 33_396_910
        for key, shape in {
            "res2plus1d.conv1.spatial_conv.weight": (83, 3, 1, 7, 7),
            "res2plus1d.conv1.spatial_conv.bias": (83,),
            "res2plus1d.conv1.bn.running_var": (83,),
            "res2plus1d.conv1.temporal_conv.weight": (64, 83, 3, 1, 1),
            "res2plus1d.conv2.block1.conv1.spatial_conv.weight": (144, 64, 1, 3, 3),
            "res2plus1d.conv3.block1.downsampleconv.spatial_conv.weight": (42, 64, 1, 1, 1),
            "res2plus1d.conv3.block1.downsamplebn.weight": (128,),
            "res2plus1d.conv4.blocks.0.bn2.bias": (256,),
            "res2plus1d.conv5.block1.conv1.spatial_conv.weight": (921, 256, 1, 3, 3),
            "linear.weight": (400, 512),
        }.items():
            assert shapes[key] == shape, key
        assert "res2plus1d.bn1.weight" not in shapes, "the stem ends in its convolution"

    def test_space_is_halved_four_times_and_time_three(self, network: nn.Module) -> None:
        maps = torch.rand(1, 3, 8, 32, 48)
        with torch.inference_mode():
            for stage in network.res2plus1d.children():
                maps = stage(maps)
        assert maps.shape == (1, 512, 1, 2, 3)


@pytest.mark.parametrize("sizes", [(1, 2, 1, 1), (3, 1, 1, 2)])
def test_the_checkpoint_decides_blocks_and_classes(sizes: tuple[int, ...], tmp_path: Path) -> None:
    trained = R2Plus1DClassifier(3, sizes)
    extractor = load(save(trained, tmp_path / "trained.pth.tar"))
    trunk = extractor.networks["rgb"].res2plus1d
    blocks = [1 + len(getattr(trunk, f"conv{n}").blocks) for n in range(2, 6)]
    assert tuple(blocks) == sizes
    assert extractor.classifier.out_features == 3
    assert extractor.class_names == ()


def test_names_of_the_classes(checkpoint: Path) -> None:
    names = ["dive", "golf", "kick", "ride", "run"]
    assert load(checkpoint, labels=names).class_names == tuple(names)
    with pytest.raises(ConfigError, match=r"labels has 4 names, but the checkpoint .*5 classes"):
        load(checkpoint, labels=names[:4])


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 512)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="is not one of r2plus1d_pytorch"):
        load(tmp_path / "other.pth")


def test_feature_and_logits_are_those_of_the_plain_network(
    network: nn.Module, checkpoint: Path
) -> None:
    extractor = load(checkpoint)
    clips = torch.randn(2, 8, 3, 32, 32)
    features = extractor.forward({"rgb": clips})
    logits = extractor.classify(features)
    with torch.inference_mode():
        pooled = network.res2plus1d(clips.transpose(1, 2))
        expected = network(clips.transpose(1, 2))
    assert features["rgb"].shape == (2, ENTRY.feature_dim)
    assert (features["rgb"] - pooled).abs().max() < 1e-4 * pooled.std()
    assert (logits - expected).abs().max() < 1e-4 * expected.std()
    norms = [m for m in extractor.networks["rgb"].modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms == [], "a batch norm was not folded"


@pytest.mark.parametrize("size", [(240, 320), (128, 171), (90, 60), (128, 172)])
def test_preprocessing(size: tuple[int, int]) -> None:
    """OpenCV's bilinear works in fixed point: a level off here and there, and whole levels."""
    pixels = random_frames(2, *size)
    extractor = create_extractor(ENTRY)
    pictures = extractor.resized(pixels)
    result = extractor.preprocess(pixels)["rgb"]
    assert result.shape == (2, 3, 112, 112)
    for frame, channel in np.ndindex(2, 3):
        picture = pictures[frame][:, :, channel]
        assert picture.dtype == np.uint8
        expected = bilinear(pixels[frame, :, :, channel], (128, 171))
        tolerance = 1e-9 if size == (128, 171) else 1.01
        assert abs(picture - expected).max() < tolerance
        crop = (picture[8:120, 30:142].astype(np.float64) - 128) / 128
        assert abs(result[frame, channel].numpy() - crop).max() < 1e-6
