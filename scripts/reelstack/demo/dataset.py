"""Procedural clips for training and evaluating the demo's network, and their augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from tempfile import NamedTemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelstack.demo.encoding import Encoding, encode_video
from reelstack.demo.motion import CLASSES, render_motion
from reelstack.media.frames import VideoReader
from reelstack.models.r21d import normalise, resize_and_crop
from reelstack.models.registry import model_entry

ENTRY = model_entry("r2plus1d_tiny_motion")
assert ENTRY.stack_size is not None
CLIP_FRAMES = ENTRY.stack_size
CLIP_FPS = 25.0


def _swaps(*pairs: str) -> dict[str, str]:
    """Return both directions of each pair of class names."""
    split = [pair.split() for pair in pairs]
    return dict(split) | {b: a for a, b in split}


# (height, width) of the clips drawn straight at a low resolution, and of those sent through x264.
_RAW_SIZES = ((64, 86), (90, 120), (72, 128), (96, 96), (128, 96), (120, 160))
_CODED_SIZES = ((120, 160), (144, 176), (240, 320), (320, 240), (240, 426))
_SOURCE_RATES = (15.0, 24.0, 25.0, 25.0, 29.97, 30.0, 50.0, 60.0)
_CODED_SHARE = 0.2
# A video that ends inside a window is padded with its last frame, which must not hide its motion.
_FROZEN_SHARE = 0.15

_MIRROR = _swaps("move_left move_right", "rotate_clockwise rotate_counterclockwise")
_UPEND = _swaps("move_up move_down", "rotate_clockwise rotate_counterclockwise")
_REWIND = {**_MIRROR, **_UPEND, **_swaps("zoom_in zoom_out")}
_TURN = _swaps(
    "move_left move_up", "move_right move_down", "rotate_clockwise rotate_counterclockwise"
)


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """One clip: its scene, frame size, sampled times (s) and x264 quality (None: not encoded)."""

    label: str
    seed: int
    size: tuple[int, int]
    times: tuple[float, ...]
    crf: int | None


def mixed_spec(seed: int) -> ClipSpec:
    """Draw a clip as the network may meet it: any size, start, source frame rate and quality."""
    rng = np.random.default_rng([seed, 3])
    coded = rng.random() < _CODED_SHARE
    sizes = _CODED_SIZES if coded else _RAW_SIZES
    rate = float(rng.choice(_SOURCE_RATES))
    jitter = 0.35 if rng.random() < 0.2 else 0.0
    # The 25 frames/s clip repeats or skips frames of the source, whose spacing may vary.
    shown = np.rint(np.arange(CLIP_FRAMES) / CLIP_FPS * rate + rng.uniform(0, 1))
    stamps = shown + jitter * np.sin(shown * rng.uniform(0.5, 2.5))
    times = (rng.uniform(0.5, 6.0) + stamps / rate).tolist()
    return ClipSpec(
        label=CLASSES[seed % len(CLASSES)],
        seed=seed,
        size=sizes[rng.integers(len(sizes))],
        times=tuple(times),
        crf=int(rng.integers(20, 35)) if coded else None,
    )


def coded_spec(seed: int) -> ClipSpec:
    """Draw a clip of 240 x 320 pixels at 25 frames/s that x264 encodes at CRF 23 to 30."""
    rng = np.random.default_rng([seed, 3])
    start = rng.uniform(0.0, 6.0)
    return ClipSpec(
        label=CLASSES[seed % len(CLASSES)],
        seed=seed,
        size=(240, 320),
        times=tuple((start + np.arange(CLIP_FRAMES) / CLIP_FPS).tolist()),
        crf=int(rng.integers(23, 31)),
    )


def render_clip(spec: ClipSpec) -> NDArray[np.uint8]:
    """Render, and if asked encode and decode, one clip; (16, H, W, 3) uint8."""
    height, width = spec.size
    frames = render_motion(
        spec.label,
        num_frames=CLIP_FRAMES,
        fps=CLIP_FPS,
        height=height,
        width=width,
        seed=spec.seed,
        times=spec.times,
    )
    if spec.crf is None:
        return frames
    encoding = Encoding(
        container="mp4",
        codec="libx264",
        rate=Fraction(25),
        options={"crf": str(spec.crf), "preset": "veryfast"},
    )
    with NamedTemporaryFile(suffix=".mp4") as file:
        file.write(encode_video(frames, encoding=encoding))
        file.flush()
        with VideoReader(file.name) as reader:
            return np.stack([frame.rgb() for frame in reader])


def planes_of(frames: NDArray[np.uint8]) -> Tensor:
    """(16, H, W, 3) uint8 frames as the network's input before normalising; (3, 16, 56, 56)."""
    options = ENTRY.options
    pixels = torch.from_numpy(np.ascontiguousarray(frames))
    planes = resize_and_crop(pixels, size=options["resize"], crop=options["crop"])
    return planes.permute(1, 0, 2, 3)


def pool_clip(seed: int) -> NDArray[np.uint8]:
    """Render one training clip, resized and cropped; (3, 16, 56, 56) uint8."""
    small = planes_of(render_clip(mixed_spec(seed)))
    return np.asarray((small * 255).round().to(torch.uint8).numpy())


def held_out_clip(seed: int, *, coded: bool) -> NDArray[np.float32]:
    """Render one evaluation clip through the exact recipe; (3, 16, 56, 56) float32."""
    spec = coded_spec(seed) if coded else mixed_spec(seed)
    return np.asarray(normalise(planes_of(render_clip(spec))[None])[0].numpy())


def augment(clip: Tensor, label: int, *, rng: np.random.Generator) -> tuple[Tensor, int]:
    """Apply a random symmetry of space, time and colour to a (3, 16, 56, 56) uint8 clip.

    Returns the float clip in [0, 1] and the class that the changed motion belongs to.
    """
    mirror, upend, rewind, turn = rng.random(4) < 0.5
    dims = [dim for dim, chosen in ((3, mirror), (2, upend), (1, rewind)) if chosen]
    name = CLASSES[label]
    for chosen, pairs in ((mirror, _MIRROR), (upend, _UPEND), (rewind, _REWIND), (turn, _TURN)):
        if chosen:
            name = pairs.get(name, name)
    if rng.random() < _FROZEN_SHARE:
        clip = clip.clone()
        last = rng.integers(6, CLIP_FRAMES - 1)
        clip[:, last + 1 :] = clip[:, last : last + 1]
    out = clip[torch.from_numpy(rng.permutation(3))].flip(dims).float() / 255
    if turn:
        out = out.transpose(2, 3)
    gain, shift = rng.uniform(0.7, 1.25), rng.uniform(-0.12, 0.12)
    out = out * gain + shift
    if rng.random() < 0.5:
        noise = np.random.default_rng(rng.integers(2**32)).standard_normal(out.shape, np.float32)
        out = out + torch.from_numpy(noise) * rng.uniform(0.0, 0.03)
    return out.clamp(0, 1), CLASSES.index(name)
