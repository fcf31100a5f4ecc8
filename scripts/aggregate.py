"""Rule `aggregate`: bring the store up to date and write the manifest."""

from reelstack.logs import job_log
from reelstack.store.aggregate import aggregate

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        aggregate(
            config=snakemake.input.config,
            sets=snakemake.params.sets,
            probes=snakemake.input.probes,
            reencodes=snakemake.input.reencodes,
            parts=snakemake.input.parts,
            manifest=snakemake.output.manifest,
            provenance=snakemake.output.provenance,
        )
