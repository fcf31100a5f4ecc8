"""Rule `reencode`: re-encode a shard's videos with ffmpeg."""

from reelstack.logs import job_log
from reelstack.media.reencode_shard import reencode_shard

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        reencode_shard(
            probe_table=snakemake.input.table,
            table=snakemake.output.table,
            videos=snakemake.output.videos,
            fps=snakemake.params.fps,
            encoder=snakemake.params.encoder,
            keep=snakemake.params.keep,
            threads=snakemake.threads,
            strict=snakemake.params.strict,
        )
