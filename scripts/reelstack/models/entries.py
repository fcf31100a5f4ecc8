"""The table of models."""

from __future__ import annotations

from reelstack.models.entry import ModelEntry

KINETICS = "labels/kinetics400.txt"
IMAGENET = "labels/imagenet1k.txt"


def _video_resnet(
    name: str,
    network: str,
    stack: int,
    gmac: float,
    *,
    num_classes: int = 400,
    labels: str | None = KINETICS,
) -> ModelEntry:
    options = {"network": network, "resize": (128, 171), "crop": 112}
    return ModelEntry(name, "r21d", stack, stack, 512, num_classes, labels, gmac, options=options)


def _resnet(depth: int, feature_dim: int, gmac: float) -> ModelEntry:
    name = f"resnet{depth}"
    return ModelEntry(name, "resnet", 1, 1, feature_dim, 1000, IMAGENET, gmac, timestamps="start")


def _flow(name: str, gmac: float, *, memory_mb: int = 4000) -> ModelEntry:
    """Optical flow of consecutive frames: rows (2, H, W), so D is not one number.

    Args:
        gmac: of a pair of 256×341 within a video, where a frame is encoded once for two pairs.
        memory_mb: for videos of 1080p at their own size.
    """
    return ModelEntry(
        name,
        "flow",
        2,
        1,
        None,
        0,
        None,
        gmac,
        memory_mb=memory_mb,
        least_stack=2,
        streams=("flow",),
        components=("flow",),
        options={"fixed_stack": True},
        settings={"side_size": None, "resize_to_smaller_edge": True, "size": None},
        timestamps="start",
    )


def _mmaction2(stack: int, interval: int, gmac: float) -> ModelEntry:
    return ModelEntry(
        f"mmaction2/r2plus1d_r34_{stack}x{interval}x1",
        "mmaction2",
        stack,
        stack * interval,
        512,
        400,
        KINETICS,
        gmac,
        frame_interval=interval,
        settings={"clips": 0, "crops": 3},
        extra="mmaction2",
    )


def _torchvision_video(
    name: str,
    feature_dim: int,
    gmac: float,
    *,
    network: str | None = None,
    stack: int = 16,
    least_stack: int = 1,
    fixed_stack: bool = False,
) -> ModelEntry:
    return ModelEntry(
        name,
        "torchvision_video",
        stack,
        stack,
        feature_dim,
        400,
        KINETICS,
        gmac,
        least_stack=least_stack,
        options={
            "network": network or name,
            "weights": "KINETICS400_V1",
            "fixed_stack": fixed_stack,
        },
    )


def _clip(name: str, feature_dim: int, gmac: float, *, memory_mb: int = 4000) -> ModelEntry:
    return ModelEntry(
        f"clip/{name}",
        "clip",
        1,
        1,
        feature_dim,
        None,
        None,
        gmac,
        memory_mb=memory_mb,
        settings={"labels": None, "prompt": "a photo of {}"},
        extra="clip",
        timestamps="start",
    )


ENTRIES = (
    _video_resnet("r2plus1d_18_16_kinetics", "r2plus1d_18", 16, 40.52),
    _video_resnet("r2plus1d_34_32_ig65m_ft_kinetics", "r2plus1d_34", 32, 152.36),
    _video_resnet("r2plus1d_34_8_ig65m_ft_kinetics", "r2plus1d_34", 8, 38.09),
    _video_resnet("r2plus1d_34_32_ig65m", "r2plus1d_34", 32, 152.36, num_classes=359, labels=None),
    _video_resnet("r2plus1d_34_8_ig65m", "r2plus1d_34", 8, 38.09, num_classes=487, labels=None),
    _video_resnet("r3d_18", "r3d_18", 16, 40.7),
    _video_resnet("mc3_18", "mc3_18", 16, 43.34),
    ModelEntry(
        "r2plus1d_tiny_motion",
        "r21d",
        16,
        16,
        64,
        8,
        "demo/labels.txt",
        0.11,
        options={"network": "tiny_r2plus1d", "resize": (64, 86), "crop": 56},
    ),
    _resnet(18, 512, 1.81),
    _resnet(34, 512, 3.66),
    _resnet(50, 2048, 4.09),
    _resnet(101, 2048, 7.8),
    _resnet(152, 2048, 11.51),
    ModelEntry(
        "i3d_kinetics400",
        "i3d",
        64,
        64,
        1024,
        400,
        KINETICS,
        5811.0,  # RGB 111, flow 102, and RAFT on 64 pairs of 256×341
        least_stack=10,
        streams=("rgb", "flow"),
        components=("rgb", "flow", "raft", "raft_kitti", "pwc"),
        settings={"flow": "raft"},
        timestamps="end",
    ),
    _flow("raft_sintel", 87.5, memory_mb=10000),
    _flow("raft_kitti", 87.5, memory_mb=10000),
    _flow("raft_large", 58.0, memory_mb=10000),
    _flow("raft_small", 15.3, memory_mb=10000),
    _flow("pwc_sintel", 17.5),
    ModelEntry("s3d_kinetics400", "s3d", 64, 64, 1024, 400, KINETICS, 71.92, least_stack=13),
    ModelEntry(
        "vggish",
        "vggish",
        None,
        None,
        128,
        0,
        None,
        0.86,
        streams=("audio",),
        components=("audio",),
        reads="audio",
        settings={"hop_seconds": 0.96, "align": None},
    ),
    _mmaction2(8, 8, 40.56),
    _mmaction2(32, 2, 162.24),
    ModelEntry(
        "r2plus1d_pytorch",
        "r2plus1d_pytorch",
        8,
        8,
        512,
        None,
        None,
        None,
        settings={"labels": None},
        extra="r2plus1d_pytorch",
    ),
    _torchvision_video("mvit_v1_b", 768, 70.6, fixed_stack=True),
    _torchvision_video("mvit_v2_s", 768, 64.22, fixed_stack=True),
    _torchvision_video("swin3d_t", 768, 43.88),
    _torchvision_video("swin3d_s", 768, 82.84),
    _torchvision_video("swin3d_b", 1024, 140.67),
    _torchvision_video("s3d_torchvision", 1024, 143.83, network="s3d", stack=128, least_stack=13),
    _clip("ViT-B-32", 512, 4.41),
    _clip("ViT-B-16", 512, 17.56),
    _clip("ViT-L-14", 768, 81.01, memory_mb=6000),
    _clip("ViT-L-14@336px", 768, 190.96, memory_mb=6000),
    _clip("RN50", 1024, 6.11),
    _clip("RN101", 512, 9.77),
    _clip("RN50x4", 640, 21.28),
    _clip("RN50x16", 768, 74.7, memory_mb=5000),
    _clip("RN50x64", 1024, 264.55, memory_mb=9000),
)

OPEN_ENTRIES = (
    ModelEntry(
        "timm/<name>", "timm", 1, 1, None, None, None, None, extra="timm", timestamps="start"
    ),
    ModelEntry(
        "hf/<repo or folder>",
        "hf",
        None,
        None,
        None,
        None,
        None,
        None,
        settings={"output": "pooled", "revision": "main", "local_files_only": False},
        extra="hf",
    ),
)
"""Models by a pattern: what follows the prefix is a name of the library or a repository."""
