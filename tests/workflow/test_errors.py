"""Wrong configs, through snakemake: a clear message, no traceback, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import MODEL, Project

WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"fps": {"traget": 5}}, ["fps.traget: unknown key", "allowed: target", "'target'?"]),
    ({"feature": {}}, ["feature: unknown key", "Did you mean 'features'?"]),
    (
        {"features": {"x": {"model": "r2plus1d_tiny_moton"}}},
        ["features.x.model is 'r2plus1d_tiny_moton'", "resnet50", f"Did you mean '{MODEL}'?"],
    ),
    ({"shard": {"max_videos": 0}}, ["shard.max_videos is 0", "whole number of 1 or more"]),
    ({"videos": ["vidoes"]}, ["videos: 'vidoes' is neither", "Did you mean 'videos'?"]),
    ({"videos": ["videos/*.webm"]}, ["videos: 'videos/*.webm' matches no video"]),
    ({"weights": {MODEL: "nowhere.pth"}}, [f"weights.{MODEL}.rgb is 'nowhere.pth'", "no file"]),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=lambda x: str(x)[:40])
def test_a_wrong_config_is_refused_before_anything_is_written(
    new_project: Callable[..., Project], changes: dict[str, Any], said: list[str]
) -> None:
    project = new_project("a", **changes)
    outcome = project.attempt()
    assert outcome.returncode != 0
    for text in said:
        assert text in outcome.output
    assert "Traceback" not in outcome.output
    assert not outcome.jobs
    assert not project.results.exists()


def test_a_wrong_config_leaves_finished_results_alone(project: Project) -> None:
    before = project.file_facts()
    project.configure(tail="padd")
    assert "tail is 'padd'; allowed: drop, pad" in project.attempt().output
    assert project.file_facts() == before
