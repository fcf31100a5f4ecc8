"""Ingest: the facts of every video of a shard.

Required: <results>/plan/<shard>.csv, written by the main process while this file is parsed.
Output: <results>/probe/<shard>.csv with hash, container facts and status of every video.
Steps: hash -> read container and packets with PyAV. Known fingerprints are not read again.
"""


rule probe:
    """Hash a shard's videos and read their container facts."""
    input:
        plan="<results>/plan/{shard}.csv",
    output:
        table="<results>/probe/{shard}.csv",
    log:
        "<logs>/probe/{shard}.log",
    conda:
        "../../envs/media.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        version=versions.PROBE,
        strict=CONFIG.merged["strict"],
    script:
        "../../scripts/probe.py"
