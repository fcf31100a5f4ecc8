"""A set of sound whose rows are the windows of a set of frames: shard jobs one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_factory import add_audio, audio_only, write_video
from reelstack.config import FeatureSet, load_config
from reelstack.extract import shard
from reelstack.extract.parts import Part
from reelstack.extract.shard import extract_shard
from reelstack.extract.video import extractor_of
from reelstack.files import csv_text
from reelstack.ingest.probe import PROBE_COLUMNS, probe_video
from reelstack.models.base import Extractor, Inputs
from reelstack.models.weights import Request, ensure_checkpoint, write_record
from torch import Tensor
from typing_extensions import override

TINY = "r2plus1d_tiny_motion"
NAMES = ("heard", "long", "mute", "text", "short", "sound")


class Loudness(Extractor):
    """Stands for VGGish: the root mean square of an example, 128 times."""

    @override
    def load_networks(self, weights: Mapping[str, Path]) -> None:
        assert weights.keys() == {"audio"}

    @override
    def preprocess(self, frames: Any, before: Any = None) -> Inputs:
        return {"audio": torch.from_numpy(frames).square().mean(1).sqrt()[:, None]}

    @override
    def forward(self, windows: Inputs) -> dict[str, Tensor]:
        return {"audio": windows["audio"].expand(-1, 128)}


def sets(**frames: Any) -> dict[str, FeatureSet]:
    raw = {
        "videos": ["in"],
        "fps": {"method": "source"},
        "features": {
            "frames": {"model": TINY, "stack_size": 8, "step_size": 8, **frames},
            "sound": {"model": "vggish", "align": "frames"},
        },
    }
    return load_config(raw).feature_sets


class Jobs:
    """The two jobs of a shard, and the videos whose sound was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads: list[str] = []
        picture = write_video(Path("in/mute.mp4"), num_frames=50)
        add_audio(picture, Path("in/heard.mp4"), seconds=2)
        add_audio(write_video(Path("p.mp4"), num_frames=100), Path("in/long.mp4"), seconds=1)
        add_audio(write_video(Path("p.mp4"), num_frames=5), Path("in/short.mp4"), seconds=2)
        audio_only(Path("in/sound.m4a"))
        Path("in/text.mp4").write_text("no video")
        Path("w.pt").write_bytes(b"weights")
        for request in (Request(TINY, "rgb"), Request("vggish", "audio", local="w.pt")):
            path = f"{request.component}.json"
            write_record(path, request, ensure_checkpoint(request))

        def create(feature_set: FeatureSet) -> Extractor:
            self.loads.append(feature_set.model)
            if feature_set.entry.reads == "frames":
                return extractor_of(feature_set)
            return Loudness(feature_set.entry, feature_set.streams, feature_set.settings)

        monkeypatch.setattr(shard, "extractor_of", create)

    def run(self, **frames: Any) -> dict[str, Part]:
        table = []
        for name in NAMES:
            (path,) = Path("in").glob(f"{name}.*")
            facts = {"video_id": name, "path": str(path), "status": "ok", "error": ""}
            table.append(facts | probe_video(path))
        Path("probe.csv").write_text(csv_text(table, PROBE_COLUMNS))
        self.loads.clear()
        parts = {}
        for name, feature_set in sets(**frames).items():
            path = f"out/features/{name}/s0.npz"
            extract_shard(
                name=feature_set.name,
                parameters=feature_set.parameters(),
                probe_table="probe.csv",
                reencode_table=None,
                videos=None,
                weights_records=[f"{feature_set.streams[0]}.json"],
                aligned=str(parts["frames"].path) if name == "sound" else None,
                part=path,
                gpus=0,
                threads=1,
                strict=False,
            )
            parts[name] = Part(path)
        return parts


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return Jobs(monkeypatch)


def by_id(part: Part) -> dict[str, dict[str, Any]]:
    return {row["video_id"]: row for row in part.rows}


def test_rows_are_the_windows_of_the_other_set(job: Jobs) -> None:
    parts = job.run()
    frames, sound = (by_id(part) for part in parts.values())
    for name in ("heard", "long"):
        assert sound[name]["status"] == "ok"
        keys = frames[name]["key"], sound[name]["key"]
        for array in ("time_start", "time_end"):
            expected, found = (
                part.array(key, array) for part, key in zip(parts.values(), keys, strict=True)
            )
            assert np.array_equal(found, expected)
    loud = parts["sound"].array(sound["long"]["key"], "audio")
    assert loud.shape == (100 // 8, 128)
    assert loud[:2].min() > 0.01, "a tone of one second"
    assert np.abs(loud[-3:]).max() < 1e-3, "then silence"


def test_what_has_no_windows_or_no_sound_says_why(job: Jobs) -> None:
    sound = by_id(job.run()["sound"])
    assert sound["mute"]["status"] == "no_audio"
    assert sound["text"]["status"] == "unreadable"
    assert sound["short"]["status"] == "too_short"
    assert sound["short"]["error"].startswith("frames: 5 frames do not fill one window of 8")
    assert sound["sound"]["status"] == "no_video"
    assert sound["sound"]["error"].startswith("frames: ")
    assert not any(row.get("num_windows") for row in map(sound.get, NAMES[2:]) if row)


def test_rows_follow_the_windows_of_the_other_set(job: Jobs) -> None:
    job.run()
    assert job.loads == [TINY, "vggish"]
    job.run()
    assert job.loads == []
    parts = job.run(step_size=4)
    assert job.loads == [TINY, "vggish"]
    frames, sound = (by_id(part) for part in parts.values())
    assert sound["heard"]["num_windows"] == frames["heard"]["num_windows"] == 11
