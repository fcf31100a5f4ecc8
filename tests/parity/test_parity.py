"""The same numbers as the established tool, from the same weights and files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit import (
    KIT,
    NETWORKS,
    SAME,
    TOLERANCE,
    Case,
    Weights,
    cases,
    deviation,
    find_case,
    network_outputs,
)
from numpy.typing import NDArray
from reelstack import Features, extract_video, open_store
from reelstack.extract import engine
from reelstack.extract.audio import AudioSettings, extract_audio
from reelstack.extract.engine import WindowSettings, extract_windows
from reelstack.media.audio import AudioReader
from reelstack.media.frames import VideoReader
from reelstack.models.base import Extractor, Inputs
from reelstack.models.r21d import MEAN, STD, VideoResNetExtractor
from reelstack.models.registry import create_extractor, model_entry
from reelstack.store.export import export_store
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


def test_the_kit_covers_the_reference_systems() -> None:
    families = {model_entry(case.model).family for case in cases()}
    assert families == {"r21d", "resnet", "i3d", "flow", "s3d", "vggish", "clip", "timm"}
    assert len(cases()) == 31


def check(features: Features, case: Case) -> None:
    assert features.streams.keys() == case.features.keys()
    for stream, reference in case.features.items():
        assert deviation(features.streams[stream], reference) < TOLERANCE
    arrays, entry = case.arrays(), model_entry(case.model)
    if "timestamps_ms" in arrays:
        times = features.time_end if entry.timestamps == "end" else features.time_start
        expected = arrays["timestamps_ms"][: len(features)]  # of flow there is one more than rows
        np.testing.assert_allclose(times * 1000, expected, rtol=SAME, atol=SAME)
        np.testing.assert_allclose(features.info["fps"], arrays["fps"], rtol=SAME)


def compute(case: Case, weights: Weights, device: str) -> Features:
    return extract_video(
        case.media, model=case.model, weights=weights.of(case), device=device, **case.options
    )


@EVERY_CASE
def test_reference(case: Case, weights: Weights) -> None:
    check(compute(case, weights, "cpu"), case)


@pytest.mark.gpu
@EVERY_CASE
def test_reference_on_a_gpu(case: Case, weights: Weights) -> None:
    check(compute(case, weights, "cuda"), case)


@pytest.mark.parametrize("name", NETWORKS)
def test_reference_of_a_network(name: str, weights: Weights) -> None:
    for computed, reference in network_outputs(name, weights, "cpu").values():
        assert deviation(computed, reference) < TOLERANCE


def test_a_step_beyond_the_window_is_the_one_asked_for(weights: Weights) -> None:
    """The tool goes on right after the window; the first row is the same."""
    settings = {"streams": ["rgb"], "stack_size": 16, "step_size": 17}
    case = find_case("v_GGSY1Qvo990_fps5", {"model": "i3d_kinetics400", **settings})
    assert case.settings["step_size"] == "40"
    options = case.options | {"step_size": 40}
    features = extract_video(
        case.media, model=case.model, weights=weights.of(case), device="cpu", **options
    )
    np.testing.assert_allclose(features.time_start, [0, 8])
    reference = case.features["rgb"]
    assert np.abs(features.streams["rgb"][0] - reference[0]).max() < TOLERANCE * reference.std()


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


def loaded(model: str, weights: dict[str, Path], **settings: Any) -> Extractor:
    entry = model_entry(model)
    extractor = create_extractor(entry, list(weights), settings)
    extractor.load(weights, device="cpu", precision="fp32")
    return extractor


@pytest.mark.parametrize("video", ["v_GGSY1Qvo990", "v_ZNVhz7ctTq0"])
@pytest.mark.parametrize(
    ("kind", "model", "weights_name"),
    [
        ("r21d", R21D_18, R21D_18),
        ("resnet50", "resnet50", "resnet50"),
        ("clip_ViT-B-32", "clip/ViT-B-32", "clip_ViT-B-32"),
        ("timm_mobilenetv3_small_050", "timm/mobilenetv3_small_050", "timm_mobilenetv3_small_050"),
        ("i3d_rgb", "i3d_kinetics400", "i3d_rgb"),
        ("s3d", "s3d_kinetics400", "s3d"),
    ],
)
def test_the_network_sees_the_same_pixels(
    kind: str, model: str, weights_name: str, video: str, weights: Weights
) -> None:
    video = f"{video}_fps25" if kind == "s3d" else video
    with np.load(KIT / "intermediate" / f"{kind}_input__{video}.npz") as stored:
        expected = stored["input"]
    expected = expected[0] if expected.ndim == 5 else expected
    expected = expected[None] if expected.ndim == 3 else expected.transpose(1, 0, 2, 3)
    extractor = loaded(model, {"rgb": weights[weights_name]})
    frames = first_frames(KIT / "media" / f"{video}.mp4", len(expected))
    computed = extractor.preprocess(frames)["rgb"].numpy()
    # S3D's coordinates are products, which the reference's build of torch rounded once less.
    assert deviation(computed, expected) < (1e-4 if kind == "s3d" else 1e-5)


@pytest.mark.parametrize("video", ["v_GGSY1Qvo990_4s_fps1", "v_ZNVhz7ctTq0_4s_fps1"])
def test_the_flow_stream_sees_the_same_flow(video: str, weights: Weights) -> None:
    with np.load(KIT / "intermediate" / f"i3d_flow_input__{video}.npz") as stored:
        flow, levels = stored["flow"], stored["input"][:, :, 0]
    extractor: Any = create_extractor(model_entry("i3d_kinetics400"), ["flow"])
    checkpoints = {"flow": weights["i3d_flow"], "raft": weights["raft-sintel"]}
    extractor.load(checkpoints, device="cpu", precision="fp32")
    frames = first_frames(KIT / "media" / f"{video}.mp4", 2)
    resized = np.stack(extractor.resized(frames))
    assert deviation(extractor.estimator.padded_flow(resized).numpy(), flow) < 1e-4
    computed = extractor.preprocess(frames)["flow"][1:].numpy()
    off = np.abs(computed - levels)  # a rounding error of the flow can flip a whole grey level
    assert off.max() < 2.1 / 255
    assert (off > 1e-3).mean() < 1e-3


@pytest.mark.parametrize(
    ("video", "tolerance"), [("v_GGSY1Qvo990", TOLERANCE), ("v_ZNVhz7ctTq0", 5e-3)]
)
def test_vggish_hears_the_same_sound(
    video: str, tolerance: float, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second video's AAC decodes to other last bits than with the reference's FFmpeg."""
    with np.load(KIT / "intermediate" / f"vggish_input__{video}.npz") as stored:
        head, examples = stored["wav_head"], stored["examples"]
    with AudioReader(KIT / "media" / f"{video}.mp4") as sound:
        samples = np.concatenate([block.samples for block in sound])
    np.testing.assert_array_equal(np.rint(samples[: len(head)] * 32768), head)
    extractor = loaded("vggish", {"audio": weights["vggish"]})
    heard: list[NDArray[Any]] = []

    def forward(windows: Inputs) -> Inputs:
        heard.append(windows["audio"].numpy())
        return {"audio": windows["audio"].flatten(1)[:, :128]}

    monkeypatch.setattr(extractor, "forward", forward)
    with AudioReader(KIT / "media" / f"{video}.mp4") as sound:
        list(extract_audio(sound, extractor, AudioSettings()))
    assert np.abs(np.concatenate(heard) - examples).max() < tolerance * max(1, examples.std())


@dataclass(frozen=True)
class Run:
    """One run of the workflow: feature sets of one video, and where the export puts them."""

    video: str
    sets: dict[str, dict[str, Any]]
    folders: dict[str, str]


RUNS = [
    Run(
        "v_GGSY1Qvo990_fps1",
        {"r21d": {"model": "r2plus1d_34_8_ig65m_ft_kinetics"}, "resnet": {"model": "resnet50"}},
        {"r21d": "r21d/r2plus1d_34_8_ig65m_ft_kinetics", "resnet": "resnet/resnet50"},
    ),
    Run(
        "v_GGSY1Qvo990_4s",
        {"clip": {"model": "clip/ViT-B-32"}, "vggish": {"model": "vggish"}},
        {"clip": "clip/ViT-B-32", "vggish": "vggish"},
    ),
    Run(
        "v_GGSY1Qvo990_2s",
        {"i3d": {"model": "i3d_kinetics400", "stack_size": 16, "step_size": 8}},
        {"i3d": "i3d"},
    ),
    Run(
        "v_GGSY1Qvo990_fps5",
        {"s3d": {"model": "s3d_kinetics400", "stack_size": 16, "step_size": 16}},
        {"s3d": "s3d"},
    ),
    Run(
        "v_GGSY1Qvo990_fps2",
        {"timm": {"model": "timm/mobilenetv3_small_050"}},
        {"timm": "timm/mobilenetv3_small_050"},
    ),
    Run(
        "v_GGSY1Qvo990_4s_fps1",
        {"raft": {"model": "raft_sintel", "size": [240, 320]}},
        {"raft": "raft"},
    ),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "+".join(run.sets))
def test_the_workflow_and_the_export_give_the_references(
    run: Run, weights: Weights, tmp_path: Path
) -> None:
    """One reference of each family, read back from the store and from .npy files."""
    from workflow.harness import Project

    found = {name: find_case(run.video, s) for name, s in run.sets.items()}
    project = Project(tmp_path / "project")
    project.configure(
        videos=[str(KIT / "media" / f"{run.video}.mp4")],
        fps={"method": "source"},
        features=run.sets,
        weights={
            c.model: {name: str(path) for name, path in weights.of(c).items()}
            for c in found.values()
        },
    )
    project.run()
    store = project.results / "store.zarr"
    export_store(store, tmp_path / "export")
    for name, case in found.items():
        stored = open_store(store)[name][run.video]
        for stream, reference in case.features.items():
            assert deviation(stored.streams[stream], reference) < TOLERANCE
        for key, reference in case.arrays().items():
            exported = np.load(tmp_path / "export" / run.folders[name] / f"{run.video}_{key}.npy")
            if key in ("fps", "timestamps_ms"):
                np.testing.assert_allclose(exported, reference, rtol=SAME, atol=SAME)
            else:
                assert exported.dtype == (np.float32 if name == "vggish" else np.float64)
                assert deviation(exported, reference) < TOLERANCE


@pytest.fixture(scope="session")
def r21d_18(weights: Weights) -> Extractor:
    return loaded(R21D_18, {"rgb": weights[R21D_18]})


def windows_of(extractor: Extractor, path: Path = SHORT) -> NDArray[np.float32]:
    settings = WindowSettings(stack_size=16, step_size=12, tail="drop", top_k=0)
    with VideoReader(path) as reader:
        return np.concatenate(
            [rows["rgb"] for rows in extract_windows(reader, extractor, settings)]
        )


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


def own_preprocess(frames: NDArray[np.uint8], *, left: int, order: Any = slice(None)) -> Inputs:
    """The published transforms once more, with room for a mistake."""
    pixels = torch.from_numpy(frames[..., order].copy()).permute(0, 3, 1, 2).float() / 255
    scaled = functional.interpolate(pixels, size=(128, 171), mode="bilinear", align_corners=False)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return {"rgb": (scaled[..., 8:120, left : left + 112] - mean) / std}


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
        VideoResNetExtractor,
        "preprocess",
        lambda _, frames, *_before: own_preprocess(frames, **mistake),
    )
    difference = deviation(windows_of(r21d_18), usual)
    assert difference < TOLERANCE if passes else difference > 10 * TOLERANCE
