"""Finished runs that many tests start from; a test works on its own copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Outcome, Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three videos, two sets, one open shard; not to be changed."""
    project = Project(tmp_path_factory.mktemp("finished") / "project")
    project.configure()
    project.add_videos("a", "b", "sub/c")
    project.run()
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished run, to change something in."""
    copied = finished.copy_to(tmp_path / "project")
    copied.forget_logs()
    return copied


@pytest.fixture(scope="session")
def grown(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    """The finished run after three more videos, which fill its shard; not to be changed."""
    project = finished.copy_to(tmp_path_factory.mktemp("grown") / "project")
    project.forget_logs()
    project.add_videos("0_first", "d", "sub/e", first_seed=10)
    return project, project.run()


@pytest.fixture
def new_project(tmp_path: Path) -> Callable[..., Project]:
    """Makes a project with the basic config, some keys replaced, and the named videos."""

    def make(*videos: str, name: str = "project", **config: object) -> Project:
        project = Project(tmp_path / name)
        project.configure(**config)
        project.add_videos(*videos)
        return project

    return make
