"""What a set can ask for beyond its windows, through the whole workflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from harness import MODEL, Project, jobs
from media_factory import cut, write_video
from PIL import Image
from reelstack import extract_video
from reelstack.models.registry import MODELS
from reelstack.store.flow_size import resize_flow
from torchvision.models.optical_flow import raft_small

SPREAD: dict[str, Any] = {
    "model": MODEL,
    "total": 20,
    "stack_size": 4,
    "step_size": 4,
    "dtype": "float16",
    "keep_frames": True,
}
INNER: dict[str, Any] = {"model": MODEL, "fps": {"method": "source"}, "layer": "layer3"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A whole video, one that was cut and one that is none; not to be changed."""
    project = Project(tmp_path_factory.mktemp("asked") / "project")
    project.configure(features={"spread": SPREAD, "inner": INNER})
    project.add_videos("sub/whole")
    folder = project.folder / "videos"
    options = {"movflags": "faststart"}
    front = write_video(folder / "front.mp4", num_frames=75, mux_options=options)
    cut(front, folder / "cut.mp4", 0.6)
    front.unlink()
    (folder / "text.mp4").write_text("no video at all")
    outcome = project.run()
    assert outcome.jobs == jobs(probe=1, fetch_weights=1, extract_r21d=2, aggregate=1)
    return project


def test_a_number_of_frames_is_spread_over_every_video(asked: Project) -> None:
    """Two sets share one checkpoint; nothing is re-encoded where nothing reads it."""
    rows = {name: asked.row(name, "spread") for name in ("sub/whole", "cut", "text")}
    assert [row["status"] for row in rows.values()] == ["ok", "truncated", "unreadable"]
    whole = rows["sub/whole"]
    counts = [int(whole[name]) for name in ("num_windows", "frames_used", "frames_decoded")]
    assert counts == [5, 20, 40]
    assert float(whole["fps_used"]) == pytest.approx(10)
    stored = asked.stored()["spread", "sub/whole"]
    assert stored["time_start"] == pytest.approx(np.arange(5) * 0.4)
    assert stored["time_end"] == pytest.approx(np.arange(1, 6) * 0.4)
    seconds = asked.stored()["spread", "cut"]["time_end"][-1]
    assert 0 < seconds < 3
    assert asked.plan().nothing_to_do


def test_the_workflow_and_the_library_give_the_same(asked: Project) -> None:
    options = {key: value for key, value in SPREAD.items() if key != "keep_frames"}
    path = asked.folder / "videos" / "sub" / "whole.mp4"
    features = extract_video(path, device="cpu", **options)
    stored = asked.stored()["spread", "sub/whole"]
    drift = stored["rgb"].astype(np.float64) - features.streams["rgb"]
    assert np.abs(drift).max() < 2e-3 * features.streams["rgb"].std()
    assert np.array_equal(stored["class_index"], features.predictions.class_index[:, :2])


def test_half_precision_is_half_in_the_store(asked: Project) -> None:
    root = zarr.open_group(asked.results / "store.zarr", mode="r")
    assert root["spread"]["features"].dtype == np.float16
    assert root["inner"]["features"].dtype == np.float32
    assert asked.stored()["spread", "cut"]["rgb"].dtype == np.float16


def test_an_inner_layer_is_as_wide_as_it_has_channels(asked: Project) -> None:
    features = extract_video(
        asked.folder / "videos" / "sub" / "whole.mp4", model=MODEL, device="cpu", layer="layer3"
    )
    stored = asked.stored()["inner", "sub/whole"]["rgb"]
    assert stored.shape == features.streams["rgb"].shape
    assert np.abs(stored - features.streams["rgb"]).max() < 1e-3 * stored.std()
    assert asked.row("sub/whole", "inner")["feature_dim"] == stored.shape[1]
    assert asked.row("text", "inner")["feature_dim"] == stored.shape[1]


def test_frames_are_kept_beside_the_results(asked: Project) -> None:
    folder = asked.results / "frames"
    assert [path.name for path in folder.iterdir()] == ["spread"], "of the set that keeps them"
    counts = {
        path.relative_to(folder / "spread").as_posix(): len(list(path.glob("*.jpg")))
        for path in (folder / "spread").rglob("*")
        if path.is_dir()
    }
    used = int(asked.row("cut", "spread")["frames_used"])
    assert 0 < used <= 20, "fewer where the end cannot be decoded"
    assert counts == {"sub": 0, "sub/whole": 20, "cut": used}
    picture = Image.open(folder / "spread" / "sub" / "whole" / "000019.jpg")
    assert (picture.format, picture.size) == ("JPEG", (86, 64))


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "raft_small.pth"
    torch.save(raft_small().state_dict(), file)
    return file


def test_flow_of_several_sizes_needs_one_for_the_store(
    new_project: Callable[..., Project], raft: Path
) -> None:
    """The error says what to write, and nothing is computed twice because of it."""
    flow = {"model": "raft_small", "fps": {"method": "source"}}
    project = new_project(weights={"raft_small": str(raft)}, features={"flow": flow})
    sizes = {"wide": (128, 168), "tall": (160, 128)}
    for name, (height, width) in sizes.items():
        path = project.folder / "videos" / f"{name}.mp4"
        write_video(path, num_frames=4, height=height, width=width)
    failed = project.attempt()
    assert failed.returncode != 0
    assert failed.jobs == jobs(probe=1, fetch_weights=1, extract_flow=1, aggregate=1)
    assert "flow: {model: raft_small, size: [224, 224]}" in failed.output
    assert not (project.results / "manifest.csv").exists()

    project.configure(features={"flow": flow | {"size": [32, 40]}})
    assert project.run().jobs == jobs(aggregate=1)
    stored = project.stored()
    for name in sizes:
        path = project.folder / "videos" / f"{name}.mp4"
        features = extract_video(path, model="raft_small", weights=raft, device="cpu")
        expected = features.streams["flow"]
        assert expected.shape == (3, 2, *sizes[name])
        found = stored["flow", name]["flow"]
        assert found.shape == (3, 2, 32, 40)
        error = np.abs(found - resize_flow(expected, [32, 40])).max()
        assert error < 1e-3 * expected.std()
        assert project.row(name, "flow")["feature_dim"] == 2 * 32 * 40
    assert project.plan().nothing_to_do

    project.configure(features={"flow": flow | {"size": [16, 16]}})
    assert project.run().jobs == jobs(aggregate=1)
    assert project.stored()["flow", "wide"]["flow"].shape == (3, 2, 16, 16)


def test_sound_follows_the_set_that_it_is_aligned_with(finished: Project, project: Project) -> None:
    """Planned only: the checkpoint is none."""
    weights = project.folder / "vggish.pt"
    weights.write_bytes(b"none")
    sound = {"model": "vggish", "align": "sampled"}
    sets = project.config["features"] | {"sound": sound}
    project.configure(features=sets, weights={"vggish": str(weights)})
    assert project.plan().jobs == jobs(fetch_weights=1, extract_vggish=1, aggregate=1)
    text = project.run("--dry-run", "--printshellcmds").output
    assert "features/sampled/s000000.npz" in text.partition("rule extract_vggish")[2]
    sets["sampled"] = sets["sampled"] | {"step_size": 5}
    project.configure(features=sets)
    expected = jobs(fetch_weights=1, extract_r21d=1, extract_vggish=1, aggregate=1)
    assert project.plan().jobs == expected
    assert finished.plan().nothing_to_do


def test_every_model_has_its_rule(new_project: Callable[..., Project]) -> None:
    """A set of every model with a catalogue entry is planned, each by its family's rule."""
    plain = [e for e in MODELS.values() if e.name != "r2plus1d_pytorch"]
    sets = {f"set{n}": {"model": entry.name} for n, entry in enumerate(plain)}
    sets |= {"timm": {"model": "timm/resnet18"}, "hf": {"model": "hf/owner/name"}}
    project = new_project("a", features=sets)
    found = project.plan().jobs
    families = [entry.family for entry in plain] + ["timm", "hf"]
    expected = {f"extract_{family}": families.count(family) for family in set(families)}
    assert {rule: n for rule, n in found.items() if rule.startswith("extract_")} == expected
    components = sum(len(e.needed_components(e.streams, e.settings)) for e in plain)
    assert found["fetch_weights"] == components
    assert found["fetch_timm_weights"] == found["fetch_hf_weights"] == 1
