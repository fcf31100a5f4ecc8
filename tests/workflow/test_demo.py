"""The shipped config, from another working directory, as `make demo` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray
import yaml
from harness import REPO, Outcome, Project, jobs
from reelstack import open_store

VIDEOS = REPO / "resources" / "demo" / "videos"
CLASSES = (REPO / "resources" / "demo" / "labels.txt").read_text().split()
SHIPPED = yaml.safe_load((REPO / "config" / "config.yaml").read_text())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    project = Project(tmp_path_factory.mktemp("demo"))
    return project, project.run(gpus=None)


def video_ids() -> set[str]:
    files = (p for p in VIDEOS.rglob("*") if p.is_file())
    return {p.relative_to(VIDEOS).with_suffix("").as_posix() for p in files}


def test_it_has_a_row_for_each_video_and_set(demo: tuple[Project, Outcome]) -> None:
    project, outcome = demo
    num_sets = len(SHIPPED["features"])
    assert outcome.jobs == jobs(
        probe=1, reencode=1, fetch_weights=1, extract_r21d=num_sets, aggregate=1
    )
    expected = {(video, name) for video in video_ids() for name in SHIPPED["features"]}
    assert set(project.manifest.index) == expected
    assert len(video_ids()) >= 8


def test_it_names_what_moves_in_the_whole_videos(demo: tuple[Project, Outcome]) -> None:
    project, _ = demo
    named = {video: video.split("/")[-1] for video in video_ids()}
    whole = {video: name for video, name in named.items() if name in CLASSES}
    assert set(whole.values()) == set(CLASSES)
    for group in open_store(project.results / "store.zarr").values():
        for video, name in whole.items():
            features = group[video]
            assert features.status == "ok"
            assert features.predictions is not None
            assert len(features)
            assert {features.predictions.names(n)[0] for n in range(len(features))} == {name}


def test_broken_videos_are_rows_with_their_status(demo: tuple[Project, Outcome]) -> None:
    project, _ = demo
    cut = project.row("truncated", "motion")
    assert cut["status"] == "truncated"
    assert cut["num_windows"] > 0
    assert "75" in cut["error"]
    short = project.row("short_clip", "motion")
    assert (short["status"], short["num_windows"]) == ("too_short", 0)
    assert "tail: pad" in short["error"]
    assert project.row("short_clip", "motion_dense")["status"] == "ok"


def test_xarray_opens_every_group(demo: tuple[Project, Outcome]) -> None:
    project, _ = demo
    for name in SHIPPED["features"]:
        dataset = xarray.open_zarr(project.results / "store.zarr", group=name, consolidated=False)
        rows = project.manifest.xs(name, level=1)["row_size"].sum()
        assert dataset["features"].shape == (rows, 64)
        assert set(dataset["video_id"].values.tolist()) == video_ids()
        for variable in dataset.variables.values():
            assert {"units", "long_name"} <= variable.attrs.keys()


def test_the_second_run_has_nothing_to_do(demo: tuple[Project, Outcome]) -> None:
    project, _ = demo
    before = project.file_facts()
    assert project.run(gpus=None).nothing_to_do
    assert project.plan().nothing_to_do
    assert project.file_facts() == before


def test_it_writes_nothing_into_the_checkout(demo: tuple[Project, Outcome]) -> None:
    project, _ = demo
    written = {p.name for p in Path(project.folder).iterdir()}
    assert written == {"results", "logs", "benchmarks", ".snakemake"}
