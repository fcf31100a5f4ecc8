"""Every option of the config that changes the workflow's shape, on odd inputs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reelstack
import xarray
import yaml
import zarr
from harness import CHECKPOINT, MODEL, REPO, Project, jobs
from media_factory import cut, write_video
from reelstack.files import sha256_of
from reelstack.provenance import git_commit

FROM_SOURCE: dict[str, Any] = {"fps": {"method": "source"}, "features": {"one": {"model": MODEL}}}


def test_re_encoded_videos_can_be_temporary(new_project: Callable[..., Project]) -> None:
    project = new_project("a", keep_reencoded=False, features={"encoded": {"model": MODEL}})
    first = jobs(probe=1, reencode=1, fetch_weights=1, extract_r21d=1, aggregate=1)
    assert project.run().jobs == first
    assert not list(project.results.rglob("*.mp4"))
    assert project.row("a")["num_windows"] == 3
    assert project.plan().nothing_to_do

    before = project.stored()
    project.forget_logs()
    project.add_videos("b", first_seed=5)
    assert project.run().jobs == jobs(probe=1, reencode=1, extract_r21d=1, aggregate=1)
    assert not list(project.results.rglob("*.mp4"))
    assert project.computed() == {"encoded": {"b"}}
    assert project.stored().keys() == before.keys() | {("encoded", "b")}
    assert project.plan().nothing_to_do


def test_strict_turns_a_broken_video_into_a_failure(new_project: Callable[..., Project]) -> None:
    project = new_project("whole", strict=True, **FROM_SOURCE)
    whole = project.folder / "videos" / "whole.mp4"
    (whole.parent / "text.mp4").write_text("no video at all")
    front = write_video(
        whole.with_name("front.mp4"), num_frames=75, mux_options={"movflags": "faststart"}
    )
    cut(front, whole.with_name("cut.mp4"), 0.6)
    front.unlink()
    failed = project.attempt()
    assert failed.returncode != 0
    for text in ("strict: true and 2 broken", "cut: truncated: ", "text: unreadable: "):
        assert text in failed.output
    assert "set strict: false" in failed.output
    assert not (project.results / "manifest.csv").exists()

    project.configure(strict=False)
    project.run()
    statuses = project.manifest["status"].droplevel(1)
    assert statuses.to_dict() == {"cut": "truncated", "text": "unreadable", "whole": "ok"}
    assert project.row("text", "one")["error"]
    assert project.row("cut", "one")["num_windows"] > 0
    assert project.plan().nothing_to_do


ODD_NAMES = (
    "with space",
    "quote ' and \" quote",
    "ünïcödé 视频",
    "-leading dash",
    "new\nline",
    "{curly} <angle> %s $HOME",
    "same/stem",
    "other/stem",
    "two.dots.here",
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Odd names everywhere, a link, an odd output folder, and sets of every frame-rate method."""
    project = Project(tmp_path_factory.mktemp("odd") / "my data's folder")
    tiny = {"model": MODEL, "stack_size": 8, "step_size": 8}
    project.configure(
        output="out put/the results",
        shard={},
        features={
            "encoded": tiny | {"fps": 20},
            "sampled": tiny | {"fps": {"method": "sample", "target": 10}},
            "source": tiny | {"fps": {"method": "source"}, "tail": "pad"},
        },
    )
    project.results = project.folder / "out put" / "the results"
    project.add_videos(*ODD_NAMES, num_frames=20)
    raw = os.fsencode(project.folder / "videos") + b"/latin \xe9.mp4"
    source = project.folder / "videos" / "two.dots.here.mp4"
    os.symlink(source, project.folder / "videos" / "link.mp4")
    Path(os.fsdecode(raw)).write_bytes(source.read_bytes())
    project.run()
    return project


def test_odd_names_go_through_the_whole_workflow(odd: Project) -> None:
    ids = set(ODD_NAMES) | {"latin \\xe9", "link"}
    assert set(odd.manifest.index) == {
        (i, s) for i in ids for s in ("encoded", "sampled", "source")
    }
    assert set(odd.manifest["status"]) <= {"ok"}
    stored = odd.stored()
    assert {video_id for _, video_id in stored} == ids
    twins = [stored["source", i]["rgb"] for i in ("two.dots.here", "link", "latin \\xe9")]
    assert all(np.array_equal(twin, twins[0]) for twin in twins)
    assert not np.array_equal(stored["source", "same/stem"]["rgb"], twins[0])
    names = {p.name for p in odd.results.glob("reencoded/fps20/s*/**/*.mp4")}
    assert {"new\nline.mp4", "-leading dash.mp4", "ünïcödé 视频.mp4"} <= names
    assert not (odd.folder / "results").exists()
    assert odd.plan().nothing_to_do


def test_only_the_set_that_needs_it_re_encodes(odd: Project) -> None:
    assert {p.name for p in (odd.results / "reencode").iterdir()} == {"fps20"}
    row = {name: odd.row("with space", name) for name in ("encoded", "sampled", "source")}
    assert [row[n]["frames_used"] for n in row] == [20, 10, 20]
    assert [row[n]["num_windows"] for n in row] == [2, 1, 3]
    assert {r["fps_used"] for r in row.values()} == {20.0, 10.0}


def test_a_padded_tail_says_how_many_frames_are_real(odd: Project) -> None:
    stored = odd.stored()["source", "with space"]
    assert stored["valid_frames"].tolist() == [8, 8, 4]
    np.testing.assert_allclose(stored["time_start"], [0, 0.4, 0.8])
    np.testing.assert_allclose(stored["time_end"], [0.4, 0.8, 1.0])
    dropped = odd.stored()["encoded", "with space"]
    assert dropped["valid_frames"].tolist() == [8, 8]


def test_nothing_is_re_encoded_where_nothing_reads_it(new_project: Callable[..., Project]) -> None:
    project = new_project("a", **FROM_SOURCE)
    expected = jobs(probe=1, fetch_weights=1, extract_r21d=1, aggregate=1)
    assert project.plan().jobs == expected
    project.configure(fps={"method": "sample"})
    assert project.plan().jobs == expected


def test_two_datasets_of_one_checkout_run_at_once(
    new_project: Callable[..., Project], finished: Project
) -> None:
    projects = [new_project("a", name=name, **FROM_SOURCE) for name in ("one", "two")]
    projects[1].add_videos("a", first_seed=8)
    processes = [project.start() for project in projects]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    one, two = (project.stored()["one", "a"]["rgb"] for project in projects)
    assert one.shape == two.shape
    assert not np.array_equal(one, two)
    assert finished.plan().nothing_to_do


def test_the_merged_config_lies_beside_the_results(finished: Project) -> None:
    merged = yaml.safe_load((finished.results / "config.yaml").read_text())
    assert merged["fps"]["encoder"].keys() == {"codec", "preset", "crf", "pix_fmt"}
    assert merged["shard"]["max_videos"] == 6
    assert (merged["tail"], merged["precision"], merged["strict"]) == ("drop", "fp32", False)
    root = zarr.open_group(finished.results / "store.zarr", mode="r")
    assert root.attrs["config"] == merged


def test_the_provenance_names_everything(finished: Project) -> None:
    provenance = finished.provenance
    assert provenance["reelstack"] == reelstack.__version__
    assert provenance["git_commit"].split("+")[0] == git_commit().split("+")[0]
    assert {"snakemake", "zarr", "numpy", "pandas"} <= provenance["versions"].keys()
    assert len(provenance["ffmpeg"]) == 1
    assert provenance["encoder"]["codec"] == "libx264"
    assert provenance["python"]
    root = zarr.open_group(finished.results / "store.zarr", mode="r")
    assert root.attrs["provenance"] == provenance
    for name, origin in provenance["feature_sets"].items():
        assert origin["weights"] == {"rgb": sha256_of(CHECKPOINT)}
        assert origin["set"]["precision"] == "fp32"
        (computed,) = origin["origins"].values()
        assert computed["device"] == "cpu"
        assert {"torch", "torchvision", "av", "numpy"} <= computed["versions"].keys()
        assert root[name].attrs["provenance"] == origin
        assert root[name].attrs["model"] == MODEL
        labels = (REPO / "resources/demo/labels.txt").read_text().split()
        assert root[name].attrs["labels"] == labels


def test_the_manifest_says_where_each_video_is(finished: Project) -> None:
    for (video_id, name), row in finished.manifest.iterrows():
        path = finished.folder / row["path"]
        assert path == finished.folder / "videos" / f"{video_id}.mp4"
        assert row["sha256"] == sha256_of(path)
        assert row["size_bytes"] == path.stat().st_size
        assert (row["width"], row["height"], row["fps"], row["codec"]) == (64, 48, 20, "h264")
        assert (row["frames_declared"], row["frames_decoded"]) == (40, 40)
        assert row["weights_sha256"] == sha256_of(CHECKPOINT)
        assert row["feature_dim"] == 64
        dataset = xarray.open_zarr(
            finished.results / "store.zarr", group=str(name), consolidated=False
        )
        rows = slice(row["row_start"], row["row_start"] + row["row_size"])
        index = set(dataset["video_index"].values[rows].tolist())
        assert [str(dataset["video_id"].values[i]) for i in index] == [video_id]
