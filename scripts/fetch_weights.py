"""Rule `fetch_weights`: have a checkpoint on disk, verified."""

from reelstack.logs import job_log
from reelstack.models.weights import Request, ensure_checkpoint, write_record

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        request = Request(**snakemake.params.request)
        write_record(snakemake.output.record, request, ensure_checkpoint(request))
