"""The aggregating job: parts and tables in, store, manifest and provenance out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
import zarr

from reelstack.config import Config, load_config
from reelstack.extract.parts import Part
from reelstack.files import locked, read_csv, state_folder, write_text
from reelstack.provenance import run_provenance
from reelstack.store.manifest import manifest_rows, write_manifest
from reelstack.store.set_layout import Rows, set_layout
from reelstack.store.writer import update_store


def aggregate(
    *,
    config: str,
    sets: Sequence[str],
    probes: Sequence[str],
    reencodes: Sequence[str],
    parts: Sequence[str],
    manifest: str,
    provenance: str,
) -> None:
    """Bring the store up to date and write the manifest.

    Args:
        config: the merged configuration that the main process wrote.
        probes: probe tables, one per shard.
        parts: every set's parts, set by set in the order of `sets`.
        manifest, provenance: what to write; the store is `store.zarr` beside them.
    """
    settings = load_config(yaml.safe_load(Path(config).read_text()))
    store = Path(manifest).with_name("store.zarr")
    tables = {Path(path).stem: read_csv(path) for path in probes}
    slices = zip(sets, batched(parts, len(tables)), strict=True)
    opened = {name: [Part(path) for path in of_set] for name, of_set in slices}
    origins = _origins(settings, opened, reencodes)
    rows = {name: _set_rows(of_set) for name, of_set in opened.items()}
    layouts = {name: set_layout(settings.feature_sets[name], rows[name]) for name in sets}
    with locked(state_folder(manifest) / "lock"):
        update_store(store, rows, _attributes(settings, layouts, origins))
    table: list[dict[str, Any]] = []
    for name, of_set in rows.items():
        table += manifest_rows(
            settings.feature_sets[name],
            tables,
            results={video_id: row for video_id, (_, row) in of_set.items()},
            feature_dim=layouts[name]["feature_dim"],
            row_starts=_row_starts(store, name),
            weights=origins["feature_sets"][name]["weights"],
        )
    write_text(provenance, json.dumps(origins, indent=1, sort_keys=True) + "\n")
    write_manifest(manifest, table)


def batched(values: Sequence[str], size: int) -> list[Sequence[str]]:
    """Consecutive slices of `size`."""
    return [values[i : i + size] for i in range(0, len(values), size)]


def _set_rows(parts: Sequence[Part]) -> Rows:
    return {row["video_id"]: (part, row) for part in parts for row in part.rows}


def _origins(
    settings: Config, parts: Mapping[str, Sequence[Part]], reencodes: Sequence[str]
) -> dict[str, Any]:
    """Where everything in the store came from, each distinct origin once."""
    ffmpeg = {r["ffmpeg_version"] for path in reencodes for r in read_csv(path)} - {""}
    feature_sets = {}
    for name, of_set in parts.items():
        computed = [origins for part in of_set for origins in part.provenance["origins"].items()]
        labels: list[str] = max((p.provenance["labels"] for p in of_set), key=len)
        first = of_set[0].provenance
        feature_sets[name] = first | {"labels": labels, "origins": dict(computed)}
    return run_provenance() | {
        "ffmpeg": sorted(ffmpeg),
        "encoder": settings.merged["fps"]["encoder"],
        "feature_sets": feature_sets,
    }


def _attributes(
    settings: Config, layouts: Mapping[str, Any], origins: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Attributes of the root (under "") and of every set's group."""
    root = {"title": "Reelstack features", "config": settings.merged, "provenance": origins}
    return {"": root} | {
        name: layouts[name]
        | {
            "model": feature_set.model,
            "family": feature_set.entry.family,
            "labels": origins["feature_sets"][name]["labels"],
            "parameters": feature_set.parameters(),
            "provenance": origins["feature_sets"][name],
        }
        for name, feature_set in settings.feature_sets.items()
    }


def _row_starts(store: Path, name: str) -> dict[str, int]:
    group: Any = zarr.open_group(store, mode="r")[name]
    ids, starts = group["video_id"], group["row_start"]
    return dict(zip(map(str, ids[:]), map(int, starts[:]), strict=True))
