"""Reelstack: videos -> probe -> re-encode -> deep features -> Zarr store and manifest.

Edit config/config.yaml, or give your own: it then stands alone (nothing is merged into it).
    snakemake --cores 8 --resources gpu=2 --configfile my.yaml --directory /data/run1
"""

from snakemake.utils import min_version

min_version("9.25")


include: "workflow/rules/common.smk"


pathvars:
    results=CONFIG.output,


include: "workflow/rules/ingest.smk"
include: "workflow/rules/reencode.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/aggregate.smk"


rule all:
    default_target: True
    input:
        all_outputs(),
    localrule: True
