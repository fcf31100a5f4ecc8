"""Procedural videos of eight motions: random textures carried by a steady affine velocity field.

With z the screen position as a complex number (units of the frame height, x to the right, y down,
origin near the frame centre), the content moves by dz/dt = v + (zoom + i * spin) * z. That field
does not depend on time, so any part of a video shows its motion, and its solution in closed form
gives the frame at any time, whatever the frame rate. The texture is a sum of octaves of one
periodic tile; octaves fade in and out as the scale changes, so that a zoom never runs out.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = (
    "move_left",
    "move_right",
    "move_up",
    "move_down",
    "rotate_clockwise",
    "rotate_counterclockwise",
    "zoom_in",
    "zoom_out",
)

_TILE_SIZE = 256
_ACTIVE_OCTAVES = 3
_OCTAVE_PLACEMENTS = 16
# Below this rate (1/s) the flow is a plain translation to float accuracy.
_MIN_RATE = 1e-9

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A steady velocity field: dz/dt = velocity + (zoom + 1j * spin) * z.

    velocity is in frame heights per second (real part to the right, imaginary part down), zoom in
    1/s (positive: content grows) and spin in radians per second (positive: clockwise on screen).
    """

    velocity: complex
    zoom: float
    spin: float

    def source(self, time: float) -> tuple[complex, complex]:
        """Return (factor, offset): what is seen at z after `time` s was at factor * z + offset."""
        rate = complex(self.zoom, self.spin)
        factor = cmath.exp(-rate * time)
        if abs(rate) < _MIN_RATE:
            return factor, -self.velocity * time
        return factor, -self.velocity * (1 - factor) / rate


@dataclass(frozen=True, kw_only=True)
class Texture:
    """Colours and look of one video; everything in it is independent of the motion's class."""

    tile: Float32Array  # (257, 257, 3), zero mean, the last row and column repeat the first
    placements: NDArray[np.complex128]  # (16,) where each octave lies on the tile
    tiles_per_height: float
    octave: float
    centre: complex  # frame heights
    base: Float32Array  # (3,) in [0, 1]
    contrast: float
    flicker: tuple[float, float, float]  # relative amplitude, Hz, phase in radians
    noise: float  # standard deviation in grey levels


def render_motion(
    label: str,
    *,
    num_frames: int,
    fps: float,
    height: int,
    width: int,
    seed: int,
    times: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Render a clip in which the content of the screen moves as `label` says.

    Frame k shows the scene at k / fps seconds, or at times[k] seconds when `times` is given (for
    a variable frame rate or a later start). The scene depends on `seed` and `label` only, so the
    same time gives the same frame at any frame rate, and at 0 s every label shows one picture.

    Returns (num_frames, height, width, 3) uint8 RGB. Raises ValueError for an unknown label, a
    size, frame count or frame rate that is not positive, a negative seed, or bad `times`.
    """
    seconds = _checked_times(num_frames=num_frames, fps=fps, times=times)
    _check_scene(label, height=height, width=width, seed=seed)
    texture = _random_texture(np.random.default_rng([seed, 0]))
    flow = _random_flow(label, np.random.default_rng([seed, 1]))
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for frame, time in zip(frames, seconds, strict=True):
        image = _render_frame(texture, flow, time=time, height=height, width=width)
        # Keyed by time, not by index: a scene sampled at two frame rates has to agree.
        rng = np.random.default_rng([seed, 2, round(time * 1e6)])
        image += texture.noise * rng.standard_normal(image.shape, dtype=np.float32)
        frame[...] = np.clip(np.rint(image), 0, 255)
    return frames


def _checked_times(*, num_frames: int, fps: float, times: Sequence[float] | None) -> list[float]:
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; it must be 1 or more")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; it must be a positive number of frames per second")
    if times is None:
        return [index / fps for index in range(num_frames)]
    seconds = [float(time) for time in times]
    if len(seconds) != num_frames:
        raise ValueError(f"times has {len(seconds)} entries; num_frames asks for {num_frames}")
    for time in seconds:
        if not (math.isfinite(time) and time >= 0):
            raise ValueError(f"times holds {time}; every time must be 0 s or later")
    return seconds


def _check_scene(label: str, *, height: int, width: int, seed: int) -> None:
    if label not in CLASSES:
        raise ValueError(f"label is {label!r}; allowed are {', '.join(CLASSES)}")
    if height < 1 or width < 1:
        raise ValueError(f"the frame is {height} x {width} pixels; both sides must be 1 or more")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")


def _random_flow(label: str, rng: np.random.Generator) -> Flow:
    drift = rng.uniform(0.0, 0.05) * cmath.exp(1j * rng.uniform(0, 2 * math.pi))
    zoom, spin = rng.uniform(-0.06, 0.06), rng.uniform(-0.08, 0.08)
    speed = rng.uniform(0.28, 0.80)
    turn = math.radians(rng.uniform(45.0, 120.0))
    growth = rng.uniform(0.55, 1.30)
    if label.startswith("move_"):
        heading = {"left": -1, "right": 1, "up": -1j, "down": 1j}[label.removeprefix("move_")]
        return Flow(velocity=speed * heading + drift, zoom=zoom, spin=spin)
    if label.startswith("rotate_"):
        return Flow(
            velocity=drift,
            zoom=zoom,
            spin=turn if label == "rotate_clockwise" else -turn,
        )
    return Flow(velocity=drift, zoom=growth if label == "zoom_in" else -growth, spin=spin)


def _random_texture(rng: np.random.Generator) -> Texture:
    return Texture(
        tile=_random_tile(rng),
        placements=rng.random(_OCTAVE_PLACEMENTS) + 1j * rng.random(_OCTAVE_PLACEMENTS),
        tiles_per_height=rng.uniform(0.35, 0.8),
        octave=rng.uniform(0.0, 1.0),
        centre=complex(rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06)),
        base=rng.uniform(0.3, 0.7, 3).astype(np.float32),
        contrast=rng.uniform(0.13, 0.26),
        flicker=(
            rng.uniform(0.0, 0.06),
            rng.uniform(0.2, 1.5),
            rng.uniform(0, 2 * math.pi),
        ),
        noise=rng.uniform(0.0, 2.5),
    )


def _random_tile(rng: np.random.Generator) -> Float32Array:
    """Draw a periodic tile: coloured multi-scale noise under plain and striped ellipses."""
    tile = _multi_scale_noise(rng)
    axis = np.arange(_TILE_SIZE, dtype=np.float32) / _TILE_SIZE
    y, x = axis[:, None], axis[None, :]
    for _ in range(rng.integers(6, 14)):
        cx, cy, angle = rng.uniform(0, 1, 3)
        long_radius = rng.uniform(0.06, 0.22)
        ratio, softness = rng.uniform(1.0, 2.5), rng.uniform(0.08, 0.5)
        dx, dy = (x - cx + 0.5) % 1.0 - 0.5, (y - cy + 0.5) % 1.0 - 0.5
        cos, sin = math.cos(math.pi * angle), math.sin(math.pi * angle)
        radius = np.hypot(dx * cos + dy * sin, ratio * (dy * cos - dx * sin)) / long_radius
        mask = np.clip((1.0 - radius) / softness, 0.0, 1.0)
        fill = rng.uniform(-2.2, 2.2, 3) * np.ones((_TILE_SIZE, _TILE_SIZE, 1))
        if rng.random() < 0.4:
            # Whole wave numbers keep the stripes periodic on the tile.
            kx, ky = rng.integers(-14, 15, 2)
            phase = rng.uniform(0, 2 * math.pi)
            wave = np.tanh(2.0 * np.sin(2 * math.pi * (kx * x + ky * y) + phase))
            fill = fill * wave[:, :, None]
        tile += mask[:, :, None] * (fill - tile)
    tile = (tile - tile.mean(axis=(0, 1))) / max(float(tile.std()), 1e-6)
    return np.pad(tile, ((0, 1), (0, 1), (0, 0)), mode="wrap").astype(np.float32)


def _multi_scale_noise(rng: np.random.Generator) -> Float64Array:
    """Return (256, 256, 3) periodic 1/f^a noise of unit variance with correlated colours."""
    frequency = np.hypot(
        np.fft.fftfreq(_TILE_SIZE, 1 / _TILE_SIZE)[:, None],
        np.fft.rfftfreq(_TILE_SIZE, 1 / _TILE_SIZE)[None, :],
    )
    gain = np.maximum(frequency, 1.0) ** -rng.uniform(1.4, 2.1)
    gain[0, 0] = 0.0
    spectrum = np.fft.rfft2(rng.standard_normal((3, _TILE_SIZE, _TILE_SIZE))) * gain
    planes = np.fft.irfft2(spectrum, s=(_TILE_SIZE, _TILE_SIZE))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    mixing = rng.standard_normal((3, 3)) + np.eye(3)
    mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
    return np.ascontiguousarray(np.moveaxis(np.tensordot(mixing, planes, 1), 0, -1))


def _render_frame(
    texture: Texture, flow: Flow, *, time: float, height: int, width: int
) -> Float32Array:
    """Return (height, width, 3) float32 in grey levels, not yet clipped."""
    x = ((np.arange(width) + 0.5 - width / 2) / height - texture.centre.real).astype(np.float32)
    y = ((np.arange(height) + 0.5 - height / 2) / height - texture.centre.imag).astype(np.float32)
    factor, offset = flow.source(time)
    level = texture.octave + flow.zoom * time / math.log(2.0)
    first = math.floor(level - _ACTIVE_OCTAVES / 2) + 1
    image = np.zeros((height, width, 3), np.float32)
    power = 0.0
    for octave in range(first, first + _ACTIVE_OCTAVES):
        weight = math.cos(math.pi * (octave - level) / _ACTIVE_OCTAVES) ** 2
        scale = texture.tiles_per_height * 2.0 ** (octave - texture.octave)
        a = scale * factor
        # Reduced to one tile in double precision, as the offset grows with time.
        b = scale * offset + texture.placements[octave % _OCTAVE_PLACEMENTS]
        u = (a.real * x - (a.imag * y)[:, None]) + np.float32(b.real % 1.0)
        v = (a.imag * x + (a.real * y)[:, None]) + np.float32(b.imag % 1.0)
        image += np.float32(weight) * _sample_tile(texture.tile, u=u, v=v)
        power += weight**2
    image *= texture.contrast / math.sqrt(power)
    amplitude, rate, phase = texture.flicker
    gain = 255.0 * (1.0 + amplitude * math.sin(2 * math.pi * rate * time + phase))
    return np.asarray((image + texture.base) * np.float32(gain), dtype=np.float32)


def _sample_tile(tile: Float32Array, *, u: Float32Array, v: Float32Array) -> Float32Array:
    """Sample the periodic tile bilinearly at (u, v) in tiles; both (H, W), gives (H, W, 3)."""
    # Imported here so that the classes and the geometry can be used without torch.
    import torch
    from torch.nn.functional import grid_sample

    grid = np.stack([u - np.floor(u), v - np.floor(v)], axis=-1) * 2.0 - 1.0
    planes = torch.from_numpy(tile).permute(2, 0, 1)[None]
    sampled = grid_sample(planes, torch.from_numpy(grid)[None], align_corners=True)
    return np.asarray(sampled[0].permute(1, 2, 0).numpy())
