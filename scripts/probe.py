"""Rule `probe`: hash a shard's videos and read their container facts."""

from reelstack.ingest.probe_shard import probe_shard
from reelstack.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        probe_shard(
            plan=snakemake.input.plan,
            table=snakemake.output.table,
            threads=snakemake.threads,
            strict=snakemake.params.strict,
        )
