"""Optical flow: RAFT, PWC-Net and TV-L1, and their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reelstack.errors import VideoError, WeightsError
from reelstack.models import flow_estimators
from reelstack.models.base import Extractor
from reelstack.models.flow import resized_size
from reelstack.models.flow_estimators import pairs_at_once, raft_padding
from reelstack.models.networks import pwc, raft
from reelstack.models.networks.pwc import Decoder, PWCNet, cost_volume, warp
from reelstack.models.registry import create_extractor, model_entry
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.optical_flow import raft_large, raft_small

CPU = torch.device("cpu")


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Blurred noise: something to track everywhere."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = functional.avg_pool2d(noise, 5, 1, 2)
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255)[0].numpy()


def clip(frames: int, height: int = 128, width: int = 130) -> NDArray[np.uint8]:
    """(N, H, W, 3): a texture that moves by (-3, 2) pixels a frame."""
    large = texture(height + 2 * frames, width + 3 * frames).transpose(1, 2, 0)
    views = [large[2 * (frames - n) :][:height, 3 * n :][:, :width] for n in range(frames)]
    return np.stack(views).round().astype(np.uint8)


def authors_checkpoint(network: nn.Module) -> dict[str, Tensor]:
    """As the authors saved it: from DataParallel, with one module under two names."""
    state = {raft.authors_key(key): value for key, value in network.state_dict().items()}
    twice = {
        key.replace("downsample.1", "norm3"): value
        for key, value in state.items()
        if ".cnet." in key and "downsample.1" in key
    }
    return state | twice


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights of every network, in the published layouts."""
    torch.manual_seed(0)
    states = {
        "raft_sintel": authors_checkpoint(raft_large()),
        "raft_large": raft_large().state_dict(),
        "raft_small": raft_small().state_dict(),
        "pwc_sintel": PWCNet().state_dict(),
    }
    folder = tmp_path_factory.mktemp("flow")
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in states}


def load(
    name: str, checkpoints: dict[str, Path], precision: str = "fp32", **settings: Any
) -> Extractor:
    extractor = create_extractor(model_entry(name), None, settings)
    extractor.load({"flow": checkpoints[name]}, device="cpu", precision=precision)
    return extractor


@pytest.mark.parametrize("network", [raft_large, raft_small])
@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_raft_over_consecutive_frames_is_torchvisions_forward(network: Any, pairs: int) -> None:
    torch.manual_seed(0)
    model = network().eval()
    frames = torch.rand(4, 3, 128, 136) * 2 - 1
    with torch.inference_mode():
        expected = model(frames[:-1], frames[1:], num_flow_updates=3)[-1]
        flow = raft.consecutive_flow(model, frames, updates=3, pairs_at_once=pairs)
    assert (flow - expected).abs().max() < 1e-4 * expected.std()
    assert model.corr_block.corr_pyramid == [], "the correlations stay in memory"


def test_the_authors_names_of_rafts_parameters() -> None:
    state = authors_checkpoint(raft_large())
    assert len(state) == 179
    shapes = {
        "module.fnet.conv1.weight": (64, 3, 7, 7),
        "module.fnet.conv2.bias": (256,),
        "module.fnet.layer1.1.conv2.weight": (64, 64, 3, 3),
        "module.fnet.layer3.0.downsample.0.weight": (128, 96, 1, 1),
        "module.cnet.norm1.running_mean": (64,),
        "module.cnet.layer2.0.norm2.weight": (96,),
        "module.cnet.layer2.0.norm3.weight": (96,),
        "module.cnet.layer3.0.downsample.1.running_var": (128,),
        "module.update_block.encoder.convc1.weight": (256, 324, 1, 1),
        "module.update_block.encoder.convc2.bias": (192,),
        "module.update_block.encoder.convf2.weight": (64, 128, 3, 3),
        "module.update_block.encoder.conv.weight": (126, 256, 3, 3),
        "module.update_block.gru.convz1.weight": (128, 384, 1, 5),
        "module.update_block.gru.convq2.weight": (128, 384, 5, 1),
        "module.update_block.flow_head.conv2.weight": (2, 256, 3, 3),
        "module.update_block.mask.0.weight": (256, 128, 3, 3),
        "module.update_block.mask.2.bias": (576,),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize(
    ("name", "updates"), [("raft_sintel", 20), ("raft_large", 12), ("raft_small", 12)]
)
def test_raft_rows(checkpoints: dict[str, Path], name: str, updates: int) -> None:
    """Padded at the edges, computed, and un-padded; as in the formulas of the paper's code."""
    frames = clip(3)
    extractor = load(name, checkpoints)
    items = extractor.preprocess(frames)["flow"]
    network = raft_small() if name == "raft_small" else raft_large()
    state = torch.load(checkpoints[name], weights_only=True)
    if name == "raft_sintel":
        state = {key: state[raft.authors_key(key)] for key in network.state_dict()}
    network.load_state_dict(state)
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    planes = functional.pad(planes, (3, 3, 0, 0), mode="replicate")
    with torch.inference_mode():
        flow = network.eval()(planes[:-1], planes[1:], num_flow_updates=updates)[-1][..., 3:-3]
    assert items.shape == (3, 2, 128, 130)
    assert not items[0].any()
    assert (items[1:] - flow).abs().max() < 1e-3 * flow.std()
    rows = extractor.forward({"flow": torch.stack([items[:2], items[1:]])})["flow"]
    assert torch.equal(rows, items[1:])
    assert extractor.classify({"flow": rows}) is None


@pytest.mark.parametrize("name", ["raft_small", "pwc_sintel"])
def test_flow_does_not_depend_on_how_the_frames_come(
    checkpoints: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = clip(5)
    extractor = load(name, checkpoints)
    expected = extractor.preprocess(frames)["flow"]
    monkeypatch.setattr(flow_estimators, "CPU_BYTES", 1)
    parts = [
        extractor.preprocess(frames[:1]),
        extractor.preprocess(frames[1:3], frames[0]),
        extractor.preprocess(frames[3:], frames[2]),
    ]
    flow = torch.cat([part["flow"] for part in parts])
    assert flow.shape == expected.shape
    assert (flow - expected).abs().max() < 1e-4 * expected.std()
    assert expected.std() > 0


@pytest.mark.parametrize("name", ["raft_small", "pwc_sintel"])
def test_frames_smaller_than_the_network_can_read(checkpoints: dict[str, Path], name: str) -> None:
    flow = load(name, checkpoints).preprocess(clip(2, 40, 56))["flow"]
    assert flow.shape == (2, 2, 40, 56)
    assert flow.isfinite().all()
    assert flow[1].any()


@pytest.mark.parametrize("name", ["raft_sintel", "pwc_sintel"])
def test_bf16_is_close_and_float32(checkpoints: dict[str, Path], name: str) -> None:
    frames = clip(2)
    exact = load(name, checkpoints).preprocess(frames)["flow"][1]
    reduced = load(name, checkpoints, "bf16").preprocess(frames)["flow"][1]
    assert reduced.dtype == torch.float32
    assert 0 < (reduced - exact).norm() / exact.norm() < 0.1


def test_a_frame_size_that_changes(checkpoints: dict[str, Path]) -> None:
    extractor = load("raft_small", checkpoints)
    with pytest.raises(VideoError, match="changes from 130×128 to 160×128") as caught:
        extractor.preprocess(clip(2, width=160), clip(1)[0])
    assert caught.value.status == "unreadable"
    smaller = load("raft_small", checkpoints, side_size=128)  # what counts is the resized frame
    assert smaller.preprocess(clip(1, 256, 260), clip(1)[0])["flow"].shape == (1, 2, 128, 130)


def test_frames_are_resized_by_their_smaller_or_larger_edge(checkpoints: dict[str, Path]) -> None:
    assert resized_size(240, 320, 160, smaller=True) == (160, 213)
    assert resized_size(320, 240, 160, smaller=True) == (213, 160)
    assert resized_size(240, 320, 160, smaller=False) == (120, 160)
    assert resized_size(320, 240, 160, smaller=False) == (160, 120)
    assert resized_size(100, 100, 160, smaller=False) == (160, 160)
    extractor = load("raft_small", checkpoints, side_size=160, resize_to_smaller_edge=False)
    frames = clip(2, 240, 320)
    assert [frame.shape for frame in extractor.resized(frames)] == [(120, 160, 3)] * 2
    flow = extractor.preprocess(frames)["flow"]
    assert flow.shape == (2, 2, 120, 160)
    assert torch.equal(extractor.preprocess(frames[1:], frames[0])["flow"], flow[1:])


def test_padding_is_split_with_the_odd_pixel_right_and_below() -> None:
    assert raft_padding(256, 341) == (1, 2, 0, 0)
    assert raft_padding(241, 320) == (0, 0, 3, 4)
    assert raft_padding(120, 100) == (14, 14, 4, 4), "not up to 128"


def test_memory_bounds_the_pairs_at_once() -> None:
    assert raft.pair_bytes(256, 344) == 1376**2 * 4 * 85 // 64
    assert pairs_at_once(raft.pair_bytes(256, 344), CPU) == 6
    assert pairs_at_once(raft.pair_bytes(1088, 1920), CPU) == 1
    assert pairs_at_once(raft.pair_bytes(256, 344), torch.device("cuda")) > 100


def test_a_checkpoint_of_another_network_is_refused(checkpoints: dict[str, Path]) -> None:
    extractor = create_extractor(model_entry("raft_sintel"))
    with pytest.raises(WeightsError, match="is not one of raft_sintel"):
        extractor.load({"flow": checkpoints["raft_large"]}, device="cpu", precision="fp32")


def test_pwc_has_the_published_parameters() -> None:
    network = PWCNet()
    assert sum(p.numel() for p in network.parameters()) == 9_374_274
    shapes = {
        "moduleExtractor.moduleOne.0.weight": (16, 3, 3, 3),
        "moduleExtractor.moduleSix.4.bias": (196,),
        "moduleSix.moduleOne.0.weight": (128, 81, 3, 3),
        "moduleFiv.moduleUpflow.weight": (2, 2, 4, 4),
        "moduleFiv.moduleUpfeat.weight": (529, 2, 4, 4),
        "moduleFou.moduleThr.0.weight": (96, 437, 3, 3),
        "moduleThr.moduleFou.0.weight": (64, 501, 3, 3),
        "moduleTwo.moduleFiv.0.weight": (32, 533, 3, 3),
        "moduleTwo.moduleSix.0.weight": (2, 565, 3, 3),
        "moduleRefiner.moduleMain.0.weight": (128, 565, 3, 3),
        "moduleRefiner.moduleMain.12.bias": (2,),
    }
    state = network.state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert not [key for key in state if key.startswith("moduleSix.moduleUp")]


def test_pwc_levels_start_from_the_flow_in_their_own_pixels() -> None:
    assert [Decoder(level).scale for level in (2, 3, 4, 5)] == [5.0, 2.5, 1.25, 0.625]


def test_a_pwc_checkpoint_under_later_names(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    state = torch.load(checkpoints["pwc_sintel"], weights_only=True)
    renamed = {key.replace("module", "net"): value for key, value in state.items()}
    torch.save(renamed, tmp_path / "renamed.pth")
    frames = clip(2)
    expected = load("pwc_sintel", checkpoints).preprocess(frames)["flow"]
    flow = load("pwc_sintel", {"pwc_sintel": tmp_path / "renamed.pth"}).preprocess(frames)["flow"]
    assert torch.equal(flow, expected)


def test_cost_volume_is_the_mean_product_with_each_neighbour() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 3, 6, 7)
    costs = cost_volume(first, second)
    assert costs.shape == (2, 81, 6, 7)
    for dy in range(-4, 5):
        for dx in range(-4, 5):
            for y in range(6):
                for x in range(7):
                    inside = 0 <= y + dy < 6 and 0 <= x + dx < 7
                    neighbour = second[:, :, y + dy, x + dx] if inside else torch.zeros(2, 3)
                    expected = (first[:, :, y, x] * neighbour).mean(1)
                    cost = costs[:, 9 * (dy + 4) + dx + 4, y, x]
                    assert torch.allclose(cost, expected, atol=1e-6), (dy, dx, y, x)


def test_warping_fetches_from_where_the_flow_points() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 2, 8, 9)
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 9)
    fetched = warp(features, flow)
    assert torch.allclose(fetched[:, :, 1:, :-2], features[:, :, :-1, 2:], atol=1e-5)
    assert not fetched[:, :, 0].any(), "from above the map"
    assert not fetched[:, :, :, -2:].any(), "from beyond its right side"
    half = warp(features, torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 9))
    between = (features[..., :-1] + features[..., 1:]) / 2
    assert torch.allclose(half[..., :-1], between, atol=1e-5)
    assert not half[..., -1].any(), "half outside is outside"


class ConstantFlow(nn.Module):
    """In the place of PWC-Net: remembers its input, and says (1, 1) everywhere."""

    def forward(self, frames: Tensor) -> Tensor:
        self.frames = frames
        height, width = (side // 4 for side in frames.shape[2:])
        return torch.ones(len(frames) - 1, 2, height, width)


def test_pwc_reads_bgr_at_multiples_of_64_and_scales_its_flow_back(
    checkpoints: dict[str, Path],
) -> None:
    extractor: Any = load("pwc_sintel", checkpoints)
    network = extractor.estimator._network = ConstantFlow()
    frames = np.zeros((2, 96, 160, 3), np.uint8)
    frames[..., 0] = 255  # red
    flow = extractor.preprocess(frames)["flow"][1]
    assert network.frames.shape == (2, 3, 128, 192)
    assert not network.frames[:, :2].any()
    assert (network.frames[:, 2] == 1).all()
    assert flow.shape == (2, 96, 160)
    assert torch.allclose(flow[0], torch.tensor(20 * 160 / 192))
    assert torch.allclose(flow[1], torch.tensor(20 * 96 / 128))


def test_tvl1_follows_a_texture_that_moves() -> None:
    pytest.importorskip("cv2")
    from reelstack.models.tvl1 import TvL1

    flow = TvL1(CPU).flow(clip(3, 96, 120))
    assert flow.shape == (2, 2, 96, 120)
    assert flow.dtype == torch.float32
    inside = flow[:, :, 20:-20, 20:-20]
    assert inside[:, 0].median() == pytest.approx(-3, abs=0.1)
    assert inside[:, 1].median() == pytest.approx(2, abs=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["raft_sintel", "raft_small", "pwc_sintel"])
def test_a_gpu_gives_the_same_flow(checkpoints: dict[str, Path], name: str) -> None:
    frames = clip(4)
    expected = load(name, checkpoints).preprocess(frames)["flow"]
    there = create_extractor(model_entry(name))
    there.load({"flow": checkpoints[name]}, device="cuda", precision="fp32")
    flow = there.preprocess(frames)["flow"].cpu()
    assert (flow - expected).abs().max() < 1e-3 * expected.std()


def test_the_widest_map_of_pwc_is_what_its_memory_is_counted_by() -> None:
    assert pwc.pair_bytes(256, 384) == 64 * 96 * 565 * 4
