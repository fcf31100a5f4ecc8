"""What the Snakefile does while it is parsed: validate the config and plan the shards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reelstack.config import Config, load_config
from reelstack.files import CHECKOUT, write_text_if_changed
from reelstack.ingest.inputs import find_videos
from reelstack.ingest.shards import live_shards, request_store, update_plan


def _share_library() -> None:
    """Let jobs import the library of this checkout, whichever their environment has installed."""
    library = str(CHECKOUT / "scripts")
    others = [
        p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p not in ("", library)
    ]
    os.environ["PYTHONPATH"] = os.pathsep.join([library, *others])


def prepare(raw: Mapping[str, Any], *, plan: bool) -> tuple[Config, list[str]]:
    """The validated config and the live shards.

    Args:
        raw: the configuration as Snakemake merged it.
        plan: whether to look for videos and write the plan and the merged config (the main
            process), or to read the plan (job processes). What is written is idempotent.

    Raises:
        ReelstackError: if the config or an input is not valid; nothing has been written then.
    """
    _share_library()
    config = load_config(raw)
    if not plan:
        return config, live_shards(config.output)
    videos = find_videos(config.merged["videos"])
    shards = update_plan(videos, config.output, **config.merged["shard"])
    text = yaml.safe_dump(config.merged, sort_keys=True, allow_unicode=True)
    write_text_if_changed(Path(config.output, "config.yaml"), text)
    request_store(config.output)
    return config, shards
