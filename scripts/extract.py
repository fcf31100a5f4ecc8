"""Rules `extract_<family>`: the features of one set and shard."""

from reelstack.config import FeatureSet
from reelstack.extract.shard import extract_shard
from reelstack.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        extract_shard(
            feature_set=FeatureSet.from_parameters(
                snakemake.wildcards.set, snakemake.params.feature_set
            ),
            probe_table=snakemake.input.table,
            reencode_table=snakemake.input.get("encoding"),
            videos=snakemake.input.get("videos"),
            weights_record=snakemake.input.weights,
            part=snakemake.output.part,
            gpus=snakemake.resources.get("gpu", 0),
            threads=snakemake.threads,
            strict=snakemake.params.strict,
        )
