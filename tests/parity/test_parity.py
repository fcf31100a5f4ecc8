"""The same numbers as the established tool, from the same weights and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit import KIT, SAME, TOLERANCE, Case, Weights, cases, deviation, find_case
from numpy.typing import NDArray
from reelstack import Features, extract_video, open_store
from reelstack.extract import engine
from reelstack.extract.api import open_extractor, run_video
from reelstack.extract.engine import WindowSettings
from reelstack.media.frames import VideoReader
from reelstack.models.base import Extractor
from reelstack.models.r21d import MEAN, STD, VideoResNetExtractor
from reelstack.models.registry import model_entry
from reelstack.store.export import export_store
from torch import Tensor
from torch.nn import functional

if not KIT.is_dir():
    pytest.skip(
        f"the parity kit is not at {KIT} (set REELSTACK_PARITY to its folder)",
        allow_module_level=True,
    )

R21D_18 = "r2plus1d_18_16_kinetics"
SHORT = KIT / "media" / "v_GGSY1Qvo990_2s.mp4"
EVERY_CASE = pytest.mark.parametrize("case", cases(), ids=lambda c: c.path.stem)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights(tmp_path_factory.mktemp("weights"))


def test_the_kit_covers_both_families() -> None:
    assert {model_entry(case.model).family for case in cases()} == {"r21d", "resnet"}
    assert len(cases()) >= 14


def check(features: Features, case: Case) -> None:
    reference = case.arrays()
    assert deviation(features.streams["rgb"], case.features) < TOLERANCE
    if "timestamps_ms" in reference:
        stamps = features.time_start * 1000
        np.testing.assert_allclose(stamps, reference["timestamps_ms"], rtol=SAME, atol=SAME)
        np.testing.assert_allclose(features.info["fps"], reference["fps"], rtol=SAME)


@EVERY_CASE
def test_reference(case: Case, weights: Weights) -> None:
    features = extract_video(
        case.media,
        model=case.model,
        weights=weights[case.model],
        device="cpu",
        **case.windowing,
    )
    check(features, case)


@pytest.mark.gpu
@EVERY_CASE
def test_reference_on_a_gpu(case: Case, weights: Weights) -> None:
    features = extract_video(
        case.media,
        model=case.model,
        weights=weights[case.model],
        device="cuda",
        **case.windowing,
    )
    check(features, case)


@pytest.mark.parametrize("name", sorted(json.loads((KIT / "media/frames.json").read_text())))
def test_every_frame_is_decoded_bit_by_bit(name: str) -> None:
    expected = json.loads((KIT / "media/frames.json").read_text())[name]
    with VideoReader(KIT / "media" / name, threads=2) as reader:
        sums = [hashlib.md5(np.ascontiguousarray(frame.rgb())).hexdigest() for frame in reader]
        assert reader.problem == ""
    assert sums == expected["rgb24_md5"]
    assert (reader.width, reader.height) == (expected["width"], expected["height"])
    assert reader.fps == pytest.approx(expected["fps"], rel=SAME)


def first_frames(path: Path, count: int) -> NDArray[np.uint8]:
    with VideoReader(path) as reader:
        frames = iter(reader)
        return np.stack([next(frames).rgb() for _ in range(count)])


@pytest.mark.parametrize("video", ["v_GGSY1Qvo990", "v_ZNVhz7ctTq0"])
@pytest.mark.parametrize(("kind", "model"), [("r21d", R21D_18), ("resnet50", "resnet50")])
def test_the_network_sees_the_same_pixels(
    kind: str, model: str, video: str, weights: Weights
) -> None:
    with np.load(KIT / "intermediate" / f"{kind}_input__{video}.npz") as stored:
        expected = stored["input"]
    expected = expected.transpose(1, 0, 2, 3) if kind == "r21d" else expected[None]
    extractor = open_extractor(
        model_entry(model), weights=weights[model], device="cpu", precision="fp32"
    )
    frames = first_frames(KIT / "media" / f"{video}.mp4", len(expected))
    computed = extractor.preprocess(frames).numpy()
    assert deviation(computed, expected) < 1e-5


def test_the_workflow_and_the_export_give_the_references(weights: Weights, tmp_path: Path) -> None:
    """One reference of each family on one video, read back from the store and from .npy files."""
    from workflow.harness import Project

    families = {"r21d": "r2plus1d_34_8_ig65m_ft_kinetics", "resnet": "resnet50"}
    video = "v_GGSY1Qvo990_fps1"
    project = Project(tmp_path / "project")
    project.configure(
        videos=[str(KIT / "media" / f"{video}.mp4")],
        fps={"method": "source"},
        features={family: {"model": model} for family, model in families.items()},
        weights={model: str(weights[model]) for model in families.values()},
    )
    project.run()
    store = project.results / "store.zarr"
    export_store(store, tmp_path / "export")
    for family, model in families.items():
        case = find_case(model, video)
        stored = open_store(store)[family][video]
        assert deviation(stored.streams["rgb"], case.features) < TOLERANCE
        folder = tmp_path / "export" / family / model
        exported = np.load(folder / f"{video}_{family}.npy")
        assert exported.dtype == np.float64
        assert deviation(exported, case.features) < TOLERANCE
        for name in case.arrays().keys() - {family}:
            values = np.load(folder / f"{video}_{name}.npy")
            np.testing.assert_allclose(values, case.arrays()[name], rtol=SAME, atol=SAME)


@pytest.fixture(scope="session")
def r21d_18(weights: Weights) -> Extractor:
    return open_extractor(
        model_entry(R21D_18), weights=weights[R21D_18], device="cpu", precision="fp32"
    )


def windows_of(extractor: Extractor, path: Path = SHORT) -> NDArray[np.float32]:
    settings = WindowSettings(stack_size=16, step_size=12, tail="drop", top_k=0)
    return run_video(path, extractor, settings, streams=("rgb",)).streams["rgb"]


@pytest.mark.parametrize(
    ("threads", "batch_frames", "chunk_frames"), [(1, 64, 16), (2, 16, 7), (2, 48, 1)]
)
def test_threads_and_batches_do_not_matter(
    r21d_18: Extractor,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    batch_frames: int,
    chunk_frames: int,
) -> None:
    usual = windows_of(r21d_18)
    before = torch.get_num_threads()
    monkeypatch.setattr(engine, "BATCH_FRAMES", batch_frames)
    monkeypatch.setattr(engine, "CHUNK_FRAMES", chunk_frames)
    torch.set_num_threads(threads)
    try:
        assert deviation(windows_of(r21d_18), usual) < TOLERANCE / 3
    finally:
        torch.set_num_threads(before)


def test_the_first_feature_is_the_recorded_one(r21d_18: Extractor) -> None:
    with np.load(KIT / "intermediate" / "r21d_input__v_GGSY1Qvo990.npz") as stored:
        expected = stored["feature"]
    assert deviation(windows_of(r21d_18)[0], expected) < TOLERANCE


def own_preprocess(frames: NDArray[np.uint8], *, left: int, order: Any = slice(None)) -> Tensor:
    """The published transforms once more, with room for a mistake."""
    pixels = torch.from_numpy(frames[..., order].copy()).permute(0, 3, 1, 2).float() / 255
    scaled = functional.interpolate(pixels, size=(128, 171), mode="bilinear", align_corners=False)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (scaled[..., 8:120, left : left + 112] - mean) / std


@pytest.mark.parametrize(
    ("mistake", "passes"),
    [
        ({"left": 30}, True),
        ({"left": 29}, False),
        ({"left": 30, "order": slice(None, None, -1)}, False),
    ],
    ids=["no mistake", "one column off", "BGR"],
)
def test_a_mistake_fails_the_rule(
    r21d_18: Extractor,
    monkeypatch: pytest.MonkeyPatch,
    mistake: dict[str, Any],
    passes: bool,
) -> None:
    usual = windows_of(r21d_18)
    monkeypatch.setattr(
        VideoResNetExtractor, "preprocess", lambda _, frames: own_preprocess(frames, **mistake)
    )
    difference = deviation(windows_of(r21d_18), usual)
    assert difference < TOLERANCE if passes else difference > 10 * TOLERANCE
