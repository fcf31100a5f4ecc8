"""What every phase shares: the validated config, the shard plan, and the inputs of `rule all`.

Required: `config`, as Snakemake loaded it.
Steps: validate -> find videos -> bring the shard plan up to date (main process only; job
processes read what it wrote, so that the plan never depends on what a node sees).
"""

import re
import sys
from dataclasses import asdict

sys.path.insert(0, f"{workflow.basedir}/scripts")

from snakemake.exceptions import WorkflowError

from reelstack import versions
from reelstack.errors import ReelstackError
from reelstack.workflow import prepare

# A --configfile stands alone: merging would add the demo's feature sets to the user's.
if not workflow.overwrite_configfiles:

    configfile: f"{workflow.basedir}/config/config.yaml"


try:
    CONFIG, SHARDS = prepare(config, plan=workflow.is_main_process)
except ReelstackError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    shard=r"s\d{6}",
    encoding="|".join(CONFIG.encodings) or "none",
    set="|".join(CONFIG.feature_sets),


def records_pattern(*families):
    """Wildcard pattern of the records whose checkpoints the rule of these families fetches."""
    records = [r for r, c in CONFIG.checkpoints.items() if c.hub in (families or (None,))]
    return "|".join(map(re.escape, records)) or "(?!)"


def all_outputs():
    """The outputs of every stage: with only the last as a target, a failed job whose input
    had changed would be forgotten ("Nothing to be done") and its stale result kept."""
    kept = reencoded_folders() if CONFIG.merged["keep_reencoded"] else []
    return [
        *expand("<results>/probe/{shard}.csv", shard=SHARDS),
        *reencode_tables(),
        *kept,
        *expand("<results>/weights/{record}.json", record=CONFIG.checkpoints),
        *all_parts(),
        "<results>/manifest.csv",
        "<results>/provenance.json",
    ]


def reencode_tables():
    pattern = "<results>/reencode/{encoding}/{shard}.csv"
    return expand(pattern, encoding=CONFIG.encodings, shard=SHARDS)


def reencoded_folders():
    pattern = "<results>/reencoded/{encoding}/{shard}"
    return expand(pattern, encoding=CONFIG.encodings, shard=SHARDS)


def reencoded_folder(path):
    """The folder as an output: kept, or deleted once all features are extracted from it."""
    folder = directory(path)
    return folder if CONFIG.merged["keep_reencoded"] else temp(folder)


def all_parts():
    """Every part, set by set, each set's in the order of SHARDS."""
    return expand("<results>/features/{set}/{shard}.npz", set=CONFIG.feature_sets, shard=SHARDS)


def set_of(wildcards):
    return CONFIG.feature_sets[wildcards.set]


def sets_pattern(family):
    """Wildcard pattern of a family's sets; one that matches nothing where there are none."""
    return "|".join(CONFIG.sets_of(family)) or "(?!)"


def extraction_inputs(wildcards):
    """What a set reads besides the probe table: checkpoints, re-encoded videos, another set."""
    feature_set, shard = set_of(wildcards), wildcards.shard
    inputs = {"weights": [f"<results>/weights/{r}.json" for r in feature_set.records.values()]}
    if encoding := feature_set.encoding:
        inputs["encoding"] = f"<results>/reencode/{encoding}/{shard}.csv"
        inputs["videos"] = f"<results>/reencoded/{encoding}/{shard}"
    if other := feature_set.settings.get("align"):
        inputs["aligned"] = f"<results>/features/{other}/{shard}.npz"
    return inputs
