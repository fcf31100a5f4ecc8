"""Extraction: one job per (feature set, shard), one rule per model family.

Required: the shard's probe table, its re-encoded videos where the set reads them, the model's
weights record.
Output: <results>/features/<set>/<shard>.npz, one part with every video of the shard.
Steps: decode -> windows -> forward -> part. Videos with a valid result are not computed again.
"""


rule extract:
    """What all families share; each family below is a rule of its own."""
    input:
        unpack(extraction_inputs),
        table="<results>/probe/{shard}.csv",
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("(abstract)"),
    conda:
        "../../envs/r21d.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: set_of(wildcards).entry.memory_mb * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        feature_set=lambda wildcards: set_of(wildcards).parameters(),
        strict=CONFIG.merged["strict"],
    script:
        "../../scripts/extract.py"


use rule extract as extract_r21d with:
    """R(2+1)D, R3D and MC3: 3D ResNets over windows of frames."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_r21d/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_r21d/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("r21d"),
    conda:
        "../../envs/r21d.yaml"


use rule extract as extract_resnet with:
    """ResNet-18 to -152, frame by frame."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_resnet/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_resnet/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("resnet"),
    conda:
        "../../envs/resnet.yaml"


use rule extract as extract_s3d with:
    """S3D over windows of frames."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_s3d/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_s3d/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("s3d"),
    conda:
        "../../envs/s3d.yaml"


use rule extract as extract_mmaction2 with:
    """mmaction2's R(2+1)D-34: dense windows, or clips and crops of whole videos."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_mmaction2/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_mmaction2/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("mmaction2"),
    conda:
        "../../envs/mmaction2.yaml"


use rule extract as extract_r2plus1d_pytorch with:
    """Networks that R2Plus1D-PyTorch has trained, over windows of frames."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_r2plus1d_pytorch/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_r2plus1d_pytorch/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("r2plus1d_pytorch"),
    conda:
        "../../envs/r2plus1d_pytorch.yaml"


use rule extract as extract_torchvision_video with:
    """torchvision's video transformers and its S3D, over windows of frames."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_torchvision_video/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_torchvision_video/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("torchvision_video"),
    conda:
        "../../envs/torchvision_video.yaml"


use rule extract as extract_clip with:
    """CLIP's image encoder, frame by frame."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_clip/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_clip/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("clip"),
    conda:
        "../../envs/clip.yaml"


use rule extract as extract_timm with:
    """Image models of timm, frame by frame."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_timm/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_timm/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("timm"),
    conda:
        "../../envs/timm.yaml"


use rule extract as extract_hf with:
    """Video models of transformers, over windows of frames."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_hf/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_hf/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("hf"),
    conda:
        "../../envs/hf.yaml"


use rule extract as extract_vggish with:
    """VGGish over the sound of a video."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_vggish/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_vggish/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("vggish"),
    conda:
        "../../envs/vggish.yaml"


use rule extract as extract_i3d with:
    """I3D's two streams over windows of frames; the optical flow is computed on the way."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_i3d/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_i3d/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("i3d"),
    conda:
        "../../envs/i3d.yaml"


use rule extract as extract_flow with:
    """Optical flow from frame to frame: RAFT and PWC-Net."""
    output:
        part="<results>/features/{set}/{shard}.npz",
    log:
        "<logs>/extract_flow/{set}/{shard}.log",
    benchmark:
        "<benchmarks>/extract_flow/{set}/{shard}.tsv"
    wildcard_constraints:
        set=sets_pattern("flow"),
    conda:
        "../../envs/flow.yaml"
