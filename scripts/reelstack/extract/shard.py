"""The job of one (feature set, shard): every video that has no valid result yet, into one part."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from reelstack.config import FeatureSet
from reelstack.errors import UNUSABLE_STATUSES, DeviceError, StoreError, VideoError
from reelstack.extract.devices import device_slot
from reelstack.extract.parts import Part, RowWriter, VideoFolder, write_part
from reelstack.extract.rows import Source, Times, VideoRows
from reelstack.extract.video import extractor_of, video_rows
from reelstack.files import digest, link_or_copy, locked, read_csv, state_folder
from reelstack.ingest.journal import Journal, Row, finish_rows, require_unbroken
from reelstack.models.base import Extractor
from reelstack.models.weights import Checkpoint, read_records
from reelstack.provenance import library_versions

log = logging.getLogger(__name__)


class ShardExtraction:
    """Extracts one feature set from one shard.

    Args:
        feature_set: the set, defaults filled in.
        state: the shard's private folder; what is finished is kept there until it is packed.
        checkpoints: component → verified checkpoint.
        gpus: the job's `gpu` resource, 0 for the CPU.
        threads: for decoding and, on the CPU, for the network.
        aligned: the part of the set that this one is aligned with.
        pictures: folder for the frames that the network reads, if the set keeps them.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        *,
        state: Path,
        checkpoints: Mapping[str, Checkpoint],
        gpus: int,
        threads: int,
        aligned: Part | None = None,
        pictures: Path | None = None,
    ) -> None:
        self._set = feature_set
        self._state = state
        self._checkpoints = checkpoints
        self._gpus = gpus
        self._threads = threads
        self._resources = ExitStack()
        self._aligned = {r["video_id"]: (aligned, r) for r in aligned.rows} if aligned else {}
        self._pictures = pictures if feature_set.settings.get("keep_frames") else None
        self._labels: list[str] = []
        hashes = {component: c.sha256 for component, c in checkpoints.items()}
        self._parameters = {"set": feature_set.parameters(), "weights": hashes}

    def run(self, rows: list[Row], part: Path, *, strict: bool) -> None:
        """Bring `part` up to date; only videos without a valid result are computed."""
        kept = self._state / "part.npz"
        with locked(self._state / "lock"), self._resources:
            previous = Part(kept) if kept.exists() else None
            self._labels = previous.provenance["labels"] if previous else []
            done = finish_rows(
                rows,
                journal=Journal(self._state / "rows.jsonl"),
                key=self._key,
                work=self._extract,
                reusable=lambda row: self._has_payload(row, previous),
            )
            require_unbroken(done, strict=strict)
            folders = {r["key"]: p for r in done if (p := self._state / r["key"]).is_dir()}
            provenance = self._parameters | {"labels": self._labels, "origins": _origins(done)}
            write_part(kept, done, folders=folders, previous=previous, provenance=provenance)
            link_or_copy(kept, part)
            for folder in self._state.glob("*/"):
                shutil.rmtree(folder)

    def _key(self, row: Row) -> str:
        """What the result depends on: the content, how it is read, and the parameters."""
        media = {k: row[k] for k in ("video_id", "sha256", "media_key", "media_status")}
        if row["video_id"] in self._aligned:
            media["aligned"] = self._aligned[row["video_id"]][1]["key"]
        return digest(self._parameters | media)

    def _has_payload(self, row: Row, previous: Part | None) -> bool:
        if not row.get("num_windows") or (self._state / row["key"]).is_dir():
            return True
        return previous is not None and row["key"] in previous

    @functools.cached_property
    def _extractor(self) -> Extractor:
        """Loaded for the first video that needs it: a shard without work never loads a model."""
        device = self._resources.enter_context(device_slot(self._gpus))
        torch.set_num_threads(self._threads)
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                "a GPU is free, but this environment's torch cannot use it: install a torch build "
                "for its driver, or run on the CPU with --resources gpu=0"
            )
        extractor = extractor_of(self._set)
        files = {component: c.path for component, c in self._checkpoints.items()}
        extractor.load(files, device=device, precision=self._set.precision)
        log.info("%s loaded on %s", self._set.model, device)
        self._labels = list(extractor.class_names)
        return extractor

    def _extract(self, row: Row) -> Row:
        if row["media_status"] in UNUSABLE_STATUSES and not self._hears(row):
            raise VideoError(row["media_status"], row["media_error"])
        reencoded = self._set.fps_method == "reencode"
        if reencoded and not Path(row["media_path"]).is_file():
            raise StoreError(
                f"{row['media_path']} is missing although it was re-encoded: run snakemake with "
                "--forcerun reencode"
            )
        source = Source(
            Path(row["media_path"]),
            own_clock=reencoded,
            threads=self._threads,
            windows=self._windows(row),
            pictures=self._folder_of_pictures(row),
        )
        run = video_rows(source, self._set, self._extractor)
        with VideoFolder(self._state, self._key(row)) as writer:
            for rows in run.rows():
                writer.append(rows)
        result = self._result(row, run, writer)
        log.info("%s: %d windows, %s", row["video_id"], result["num_windows"], result["status"])
        return result

    def _folder_of_pictures(self, row: Row) -> Path | None:
        """Without those of the content that the video had before; other ids may lie below."""
        if self._pictures is None:
            return None
        folder = self._pictures / str(row["video_id"])
        for picture in folder.glob("*.jpg"):
            picture.unlink()
        return folder

    def _hears(self, row: Row) -> bool:
        """A file without pictures can have sound."""
        return self._set.entry.reads == "audio" and row["media_status"] == "no_video"

    def _windows(self, row: Row) -> Times | None:
        """Those of the set that this one is aligned with."""
        if row["video_id"] not in self._aligned:
            return None
        part, other = self._aligned[row["video_id"]]
        if not other.get("num_windows"):
            raise VideoError(other["status"], f"{self._set.settings['align']}: {other['error']}")
        return part.array(other["key"], "time_start"), part.array(other["key"], "time_end")

    def _result(self, row: Row, run: VideoRows, writer: RowWriter) -> Row:
        status, error = run.status, run.error
        if row["media_error"] and not self._hears(row):
            status, error = "truncated", row["media_error"]
        return run.facts | {
            "status": status,
            "error": error,
            "num_windows": writer.num_rows,
            "arrays": writer.layout(),
            "frames_decoded": row["frames_decoded"] or run.facts.get("frames_decoded"),
            "origin": digest(self._origin),
            "computed_by": self._origin,
        }

    @functools.cached_property
    def _origin(self) -> dict[str, Any]:
        """What computes the rows of this run."""
        versions = library_versions("torch", "torchvision", "av", "numpy", "pillow")
        return {"device": _device_name(self._extractor.device), "versions": versions}


def _origins(rows: list[Row]) -> dict[str, Any]:
    """By the rows' `origin`, what computed them; the journal keeps it over a killed run."""
    return {row["origin"]: row["computed_by"] for row in rows if "origin" in row}


def shard_rows(
    probe_table: Path | str, reencode_table: Path | str | None, videos: Path | str | None
) -> list[Row]:
    """The shard's videos with the file to read and what earlier stages found out about it.

    Args:
        probe_table: the shard's probe table.
        reencode_table, videos: table and folder of the re-encoding, None to read the sources.

    Returns:
        Rows with `video_id`, `sha256`, `media_path`, `media_key`, `media_status`,
        `media_error` and `frames_decoded` (of the source, 0 if not decoded yet).
    """
    probed = read_csv(probe_table)
    reencoded = {r["video_id"]: r for r in read_csv(reencode_table)} if reencode_table else {}
    rows: list[Row] = []
    for facts in probed:
        media = reencoded.get(facts["video_id"], facts)
        file = Path(str(videos), media["file"]) if reencoded else facts["path"]
        rows.append(
            {
                "video_id": facts["video_id"],
                "sha256": facts["sha256"],
                "media_path": str(file),
                "media_key": media.get("key", "source"),
                "media_status": media["status"],
                "media_error": media["error"],
                "frames_decoded": int(media.get("frames_in") or 0),
            }
        )
    return rows


def extract_shard(
    *,
    name: str,
    parameters: Mapping[str, Any],
    probe_table: str,
    reencode_table: str | None,
    videos: str | None,
    weights_records: Sequence[str],
    aligned: str | None,
    part: str,
    gpus: int,
    threads: int,
    strict: bool,
) -> None:
    """The whole job; paths as the rule names them, `parameters` as the set's `parameters()`."""
    feature_set = FeatureSet.from_parameters(name, parameters)
    extraction = ShardExtraction(
        feature_set,
        state=state_folder(part),
        checkpoints=read_records(weights_records),
        gpus=gpus,
        threads=threads,
        aligned=Part(aligned) if aligned else None,
        pictures=Path(part).parents[2] / "frames" / feature_set.name,
    )
    rows = shard_rows(probe_table, reencode_table, videos)
    extraction.run(rows, Path(part), strict=strict)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return str(device.type)
