"""Weights: the checkpoint of every model in use, fetched once and verified.

Required: nothing, or the local checkpoints that the config names.
Output: <results>/weights/<model>.json, a record of file, hash and origin per component.
Steps: download with resume -> verify against resources/weights.yaml -> write the record.
"""


rule fetch_weights:
    """Fetch a model's checkpoints, or take the local ones, and verify them."""
    input:
        local=lambda wildcards: list(CONFIG.weights.get(wildcards.model, {}).values()),
    output:
        record="<results>/weights/{model}.json",
    log:
        "<logs>/fetch_weights/{model}.log",
    localrule: True
    conda:
        "../../envs/weights.yaml"
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        catalogue=lambda wildcards: catalogue_facts(wildcards.model),
        components=lambda wildcards: list(CONFIG.weights.get(wildcards.model, {})),
    script:
        "../../scripts/fetch_weights.py"
