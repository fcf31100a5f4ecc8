"""A changed parameter redoes exactly what depends on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from harness import CHECKPOINT, MODEL, Project, assert_same_rows, jobs
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18


def test_a_window_parameter_redoes_its_set(finished: Project, project: Project) -> None:
    sets = project.config["features"]
    project.configure(features=sets | {"sampled": sets["sampled"] | {"step_size": 5}})
    assert project.run().jobs == jobs(extract_r21d=1, aggregate=1)
    assert project.computed()["sampled"] == {"a", "b", "sub/c"}
    old, new = finished.stored(), project.stored()
    assert_same_rows(
        {k: v for k, v in new.items() if k[0] == "encoded"},
        {k: v for k, v in old.items() if k[0] == "encoded"},
    )
    assert len(new["sampled", "a"]["rgb"]) > len(old["sampled", "a"]["rgb"])
    assert (
        project.row("a", "sampled")["parameters_hash"]
        != (finished.row("a", "sampled")["parameters_hash"])
    )
    assert project.plan().nothing_to_do


def test_a_set_comes_and_goes(finished: Project, project: Project) -> None:
    sets = project.config["features"]
    project.configure(features=sets | {"dense": {"model": MODEL, "step_size": 8}})
    assert project.run().jobs == jobs(extract_r21d=1, aggregate=1)
    assert_same_rows(project.stored(), finished.stored())
    assert {name for name, _ in project.stored()} == {"encoded", "sampled", "dense"}

    project.configure(features=sets)
    assert project.run().jobs == jobs(aggregate=1)
    assert_same_rows(finished.stored(), project.stored())
    assert not (project.results / "store.zarr" / "dense").exists()


def test_a_set_of_another_family_fetches_its_weights(finished: Project, project: Project) -> None:
    torch.manual_seed(0)
    save_file(resnet18().state_dict(), project.folder / "resnet18.safetensors")
    project.configure(
        features=project.config["features"]
        | {"frames": {"model": "resnet18", "step_size": 10, "fps": {"method": "source"}}},
        weights={"resnet18": "resnet18.safetensors"},
    )
    assert project.run().jobs == jobs(fetch_weights=1, extract_resnet=1, aggregate=1)
    assert_same_rows(project.stored(), finished.stored())
    dataset = xarray.open_zarr(
        project.results / "store.zarr", group="frames", zarr_format=3, consolidated=False
    )
    assert dataset["features"].shape == (12, 512)
    assert project.plan().nothing_to_do


def test_the_encoder_concerns_only_what_reads_encoded_videos(
    finished: Project, project: Project
) -> None:
    project.configure(fps={"encoder": {"crf": 40}})
    assert project.run().jobs == jobs(reencode=1, extract_r21d=1, aggregate=1)
    assert project.computed() == {"encoded": {"a", "b", "sub/c"}}
    old, new = finished.stored(), project.stored()
    assert np.abs(new["encoded", "a"]["rgb"] - old["encoded", "a"]["rgb"]).max() > 1e-3
    np.testing.assert_array_equal(new["sampled", "a"]["rgb"], old["sampled", "a"]["rgb"])
    tables = (project.results / "reencode/fps25").glob("s*.csv")
    assert all("-crf 40" in table.read_text() for table in tables)
    assert len(list((project.results / "reencode/fps25/.state/s000000").glob("*.mp4"))) == 3
    assert project.plan().nothing_to_do


def test_new_weights_redo_every_set_of_their_model(project: Project) -> None:
    """Jobs that ask for a GPU of the one there is never run at once."""
    checkpoint = project.folder / "mine.safetensors"
    checkpoint.write_bytes(CHECKPOINT.read_bytes())
    project.configure(weights={MODEL: str(checkpoint)})
    before = project.stored()
    same = project.run(cores=8, gpus=1, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert same.jobs == jobs(fetch_weights=1, extract_r21d=2, aggregate=1)
    assert same.most_extractions_at_once == 1
    assert not any(project.computed().values())  # the bytes are those of before
    assert_same_rows(project.stored(), before)

    changed = load_file(checkpoint)
    changed["fc.bias"] += 1
    changed["layer4.0.conv2.0.3.weight"] *= 1.5
    save_file(changed, checkpoint)
    different = project.run(cores=8, gpus=2, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert different.jobs == same.jobs
    assert different.most_extractions_at_once == 2
    old, new = before["encoded", "a"]["rgb"], project.stored()["encoded", "a"]["rgb"]
    assert np.abs(new - old).max() > 1e-3
    assert project.plan().nothing_to_do


@pytest.mark.parametrize(
    ("lost", "rebuilt"),
    [
        ("probe/s000000.csv", jobs(probe=1, reencode=1, extract_r21d=2, aggregate=1)),
        ("reencode/fps25/s000000.csv", jobs(reencode=1, extract_r21d=1, aggregate=1)),
        (
            "weights/r2plus1d_tiny_motion.rgb.json",
            jobs(fetch_weights=1, extract_r21d=2, aggregate=1),
        ),
        ("provenance.json", jobs(aggregate=1)),
        ("plan/s000000.csv", {}),  # written again while parsing, with the same content
    ],
)
def test_a_lost_output_of_any_stage_is_asked_for_again(
    project: Project, lost: str, rebuilt: dict[str, int]
) -> None:
    (project.results / lost).unlink()
    assert project.plan().jobs == rebuilt


def test_a_lost_part_and_re_encoded_folder_are_rebuilt_without_computing(
    finished: Project, project: Project
) -> None:
    lost: list[Path] = [project.results / "features/sampled/s000000.npz"]
    lost += (project.results / "reencoded").rglob("*.mp4")
    for path in lost:
        path.unlink()
    (project.results / "reencoded/fps25/s000000/.snakemake_timestamp").unlink()
    (project.results / "reencoded/fps25/s000000/sub").rmdir()
    (project.results / "reencoded/fps25/s000000").rmdir()
    assert project.run().jobs == jobs(reencode=1, extract_r21d=2, aggregate=1)
    assert not any(project.computed().values())
    assert_same_rows(project.stored(), finished.stored())
    assert all(path.is_file() for path in lost)
    assert project.plan().nothing_to_do


@pytest.mark.parametrize("lost", ["store.zarr", "manifest.csv"])
def test_a_lost_store_or_manifest_is_only_aggregated(
    finished: Project, project: Project, lost: str
) -> None:
    path = project.results / lost
    path.rename(project.folder / "elsewhere")
    assert project.run().jobs == jobs(aggregate=1)
    assert_same_rows(project.stored(), finished.stored())
    assert project.plan().nothing_to_do
