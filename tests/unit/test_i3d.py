"""I3D: the network as converted from TensorFlow, and its two streams."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reelstack.errors import ConfigError, WeightsError
from reelstack.models import i3d
from reelstack.models.base import Extractor
from reelstack.models.flow_estimators import FlowEstimator
from reelstack.models.i3d import centre_crop, grey_levels, to_unit_range
from reelstack.models.networks.i3d import I3D, Logits, MaxPool3dSame, Unit3D
from reelstack.models.registry import create_extractor, model_entry
from torch import Tensor, nn
from torch.nn import functional

NAME = "i3d_kinetics400"
STACK = 3


class TinyI3D(nn.Module):
    """In the place of I3D: a feature per window from the mean of each channel."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1024)
        self.conv3d_0c_1x1: nn.Module = Logits(num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        self.clips = clips
        logits: Tensor = self.conv3d_0c_1x1(self.linear(clips.mean((2, 3, 4))))
        return logits


class ColumnFlow(FlowEstimator):
    """In the place of RAFT: the flow into each frame is its red, the column adds a thousandth."""

    def __init__(self) -> None:
        self.pairs = 0

    def flow(self, frames: NDArray[np.uint8]) -> Tensor:  # noqa: ARG002
        raise AssertionError("the padding goes into the crop")

    def padded_flow(self, frames: NDArray[np.uint8]) -> Tensor:
        self.pairs += len(frames) - 1
        height, width = (-(-side // 8) * 8 for side in frames.shape[1:3])
        red = torch.from_numpy(frames[1:, 0, 0, 0] / 10).float().view(-1, 1, 1, 1)
        columns = torch.arange(width).expand(1, 1, height, width)
        return torch.cat([red + columns * 0, columns / 40 + red * 0], 1)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Checkpoints of tiny streams; the flow comes from `ColumnFlow`."""
    monkeypatch.setattr(i3d, "I3D", TinyI3D)
    monkeypatch.setattr(i3d, "load_network", lambda *_: ColumnFlow())
    torch.manual_seed(0)
    for stream, channels in (("rgb", 3), ("flow", 2)):
        torch.save(TinyI3D(channels, 400).state_dict(), tmp_path / f"{stream}.pth")
    return {stream: tmp_path / f"{stream}.pth" for stream in ("rgb", "flow", "raft")}


def load(weights: dict[str, Path], *streams: str, **settings: Any) -> Any:
    extractor = create_extractor(model_entry(NAME), streams or None, settings)
    extractor.load(weights, device="cpu", precision="fp32")
    return extractor


def clip(frames: int) -> NDArray[np.uint8]:
    """(N, 256, 341, 3): frame n has red n + 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 256, 341, 3), np.uint8)
    pixels[..., 0] = np.arange(1, frames + 1)[:, None, None]
    return pixels


def window(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[None, : STACK + 1] for name, values in inputs.items()}


@pytest.mark.parametrize(("channels", "parameters"), [(3, 12_697_264), (2, 12_675_312)])
def test_the_published_parameters(channels: int, parameters: int) -> None:
    network = I3D(channels)
    assert sum(p.numel() for p in network.parameters()) == parameters
    state = network.state_dict()
    shapes = {
        "conv3d_1a_7x7.conv3d.weight": (64, channels, 7, 7, 7),
        "conv3d_1a_7x7.batch3d.running_var": (64,),
        "conv3d_2c_3x3.conv3d.weight": (192, 64, 3, 3, 3),
        "mixed_3b.branch_0.conv3d.weight": (64, 192, 1, 1, 1),
        "mixed_4e.branch_1.1.conv3d.weight": (288, 144, 3, 3, 3),
        "mixed_4f.branch_2.0.batch3d.bias": (32,),
        "mixed_5c.branch_3.1.conv3d.weight": (128, 832, 1, 1, 1),
        "conv3d_0c_1x1.conv3d.weight": (400, 1024, 1, 1, 1),
        "conv3d_0c_1x1.conv3d.bias": (400,),
    }
    assert len(state) == 344
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {norm.eps for norm in norms} == {1e-5}


def test_the_first_convolution_pads_two_before_and_three_after() -> None:
    torch.manual_seed(0)
    unit = Unit3D(2, 4, 7, stride=2).eval()
    unit.batch3d.bias.data += 0.5
    clips = torch.randn(1, 2, 9, 10, 12)
    padded = functional.pad(clips, (2, 3, 2, 3, 2, 3))
    expected = functional.conv3d(padded, unit.conv3d.weight, stride=2) / (1 + 1e-5) ** 0.5 + 0.5
    with torch.inference_mode():
        assert torch.allclose(unit(clips), expected.relu(), atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((1, 3, 3), (1, 2, 2), (0, 1, 0, 1, 0, 0)),
        ((3, 3, 3), (2, 2, 2), (0, 1, 0, 1, 0, 1)),
        ((2, 2, 2), (2, 2, 2), (0, 0, 0, 0, 0, 0)),
        ((3, 3, 3), (1, 1, 1), (1, 1, 1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("frames", [4, 5])
def test_pooling_pads_with_zeros_and_rounds_up(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: Any, frames: int
) -> None:
    clips = torch.rand(1, 2, frames, 6, 8)
    padded = functional.pad(clips, padding)
    expected = functional.max_pool3d(padded, kernel, stride, ceil_mode=True)
    pooled = MaxPool3dSame(kernel, stride)(clips)
    assert torch.equal(pooled, expected)
    assert pooled.shape[2] == -(-frames // stride[0])


def test_the_least_stack_is_ten_frames() -> None:
    network = I3D(2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, 10, 224, 224)).shape == (1, 400)
        with pytest.raises(RuntimeError, match="smaller than kernel size"):
            network(torch.zeros(1, 2, 9, 224, 224))
    assert model_entry(NAME).least_stack == 10


def test_the_feature_is_the_mean_over_time_of_pooled_maps() -> None:
    """Pooling over 2 frames first: the first and the last of 3 or more count half."""
    network = I3D(3).eval()
    maps: list[Tensor] = []
    network.mixed_5c.register_forward_hook(lambda _m, _i, output: maps.append(output))
    network.conv3d_0c_1x1 = nn.Identity()
    with torch.inference_mode():
        feature = network(torch.rand(1, 3, 18, 224, 224) * 2 - 1)
    steps = maps[0].mean((3, 4))
    assert steps.shape == (1, 1024, 3)
    expected = (steps[..., 0] / 2 + steps[..., 1] + steps[..., 2] / 2) / 2
    assert (feature - expected).abs().max() < 1e-4 * expected.std()
    assert (feature - steps.mean(2)).abs().max() > 0.1 * expected.std()


def test_flow_becomes_whole_grey_levels() -> None:
    flow = torch.tensor([-30.0, -20.0, 0.0, 0.078, 0.079, 1.0, 20.0, 30.0])
    levels = [0.0, 0.0, 128.0, 128.0, 129.0, 134.0, 256.0, 256.0]
    assert grey_levels(flow).tolist() == levels
    half_levels = (torch.tensor([128.5, 129.5]) - 128) / 6.375
    assert grey_levels(half_levels).tolist() == [128.0, 130.0], "halves go to the even level"
    assert to_unit_range(torch.tensor([0.0, 255.0])).tolist() == [-1.0, 1.0]


def test_the_crop_of_an_odd_rest() -> None:
    columns = torch.arange(341).expand(1, 1, 257, 341)
    cropped = centre_crop(columns)
    assert cropped.shape == (1, 1, 224, 224)
    assert cropped[0, 0, 0, 0] == 58
    rows = torch.arange(257).view(1, 1, 257, 1).expand(1, 1, 257, 341)
    assert centre_crop(rows)[0, 0, 0, 0] == 16


def test_rgb_is_the_centre_of_the_resized_frame(weights: dict[str, Path]) -> None:
    extractor = load(weights, "rgb")
    frames = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), np.uint8)
    scaled = extractor.resized(frames)
    assert [frame.shape for frame in scaled] == [(256, 341, 3)] * 2
    rgb = extractor.preprocess(frames)["rgb"]
    assert rgb.shape == (2, 3, 224, 224)
    expected = 2 * scaled[1][16:240, 58:282].transpose(2, 0, 1).astype(np.float32) / 255 - 1
    assert np.array_equal(rgb[1].numpy(), expected)


def test_flow_is_cropped_with_its_padding(weights: dict[str, Path]) -> None:
    flow = load(weights, "flow").preprocess(clip(2))["flow"]
    assert flow.shape == (2, 2, 224, 224)
    assert not flow[0].any()
    level = round(128 + 6.375 * 60 / 40)  # column 60 of 344, not 58 of 341
    assert flow[1, 1, 0, 0] == pytest.approx(2 * level / 255 - 1)


def test_each_stream_reads_its_frames_of_the_window(weights: dict[str, Path]) -> None:
    extractor = load(weights)
    extractor.forward(window(extractor.preprocess(clip(STACK + 1))))
    rgb, flow = (extractor.networks[stream].clips for stream in ("rgb", "flow"))
    assert rgb.shape == (1, 3, STACK, 224, 224)
    assert flow.shape == (1, 2, STACK, 224, 224)
    reds = torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(rgb[0, 0, :, 0, 0], 2 * reds / 255 - 1)
    into = grey_levels(torch.tensor([0.2, 0.3, 0.4]))
    assert torch.allclose(flow[0, 0, :, 0, 0], to_unit_range(into))


def test_flow_is_computed_once_for_each_pair(weights: dict[str, Path]) -> None:
    extractor = load(weights)
    frames = clip(9)
    whole = extractor.preprocess(frames)
    assert extractor.estimator.pairs == 8
    parts = [
        extractor.preprocess(frames[:1]),
        extractor.preprocess(frames[1:4], frames[0]),
        extractor.preprocess(frames[4:], frames[3]),
    ]
    assert extractor.estimator.pairs == 16
    for name, values in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), values)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_what_is_not_asked_for_is_neither_loaded_nor_computed(
    weights: dict[str, Path], stream: str
) -> None:
    both = load(weights)
    expected = both.forward(window(both.preprocess(clip(STACK + 1))))
    needed = model_entry(NAME).needed_components((stream,), {"flow": "raft"})
    assert set(needed) == ({"rgb"} if stream == "rgb" else {"flow", "raft"})
    alone = load({name: weights[name] for name in needed}, stream)
    assert set(alone.networks) == {stream}
    assert hasattr(alone, "estimator") is (stream == "flow")
    inputs = alone.preprocess(clip(STACK + 1))
    assert set(inputs) == {stream}
    features = alone.forward(window(inputs))
    assert set(features) == {stream}
    assert torch.equal(features[stream], expected[stream])


def test_predictions_are_of_the_sum_of_both_streams(weights: dict[str, Path]) -> None:
    extractor = load(weights)
    features = extractor.forward(window(extractor.preprocess(clip(STACK + 1))))
    expected = 0
    for stream, channels in (("rgb", 3), ("flow", 2)):
        plain = TinyI3D(channels, 400)
        plain.load_state_dict(torch.load(weights[stream], weights_only=True))
        expected = expected + plain(extractor.networks[stream].clips)
    logits = extractor.classify(features)
    assert logits.shape == (1, 400)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert len(extractor.class_names) == 400


def test_a_window_reads_one_frame_more_than_its_stack() -> None:
    extractor = create_extractor(model_entry(NAME))
    assert (extractor.extra_frames, extractor.pairwise) == (1, True)


def test_an_unknown_flow() -> None:
    with pytest.raises(ConfigError, match=r"flow is 'raff'; allowed: raft, .* Did you mean 'raft'"):
        create_extractor(model_entry(NAME), None, {"flow": "raff"})


def test_tvl1_without_its_package(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "reelstack.models.tvl1", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'reelstack\[tvl1\]'.*envs/i3d.yaml"):
        load(weights, "flow", flow="tvl1")


def test_tvl1_needs_no_checkpoint(weights: dict[str, Path]) -> None:
    pytest.importorskip("cv2")
    assert model_entry(NAME).needed_components(("flow",), {"flow": "tvl1"}) == ("flow",)
    extractor: Extractor = load({"flow": weights["flow"]}, "flow", flow="tvl1")
    flow = extractor.preprocess(clip(2))["flow"]
    assert flow.shape == (2, 2, 224, 224)
    assert flow[1].isfinite().all()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(I3D(3).state_dict(), tmp_path / "rgb.pth")
    windows = {"rgb": torch.rand(1, 11, 3, 224, 224) * 2 - 1}
    features = {}
    for device in ("cpu", "cuda"):
        extractor = create_extractor(model_entry(NAME), ("rgb",))
        extractor.load({"rgb": tmp_path / "rgb.pth"}, device=device, precision="fp32")
        on_device = {name: values.to(device) for name, values in windows.items()}
        features[device] = extractor.forward(on_device)["rgb"].cpu()
    assert (features["cuda"] - features["cpu"]).abs().max() < 1e-3 * features["cpu"].std()


def test_a_checkpoint_of_the_other_stream_is_refused(tmp_path: Path) -> None:
    torch.save(I3D(2).state_dict(), tmp_path / "flow.pth")
    extractor = create_extractor(model_entry(NAME), ("rgb",))
    with pytest.raises(WeightsError, match=r"is not one of i3d_kinetics400 \(rgb\)") as caught:
        extractor.load({"rgb": tmp_path / "flow.pth"}, device="cpu", precision="fp32")
    assert "conv3d_1a_7x7.conv3d.weight (64, 2, 7, 7, 7) instead of" in str(caught.value)
