"""mmaction2's R(2+1)D-34: the published layout, the frames, the crops of its protocol."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from network_factory import bilinear, random_frames, randomised
from reelstack.errors import ConfigError, WeightsError
from reelstack.models.base import Extractor
from reelstack.models.networks.mmaction2 import R2Plus1dR34, mid_planes
from reelstack.models.registry import MODELS, create_extractor, model_entry
from torch import nn

NAMES = [name for name in MODELS if name.startswith("mmaction2/")]
ENTRY = model_entry(NAMES[0])
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return randomised(R2Plus1dR34(400))


@pytest.fixture(scope="module")
def checkpoint(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As mmaction2 saves it."""
    path = tmp_path_factory.mktemp("mmaction2") / "r2plus1d.pth"
    torch.save({"meta": {"epoch": 180}, "state_dict": network.state_dict()}, path)
    return path


def extractor_of(**settings: int) -> Extractor:
    pytest.importorskip("cv2")
    return create_extractor(ENTRY, settings=settings)


class TestNetwork:
    def test_the_published_layout(self, network: nn.Module) -> None:
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert len(shapes) == 434
        assert sum(p.numel() for p in network.parameters()) == 63_759_281
        for key, shape in {
            "backbone.conv1.conv.conv_s.weight": (83, 3, 1, 7, 7),
            "backbone.conv1.conv.bn_s.running_mean": (83,),
            "backbone.conv1.conv.conv_t.weight": (64, 83, 3, 1, 1),
            "backbone.conv1.bn.weight": (64,),
            "backbone.layer1.2.conv2.conv.conv_s.weight": (144, 64, 1, 3, 3),
            "backbone.layer2.0.conv1.conv.conv_s.weight": (230, 64, 1, 3, 3),
            "backbone.layer2.0.downsample.conv.conv_s.weight": (54, 64, 1, 1, 1),
            "backbone.layer2.0.downsample.conv.conv_t.weight": (128, 54, 1, 1, 1),
            "backbone.layer3.5.conv1.conv.conv_t.weight": (256, 576, 3, 1, 1),
            "backbone.layer4.0.downsample.bn.running_var": (512,),
            "backbone.layer4.2.conv2.conv.bn_s.bias": (1152,),
            "cls_head.fc_cls.weight": (400, 512),
        }.items():
            assert shapes[key] == shape, key
        assert "backbone.layer1.0.downsample.bn.bias" not in shapes

    def test_planes_between_the_factors(self) -> None:
        firsts = [mid_planes(64 * 2**k, 128 * 2**k, 3) for k in range(3)]
        others = [mid_planes(64 * 2**k, 64 * 2**k, 3) for k in range(4)]
        shortcuts = [mid_planes(64 * 2**k, 128 * 2**k, 1) for k in range(3)]
        assert (firsts, others) == ([230, 460, 921], [144, 288, 576, 1152])
        assert shortcuts == [54, 109, 219]

    def test_the_norms_inside_and_outside(self, network: nn.Module) -> None:
        norms = {n: m.eps for n, m in network.named_modules() if isinstance(m, nn.BatchNorm3d)}
        assert {eps for name, eps in norms.items() if name.endswith("bn_s")} == {1e-5}
        assert {eps for name, eps in norms.items() if name.endswith(".bn")} == {1e-3}

    def test_time_is_halved_three_times_and_space_five(self, network: nn.Module) -> None:
        with torch.inference_mode():
            maps = network.backbone(torch.rand(1, 3, 8, 64, 96))
        assert maps.shape == (1, 512, 1, 2, 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_has_the_protocol_s_windows(name: str) -> None:
    entry = MODELS[name]
    assert name.endswith(f"_{entry.stack_size}x{entry.frame_interval}x1")
    assert entry.step_size == 64
    assert entry.settings["clips"] == 0, "dense windows unless asked otherwise"
    assert entry.settings["crops"] == 3


def test_feature_and_logits_are_those_of_the_plain_network(
    network: nn.Module, checkpoint: Path
) -> None:
    extractor = extractor_of()
    extractor.load({"rgb": checkpoint}, device="cpu", precision="fp32")
    clips = torch.randn(2, 8, 3, 64, 64)
    features = extractor.forward({"rgb": clips})
    logits = extractor.classify(features)
    with torch.inference_mode():
        pooled = network.backbone(clips.transpose(1, 2)).mean((2, 3, 4))
        expected = network(clips.transpose(1, 2))
    assert features["rgb"].shape == (2, ENTRY.feature_dim)
    assert logits.shape == (2, ENTRY.num_classes)
    assert (features["rgb"] - pooled).abs().max() < 1e-4 * pooled.std()
    assert (logits - expected).abs().max() < 1e-4 * expected.std()
    norms = [m for m in extractor.networks["rgb"].modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms == [], "a batch norm was not folded"


def test_a_checkpoint_without_its_classifier(network: nn.Module, tmp_path: Path) -> None:
    state = {k: v for k, v in network.state_dict().items() if k.startswith("backbone.")}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "backbone.pth")
    with pytest.raises(WeightsError, match=r"2 missing: cls_head\.fc_cls\.weight"):
        extractor_of().load({"rgb": tmp_path / "backbone.pth"}, device="cpu", precision="fp32")


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((240, 320), (256, 341)),  # 341.33
        ((480, 854), (256, 455)),  # 455.47
        ((300, 254), (302, 256)),  # 302.36
        ((100, 201), (256, 515)),  # 514.56
        ((256, 300), (256, 300)),
    ],
)
def test_preprocessing(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    """OpenCV's bilinear works in fixed point: a level off here and there, and whole levels."""
    pixels = random_frames(2, *size)
    extractor = extractor_of()
    pictures = extractor.resized(pixels)
    result = extractor.preprocess(pixels)["rgb"]
    assert result.shape == (2, 3, 224, 224)
    assert result.dtype == torch.float32
    top, left = (scaled[0] - 224) // 2, (scaled[1] - 224) // 2
    for frame, channel in np.ndindex(2, 3):
        picture = pictures[frame][:, :, channel]
        assert picture.shape == scaled
        assert picture.dtype == np.uint8
        assert abs(picture - bilinear(pixels[frame, :, :, channel], scaled)).max() < 1.01
        crop = picture[top : top + 224, left : left + 224]
        expected = (crop.astype(np.float64) - MEAN[channel]) / STD[channel]
        assert abs(result[frame, channel].numpy() - expected).max() < 1e-5


def coordinates(height: int, width: int) -> np.ndarray:
    """One frame whose pixels say where they are: (row // 2, column // 2, 0)."""
    rows, columns = np.indices((height, width)) // 2
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)[None]


@pytest.mark.parametrize(
    ("height", "width", "corners"),
    [
        (256, 456, [(0, 0), (0, 200), (0, 100)]),
        (256, 301, [(0, 0), (0, 44), (0, 22)]),  # 45 free columns: the last belongs to no crop
        (342, 256, [(0, 0), (86, 0), (43, 0)]),
        (256, 256, [(0, 0)] * 3),
    ],
)
def test_three_crops(height: int, width: int, corners: list[tuple[int, int]]) -> None:
    frames = coordinates(height, width)
    views = extractor_of(clips=10).views(frames)
    assert views.shape == (3, 1, 3, 256, 256)
    for view, (top, left) in zip(views, corners, strict=True):
        expected = frames[0, top : top + 256, left : left + 256]
        pixels = view[0].permute(1, 2, 0).numpy() * STD + MEAN
        assert abs(pixels - expected).max() < 1e-3


def test_one_crop_is_that_of_dense_windows() -> None:
    pixels = random_frames(3, 120, 160)
    extractor = extractor_of(clips=10, crops=1)
    assert torch.equal(extractor.views(pixels)[0], extractor.preprocess(pixels)["rgb"])


def test_views_of_resized_frames_are_the_same() -> None:
    """The engine keeps resized frames between overlapping clips."""
    pixels = random_frames(3, 97, 131)
    extractor = extractor_of(clips=10)
    assert torch.equal(
        extractor.views(np.stack(extractor.resized(pixels))), extractor.views(pixels)
    )


def test_other_numbers_of_crops() -> None:
    with pytest.raises(ConfigError, match=r"crops is 2; allowed: 1 .*or 3"):
        extractor_of(crops=2)


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "reelstack.models.mmaction2", raising=False)
    with pytest.raises(ConfigError, match=r"cv2.*reelstack\[mmaction2\].*envs/mmaction2\.yaml"):
        create_extractor(ENTRY)
