"""Rule `fetch_weights`: have a model's checkpoints on disk, verified."""

from reelstack.logs import job_log
from reelstack.models.registry import model_entry
from reelstack.models.weights import ensure_weights, write_record

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        local = dict(zip(snakemake.params.components, snakemake.input.local, strict=True))
        checkpoints = ensure_weights(model_entry(snakemake.wildcards.model), local)
        write_record(snakemake.output.record, snakemake.wildcards.model, checkpoints)
