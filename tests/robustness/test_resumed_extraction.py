"""The extraction job of a shard: killed, repeated, changed; only what is missing is computed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_factory import write_video
from reelstack.config import FeatureSet
from reelstack.errors import ReelstackError, StoreError, WeightsError
from reelstack.extract import frame_rows, shard
from reelstack.extract.parts import Part
from reelstack.extract.shard import extract_shard
from reelstack.files import csv_text
from reelstack.ingest.probe import PROBE_COLUMNS, probe_video
from reelstack.models.registry import MODELS
from reelstack.models.weights import Request, ensure_checkpoint, write_record

TINY = "r2plus1d_tiny_motion"
SET = FeatureSet(
    name="motion",
    model=TINY,
    streams=("rgb",),
    stack_size=8,
    step_size=8,
    frame_interval=1,
    tail="drop",
    precision="fp32",
    top_k=2,
    fps=None,
    fps_method="source",
    settings=dict(MODELS[TINY].settings),
)
PART = Path("out/features/motion/s0.npz")


def record(request: Request) -> None:
    write_record("weights.json", request, ensure_checkpoint(request))


class Job:
    """One shard of four videos in the working directory, and which of them were decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded: list[str] = []
        self.loads = 0
        for number, name in enumerate("abc"):
            write_video(Path(f"in/{name}.mp4"), num_frames=20 + number, seed=number)
        Path("in/broken.mp4").write_bytes(b"no video")
        self.names = ["a", "b", "broken", "c"]
        record(Request(TINY, "rgb"))
        reader, create = frame_rows.VideoReader, shard.extractor_of

        def count_reads(path: str, **options: Any) -> Any:
            self.decoded.append(Path(path).stem)
            return reader(path, **options)

        def count_loads(feature_set: FeatureSet) -> Any:
            self.loads += 1
            return create(feature_set)

        monkeypatch.setattr(frame_rows, "VideoReader", count_reads)
        monkeypatch.setattr(shard, "extractor_of", count_loads)

    def run(self, feature_set: FeatureSet = SET, *, strict: bool = False) -> Part:
        rows = []
        for name in self.names:
            path = f"in/{name}.mp4"
            facts = {"video_id": name, "path": path, "status": "ok", "error": ""}
            rows.append(facts | probe_video(path))
        Path("probe.csv").write_text(csv_text(rows, PROBE_COLUMNS))
        self.decoded.clear()
        self.loads = 0
        extract_shard(
            name=feature_set.name,
            parameters=feature_set.parameters(),
            probe_table="probe.csv",
            reencode_table=None,
            videos=None,
            weights_records=["weights.json"],
            aligned=None,
            part=str(PART),
            gpus=0,
            threads=1,
            strict=strict,
        )
        return Part(PART)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # undone afterwards; the job sets it too
    return Job(monkeypatch)


def rgb(part: Part, video_id: str) -> np.ndarray:
    (key,) = [row["key"] for row in part.rows if row["video_id"] == video_id]
    return np.concatenate([v for name, v in part.blocks(key) if name == "rgb"])


def test_a_row_per_video_with_what_was_found(job: Job) -> None:
    part = job.run()
    rows = {row["video_id"]: row for row in part.rows}
    assert [row["video_id"] for row in part.rows] == job.names
    assert rows["a"]["num_windows"] == 2
    assert (rows["a"]["frames_decoded"], rows["a"]["frames_used"]) == (20, 20)
    assert (rows["a"]["height"], rows["a"]["width"], rows["a"]["fps"]) == (48, 64, 25.0)
    assert rows["broken"]["status"] == "unreadable"
    assert rows["broken"]["error"].startswith("cannot be opened")
    assert sorted(job.decoded) == ["a", "b", "c"]
    assert job.loads == 1
    assert not any(path.is_dir() for path in Path("out/features/motion/.state/s0").iterdir())


def test_the_same_again_loads_no_model_and_gives_the_same_bytes(job: Job) -> None:
    job.run()
    content = PART.read_bytes()
    PART.unlink()  # as Snakemake does
    job.run()
    assert PART.read_bytes() == content
    assert (job.decoded, job.loads) == ([], 0)


def test_a_killed_job_goes_on_where_it_was(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = frame_rows.extract_windows
    started: list[int] = []

    def killed_in_the_third(*arguments: Any, **options: Any) -> Any:
        started.append(1)
        for number, rows in enumerate(extract(*arguments, **options)):
            if len(started) == 3 and number == 0:
                raise KeyboardInterrupt
            yield rows

    monkeypatch.setattr(frame_rows, "extract_windows", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert not PART.exists()
    monkeypatch.setattr(frame_rows, "extract_windows", extract)
    resumed = job.run()
    assert job.decoded == ["c"]
    shutil.rmtree("out")
    direct = job.run()
    for name in "abc":
        assert np.array_equal(rgb(resumed, name), rgb(direct, name))


def test_a_replaced_video_is_computed_alone(job: Job) -> None:
    before = job.run()
    kept = rgb(before, "a")
    write_video(Path("in/b.mp4"), num_frames=40, seed=9)
    after = job.run()
    assert job.decoded == ["b"]
    assert len(rgb(after, "b")) == 5
    assert np.array_equal(rgb(after, "a"), kept)


def test_a_touched_or_renamed_file_with_the_same_content_is_not(job: Job) -> None:
    job.run()
    Path("in/b.mp4").touch()
    job.run()
    assert job.decoded == []


def test_new_and_removed_videos(job: Job) -> None:
    job.run()
    write_video(Path("in/d.mp4"), num_frames=8, seed=5)
    job.names = ["a", "c", "d"]
    part = job.run()
    assert job.decoded == ["d"]
    assert [row["video_id"] for row in part.rows] == ["a", "c", "d"]
    with np.load(PART) as archive:
        assert {name.split("/")[0] for name in archive.files} == {"0", "1", "2", "index.json"}


def test_a_changed_parameter_computes_all(job: Job) -> None:
    job.run()
    job.run(replace(SET, step_size=4))
    assert sorted(job.decoded) == ["a", "b", "c"]


def pictures(video_id: str) -> list[str]:
    return sorted(file.name for file in Path("out/frames/motion", video_id).glob("*.jpg"))


def test_pictures_are_those_of_the_present_content(job: Job) -> None:
    """Also those that a killed run has left, and never those of another video."""
    kept = replace(SET, settings=SET.settings | {"keep_frames": True})
    Path("in/a").mkdir()
    write_video(Path("in/a/nested.mp4"), num_frames=9)
    job.names.append("a/nested")
    job.run(kept)
    lengths = {"a": 20, "b": 21, "c": 22, "a/nested": 9, "broken": 0}
    assert {name: len(pictures(name)) for name in lengths} == lengths
    write_video(Path("in/a.mp4"), num_frames=12, seed=9)
    job.run(kept)
    assert pictures("a") == [f"{number:06d}.jpg" for number in range(12)]
    assert {name: len(pictures(name)) for name in lengths} == lengths | {"a": 12}
    job.run(replace(SET, step_size=4))
    assert len(pictures("a")) == 12, "a set that keeps none has written some"


def test_a_lost_memory_costs_time_and_nothing_else(job: Job) -> None:
    job.run()
    content = PART.read_bytes()
    shutil.rmtree("out/features/motion/.state")
    job.run()
    assert PART.read_bytes() == content


def test_strict_keeps_what_is_computed(job: Job) -> None:
    with pytest.raises(ReelstackError, match="broken: unreadable"):
        job.run(strict=True)
    assert not PART.exists()
    job.names.remove("broken")
    job.run(strict=True)
    assert job.decoded == []


def test_a_checkpoint_that_went(job: Job) -> None:
    shutil.copy(ensure_checkpoint(Request(TINY, "rgb")).path, "own.safetensors")
    record(Request(TINY, "rgb", local="own.safetensors"))
    Path("own.safetensors").unlink()
    with pytest.raises(WeightsError, match="has gone since"):
        job.run()


def test_a_missing_re_encoded_video_is_no_broken_video(job: Job) -> None:
    del job
    rows = [{"video_id": "a", "path": "in/a.mp4", "status": "ok"} | probe_video("in/a.mp4")]
    Path("probe.csv").write_text(csv_text(rows, PROBE_COLUMNS))
    table = [{"video_id": "a", "status": "ok", "error": "", "file": "a.mp4", "key": "k"}]
    Path("re.csv").write_text(csv_text(table, list(table[0])))
    reencoded = replace(SET, fps=25.0, fps_method="reencode")
    with pytest.raises(StoreError, match="is missing although it was re-encoded"):
        extract_shard(
            name=reencoded.name,
            parameters=reencoded.parameters(),
            probe_table="probe.csv",
            reencode_table="re.csv",
            videos="nowhere",
            weights_records=["weights.json"],
            aligned=None,
            part=str(PART),
            gpus=0,
            threads=1,
            strict=False,
        )
