"""Snakemake's traps that can bite here, each shown not to (see docs/design.md)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from harness import REPO, Project, assert_same_rows, copy_checkout, jobs
from reelstack.media.reencode import ffmpeg_executable

BROKEN_TORCH = 'raise ImportError("this machine has a broken torch")\n'
FULL_DISK = """#!/bin/sh
case "$*" in
  *-version*|*-encoders*) exec {real} "$@" ;;
  *) echo '[error] OUT: No space left on device' >&2; exit 1 ;;
esac
"""


def without_torch(project: Project) -> dict[str, str]:
    """An environment in which only jobs that need no torch succeed."""
    broken = project.folder / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text(BROKEN_TORCH)
    return {"PYTHONPATH": f"{broken}{os.pathsep}{project.checkout / 'scripts'}"}


def test_a_failed_extraction_of_a_changed_video_is_not_forgotten(
    finished: Project, project: Project
) -> None:
    project.add_videos("b", first_seed=77)
    failed = project.attempt("--keep-going", environment=without_torch(project))
    assert failed.returncode != 0
    assert failed.jobs == jobs(probe=1, reencode=1, extract_r21d=2)
    assert "broken torch" in failed.output
    assert project.row("b")["sha256"] == finished.row("b")["sha256"]

    assert project.run().jobs == jobs(extract_r21d=2, aggregate=1)
    assert project.computed() == {"encoded": {"b"}, "sampled": {"b"}}
    assert project.row("b")["sha256"] != finished.row("b")["sha256"]
    assert project.plan().nothing_to_do


def test_a_failed_extraction_of_a_raised_version_is_not_forgotten(
    finished: Project, tmp_path: Path
) -> None:
    """T1 at its sharpest: nothing that `aggregate` reads has changed. With only the last stage
    as a target the next run would say "Nothing to be done" and keep the stale features."""
    project = finished.copy_to(tmp_path / "project", checkout=copy_checkout(tmp_path / "checkout"))
    entry = project.checkout / "scripts/reelstack/models/entry.py"
    raised = entry.read_text().replace("version: int = 1", "version: int = 2")
    assert raised != entry.read_text()
    entry.write_text(raised)
    assert project.plan().jobs == jobs(extract_r21d=2, aggregate=1)
    failed = project.attempt("--keep-going", environment=without_torch(project))
    assert failed.returncode != 0
    assert failed.jobs == jobs(extract_r21d=2)
    assert project.plan().jobs == jobs(extract_r21d=2, aggregate=1)


def test_a_failed_re_encoding_is_not_forgotten(project: Project) -> None:
    """T1 one stage earlier; a full disk is the machine's failure and no video's status."""
    shim = project.folder / "bin" / "ffmpeg"
    shim.parent.mkdir()
    shim.write_text(FULL_DISK.format(real=ffmpeg_executable()))
    shim.chmod(0o755)
    sets = {"encoded": project.config["features"]["encoded"]}
    project.configure(features=sets)
    project.add_videos("b", first_seed=78)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    failed = project.attempt(environment={"PATH": path})
    assert failed.returncode != 0
    assert failed.jobs == jobs(probe=1, reencode=1)
    assert "No space left on device" in failed.output
    assert project.plan().jobs == jobs(reencode=1, extract_r21d=1, aggregate=1)


KILLED = {
    "videos": ["videos"],
    "features": {"slow": {"model": "r2plus1d_tiny_motion", "step_size": 1}},
    "fps": {"method": "source"},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project")
    project.configure(**KILLED)
    project.add_videos(*"abcd")
    project.run()
    return project


@pytest.mark.parametrize("whole_group", [True, False])
def test_a_killed_run_resumes_where_it_was(
    undisturbed: Project, new_project: Callable[..., Project], whole_group: bool
) -> None:
    """T7: after SIGKILL of the main process alone, its job goes on beside the next run's."""
    project = new_project(*"abcd", **KILLED)
    finished_first = kill_while_extracting(project, whole_group=whole_group)
    assert finished_first
    assert not (project.results / "manifest.csv").exists()
    project.run("--unlock")
    again = project.run()
    assert again.jobs["extract_r21d"] == again.jobs["aggregate"] == 1
    if whole_group:
        assert project.computed()["slow"] == set("abcd") - finished_first
    assert_same_rows(project.stored(), undisturbed.stored())
    assert project.plan().nothing_to_do
    assert not [p for p in project.results.rglob("*") if p.name.endswith(".tmp")]


def kill_while_extracting(project: Project, *, whole_group: bool) -> set[str]:
    """Kill the run when the first video is finished; returns the finished ones."""
    process = project.start()
    try:
        while process.poll() is None and not project.journals("features"):
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[0]
    finally:
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    return {video_id for _, video_id in project.journals("features")}


def test_edited_comments_and_a_moved_checkout_run_nothing(
    finished: Project, tmp_path: Path
) -> None:
    """T8: the profile's rerun-triggers, and no absolute path in any rule's params."""
    checkout = copy_checkout(tmp_path / "elsewhere" / "reelstack")
    moved = finished.copy_to(tmp_path / "moved", checkout=checkout)
    assert moved.plan().nothing_to_do
    for path in (*checkout.glob("envs/*.yaml"), *checkout.glob("scripts/*.py")):
        path.write_text(f"{path.read_text()}\n# a thought\n")
    assert moved.plan().nothing_to_do


def test_the_default_profile_leaves_the_machine_to_the_user() -> None:
    """T10: a key of this profile would beat the one of a cluster profile."""
    profile = yaml.safe_load((REPO / "profiles/default/config.yaml").read_text())
    machine = {"cores", "jobs", "executor", "retries", "resources", "default-resources", "set-"}
    assert not machine & profile.keys()
    assert profile["rerun-triggers"] == ["mtime", "params", "input"]
    assert profile["scheduler"] == "greedy"


def test_no_gpu_means_the_cpu(
    finished: Project, new_project: Callable[..., Project], tmp_path: Path
) -> None:
    """`--resources gpu=0` does not even ask for devices; here in a copy of the checkout."""
    sampled = finished.config["features"]["sampled"]
    folder = new_project("a", features={"sampled": sampled}).folder
    project = Project(folder, checkout=copy_checkout(tmp_path / "a copy's folder"))
    shim = folder / "bin" / "nvidia-smi"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\ntouch {folder}/asked\necho 'GPU 0: X (UUID: GPU-1)'\n")
    shim.chmod(0o755)
    project.run(gpus=0, environment={"PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}"})
    assert not (folder / "asked").exists()
    (origin,) = project.provenance["feature_sets"]["sampled"]["origins"].values()
    assert origin["device"] == "cpu"
    key = ("sampled", "a")
    assert_same_rows({key: project.stored()[key]}, {key: finished.stored()[key]})


def test_planning_is_idempotent(new_project: Callable[..., Project], tmp_path: Path) -> None:
    """A dry run parses too: what is written then must be the same bytes each time."""
    project = new_project("a", "b", "c", shard={"max_videos": 2})
    project.plan()
    first = project.file_facts()
    planned = {"shards.csv", "config.yaml", "plan/live.txt", "plan/store.stamp"}
    assert planned <= first.keys()
    assert {name.split("/")[0] for name in first} == {"shards.csv", "config.yaml", "plan", ".state"}
    project.plan()
    assert project.file_facts() == first
    other = project.copy_to(tmp_path / "other")
    other.plan()
    assert other.file_facts() == first


def test_finished_results_survive_a_dry_run(project: Project) -> None:
    before = project.file_facts()
    project.plan()
    project.run("--dry-run", "--forceall")
    assert project.file_facts() == before


def test_lint_has_nothing_to_say(tmp_path: Path) -> None:
    outcome = Project(tmp_path).run("--lint")
    assert "Congratulations, your workflow is in a good condition!" in outcome.output
