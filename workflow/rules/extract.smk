"""Extraction: one job per (feature set, shard), one rule per model family.

Required: the shard's probe table, its re-encoded videos where the set reads them, the model's
weights record.
Output: <results>/features/<set>/<shard>.npz, one part with every video of the shard.
Steps: decode -> windows -> forward -> part. Videos with a valid result are not computed again.
"""


rule extract:
    """What all families share; each family below is a rule of its own."""
    input:
        unpack(media_inputs),
        table="<results>/probe/{shard}.csv",
        weights=lambda wildcards: f"<results>/weights/{set_of(wildcards).model}.json",
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("(abstract)"),
    conda:
        "../../envs/r21d.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        feature_set=lambda wildcards: set_of(wildcards).parameters(),
        strict=CONFIG.merged["strict"],
    script:
        "../../scripts/extract.py"


use rule extract as extract_r21d with:
    """R(2+1)D, R3D and MC3: 3D ResNets over windows of frames."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_r21d/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_r21d/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("r21d"),
    conda:
        "../../envs/r21d.yaml"


use rule extract as extract_resnet with:
    """ResNet-18 to -152, frame by frame."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_resnet/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_resnet/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("resnet"),
    conda:
        "../../envs/resnet.yaml"
