"""What arrives, changes or goes costs what it touches, and nothing else changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import zarr
from harness import Outcome, Project, assert_same_rows, jobs

EVERYTHING = jobs(probe=1, reencode=1, extract_r21d=2, aggregate=1)
OLD = {"a", "b", "sub/c"}


def test_a_first_run_runs_every_stage_and_the_second_nothing(finished: Project) -> None:
    assert set(finished.manifest["status"]) == {"ok"}
    assert len(finished.manifest) == 6
    assert finished.plan().nothing_to_do


def test_an_edited_comment_in_the_config_runs_nothing(project: Project) -> None:
    path = project.folder / "my.yaml"
    path.write_text(f"# a thought\n{path.read_text()}# and another\n")
    assert project.run().nothing_to_do


def test_new_videos_fill_the_open_shard(finished: Project, grown: tuple[Project, Outcome]) -> None:
    project, outcome = grown
    assert outcome.jobs == EVERYTHING
    new = {"0_first", "d", "sub/e"}
    assert project.computed() == {"encoded": new, "sampled": new}
    assert_same_rows(project.stored(), finished.stored())
    assert project.journals().items() >= finished.journals().items()
    videos = "reencoded/fps25/s000000/**/*.mp4"
    assert project.file_facts(videos).items() >= finished.file_facts(videos).items()
    assert len(project.stored()) == 12
    assert project.plan().nothing_to_do


def test_new_videos_after_a_full_shard_open_a_new_one(
    grown: tuple[Project, Outcome], tmp_path: Path
) -> None:
    """Also after a killed aggregation: what it had appended without an index entry is cut off."""
    before = grown[0]
    project = before.copy_to(tmp_path / "project")
    project.forget_logs()
    append_garbage(project.results / "store.zarr" / "encoded", 7)
    project.add_videos("x", "y", "z", first_seed=20)
    assert project.run().jobs == EVERYTHING
    assert set(project.manifest.loc[["x", "y", "z"], "shard"]) == {"s000001"}
    assert project.computed() == {"encoded": {"x", "y", "z"}, "sampled": {"x", "y", "z"}}
    assert_same_rows(project.stored(), before.stored())
    old_shard = ("**/s000000*", "**/s000000/**/*")
    assert project.file_facts(*old_shard) == before.file_facts(*old_shard)
    group = zarr.open_group(project.results / "store.zarr", mode="r")["encoded"]
    rows = int(project.manifest.xs("encoded", level=1)["row_size"].sum())
    assert group["features"].shape == (rows, 64)
    assert np.isfinite(group["features"][:]).all()
    assert project.plan().nothing_to_do


def append_garbage(group_path: Path, num_rows: int) -> None:
    """What an aggregation leaves that was killed between the rows and the index."""
    group = zarr.open_group(group_path, mode="a")
    for name in ("features", "time_start", "score"):
        array = group[name]
        length = array.shape[0]
        array.resize((length + num_rows, *array.shape[1:]))
        array[length:] = np.nan


def test_a_replaced_video_redoes_itself_only(finished: Project, project: Project) -> None:
    project.add_videos("b", first_seed=99)
    assert project.run().jobs == EVERYTHING
    assert project.computed() == {"encoded": {"b"}, "sampled": {"b"}}
    old, new = finished.stored(), project.stored()
    for name in ("encoded", "sampled"):
        assert np.abs(new[name, "b"]["rgb"] - old[name, "b"]["rgb"]).max() > 0.01
        for video_id in ("a", "sub/c"):
            np.testing.assert_array_equal(new[name, video_id]["rgb"], old[name, video_id]["rgb"])
    assert project.row("b")["sha256"] != finished.row("b")["sha256"]
    assert project.plan().nothing_to_do


def test_a_removed_video_leaves_store_and_manifest(finished: Project, project: Project) -> None:
    (project.folder / "videos" / "a.mp4").unlink()
    assert project.run().jobs == EVERYTHING
    assert project.computed() in ({}, {"encoded": set(), "sampled": set()})
    assert set(project.manifest.index.get_level_values(0)) == {"b", "sub/c"}
    old, new = finished.stored(), project.stored()
    assert {video_id for _, video_id in new} == {"b", "sub/c"}
    for key, arrays in new.items():
        np.testing.assert_array_equal(arrays["rgb"], old[key]["rgb"])
    assert not list(project.results.glob("reencoded/**/a.mp4"))
    assert project.plan().nothing_to_do


def test_a_touched_video_is_looked_at_but_not_computed_again(
    finished: Project, project: Project
) -> None:
    os.utime(project.folder / "videos" / "a.mp4")
    assert project.run().jobs == EVERYTHING
    assert not any(project.computed().values())
    assert_same_rows(project.stored(), finished.stored())
    files = ("store.zarr/**/c/**/*", "reencoded/**/*.mp4")
    assert project.file_facts(*files) == finished.file_facts(*files)
    assert project.plan().nothing_to_do
