"""Weights: every checkpoint in use, fetched once and verified.

Required: nothing, or the local checkpoints that the config names.
Output: <results>/weights/<model>.<component>.json, a record of file, hash and origin.
Steps: download with resume -> verify against resources/weights.yaml -> write the record.
"""


rule fetch_weights:
    """Fetch a checkpoint, or take the local one, and verify it."""
    input:
        local=lambda wildcards: CONFIG.checkpoints[wildcards.record].inputs(),
    output:
        record="<results>/weights/{record}.json",
    log:
        "<logs>/fetch_weights/{record}.log",
    wildcard_constraints:
        record=records_pattern(),
    localrule: True
    conda:
        "../../envs/weights.yaml"
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        catalogue=lambda wildcards: CONFIG.checkpoints[wildcards.record].published(),
        request=lambda wildcards: asdict(CONFIG.checkpoints[wildcards.record]),
    script:
        "../../scripts/fetch_weights.py"


use rule fetch_weights as fetch_timm_weights with:
    """Fetch a checkpoint of timm, which knows in which repository it is."""
    log:
        "<logs>/fetch_timm_weights/{record}.log",
    wildcard_constraints:
        record=records_pattern("timm"),
    conda:
        "../../envs/timm.yaml"


use rule fetch_weights as fetch_hf_weights with:
    """Fetch the folder of a model of transformers."""
    log:
        "<logs>/fetch_hf_weights/{record}.log",
    wildcard_constraints:
        record=records_pattern("hf"),
    conda:
        "../../envs/hf.yaml"
