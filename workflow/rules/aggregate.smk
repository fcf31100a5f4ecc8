"""Aggregation: one store and one manifest of everything.

Required: every shard's probe table and part, and the re-encoding tables.
Output: <results>/manifest.csv and provenance.json, and beside them <results>/store.zarr, which
is no declared output because it is appended to.
Steps: append new rows to the store (rebuild a set whose rows changed) -> write the manifest.
"""


rule aggregate:
    """Append new parts to the Zarr store and write the manifest."""
    input:
        config="<results>/config.yaml",
        stamp="<results>/plan/store.stamp",
        probes=expand("<results>/probe/{shard}.csv", shard=SHARDS),
        reencodes=reencode_tables(),
        parts=all_parts(),
    output:
        manifest="<results>/manifest.csv",
        provenance="<results>/provenance.json",
    log:
        "<logs>/aggregate.log",
    benchmark:
        "<benchmarks>/aggregate.tsv"
    conda:
        "../../envs/store.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sets=list(CONFIG.feature_sets),
    script:
        "../../scripts/aggregate.py"
