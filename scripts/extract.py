"""Rules `extract_<family>`: the features of one set and shard."""

from reelstack.extract.shard import extract_shard
from reelstack.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        extract_shard(
            name=snakemake.wildcards.set,
            parameters=snakemake.params.feature_set,
            probe_table=snakemake.input.table,
            reencode_table=snakemake.input.get("encoding"),
            videos=snakemake.input.get("videos"),
            weights_records=snakemake.input.weights,
            aligned=snakemake.input.get("aligned"),
            part=snakemake.output.part,
            gpus=snakemake.resources.get("gpu", 0),
            threads=snakemake.threads,
            strict=snakemake.params.strict,
        )
