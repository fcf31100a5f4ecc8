"""Re-encoding: every video of a shard at a constant frame rate.

Required: <results>/probe/<shard>.csv.
Output: <results>/reencoded/<encoding>/<shard>/ and a table of what was done to each video.
Steps: ffmpeg, one encoder thread per video, as many videos at a time as the job has threads.
"""


rule reencode:
    """Re-encode a shard's videos with ffmpeg."""
    input:
        table="<results>/probe/{shard}.csv",
    output:
        table="<results>/reencode/{encoding}/{shard}.csv",
        videos=reencoded_folder("<results>/reencoded/{encoding}/{shard}"),
    log:
        "<logs>/reencode/{encoding}/{shard}.log",
    benchmark:
        "<benchmarks>/reencode/{encoding}/{shard}.tsv"
    conda:
        "../../envs/media.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        version=versions.REENCODE,
        fps=lambda wildcards: CONFIG.encodings[wildcards.encoding],
        encoder=CONFIG.merged["fps"]["encoder"],
        keep=CONFIG.merged["keep_reencoded"],
        strict=CONFIG.merged["strict"],
    script:
        "../../scripts/reencode.py"
