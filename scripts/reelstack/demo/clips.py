"""Video files and network clips for the demo: encoding, decoding, sampling in time, the recipe."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

CLIP_FRAMES = 16
CLIP_FPS = 25.0
CROP_SIZE = 56
_RESIZED = (64, 86)
_CROP_ROW, _CROP_COLUMN = 4, 15
_MEAN = (0.43216, 0.394666, 0.37645)
_STD = (0.22803, 0.22145, 0.216989)
# x264's macroblock tree gives different bytes from run to run, even with one thread.
_REPEATABLE = {"libx264": {"mbtree": "0"}}


@dataclass(frozen=True, kw_only=True)
class AudioTrack:
    """A mono track: samples (n,) float32 in [-1, 1] at `rate` Hz, for an FFmpeg encoder name."""

    samples: NDArray[np.float32]
    rate: int
    codec: str


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How to encode: names and options as FFmpeg knows them; `rate` in frames per second."""

    container: str
    codec: str
    rate: Fraction
    pix_fmt: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    mux_options: Mapping[str, str] = field(default_factory=dict)


def encode_video(
    frames: NDArray[np.uint8],
    *,
    encoding: Encoding,
    milliseconds: Sequence[int] | None = None,
    audio: AudioTrack | None = None,
) -> bytes:
    """Encode (T, H, W, 3) uint8 RGB frames into a video file and return the file's bytes.

    Frame k is shown at k / encoding.rate seconds or, for a variable frame rate, at
    milliseconds[k]. One thread and bit-exact muxing make the bytes repeatable. Raises ValueError
    for frames of another shape or type or another number of milliseconds, and av.FFmpegError
    where FFmpeg refuses the encoding.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; uint8 (T, H, W, 3) is needed")
    if milliseconds is not None and len(milliseconds) != len(frames):
        raise ValueError(f"milliseconds has {len(milliseconds)} entries for {len(frames)} frames")
    mux_options = {"fflags": "+bitexact", **encoding.mux_options}
    # A real file, because moving an MP4's index to the front opens the file a second time.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        with av.open(
            str(path), "w", format=encoding.container, container_options=mux_options
        ) as output:
            video = _add_video(output, encoding, frames, variable=milliseconds is not None)
            track = None if audio is None else _add_audio(output, audio)
            _mux_frames(output, video, frames, stamps=milliseconds or range(len(frames)))
            if track is not None and audio is not None:
                _mux_audio(output, track, audio)
        return path.read_bytes()


def _add_video(
    output: OutputContainer,
    encoding: Encoding,
    frames: NDArray[np.uint8],
    *,
    variable: bool,
) -> VideoStream:
    stream = output.add_stream(encoding.codec, rate=encoding.rate)
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = encoding.pix_fmt
    repeatable = {
        "threads": "1",
        "flags": "+bitexact",
        **_REPEATABLE.get(encoding.codec, {}),
    }
    stream.options = {**repeatable, **encoding.options}
    stream.codec_context.time_base = Fraction(1, 1000) if variable else 1 / encoding.rate
    return stream


def _mux_frames(
    output: OutputContainer,
    stream: VideoStream,
    frames: NDArray[np.uint8],
    *,
    stamps: Sequence[int],
) -> None:
    tick = stream.codec_context.time_base
    for image, stamp in zip(frames, stamps, strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = stamp, tick
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _add_audio(output: OutputContainer, audio: AudioTrack) -> AudioStream:
    stream = output.add_stream(audio.codec, rate=audio.rate)
    assert isinstance(stream, AudioStream)
    stream.options = {"flags": "+bitexact"}
    stream.codec_context.layout = "mono"
    return stream


def _mux_audio(output: OutputContainer, stream: AudioStream, audio: AudioTrack) -> None:
    sound = av.AudioFrame.from_ndarray(audio.samples[None], format="fltp", layout="mono")
    sound.sample_rate, sound.pts = audio.rate, 0
    output.mux(stream.encode(sound))
    output.mux(stream.encode(None))


def decode_video(source: Path | bytes) -> tuple[NDArray[np.uint8], list[float]]:
    """Decode the first video stream of a file or of a file's bytes.

    Returns (T, H, W, 3) uint8 RGB frames and their T presentation times in seconds. A damaged
    file gives the frames before the damage; av.FFmpegError or ValueError is raised when there
    are none.
    """
    frames: list[NDArray[np.uint8]] = []
    times: list[float] = []
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, mode="r") as container:
        try:
            for frame in container.decode(video=0):
                frames.append(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8))
                times.append(float(frame.time))
        except av.FFmpegError:
            if not frames:
                raise
    if not frames:
        raise ValueError(f"{source!r:.80} holds no video frame; at least one is needed")
    return np.stack(frames), times


def sample_frames(times: Sequence[float], *, fps: float = CLIP_FPS) -> NDArray[np.int64]:
    """Return the index of the frame nearest to each k / fps seconds after the first frame.

    The last frame is taken to last as long as the median frame. Raises ValueError for no times.
    """
    if not times:
        raise ValueError("times is empty; at least one frame time is needed")
    shown = np.asarray(times, dtype=np.float64) - times[0]
    last = float(np.median(np.diff(shown))) if len(shown) > 1 else 1 / fps
    # The slack keeps rounded container times from losing the last sample.
    count = max(1, int((shown[-1] + last) * fps + 0.1))
    wanted = np.arange(count) / fps
    return np.asarray(np.abs(shown[None, :] - wanted[:, None]).argmin(axis=1))


def window_starts(num_samples: int, *, step: int = CLIP_FRAMES) -> list[int]:
    """Return the first sample of every whole window of 16 samples, `step` samples apart."""
    return list(range(0, num_samples - CLIP_FRAMES + 1, step))


def resize_and_crop(frames: NDArray[np.uint8]) -> Tensor:
    """Scale (T, H, W, 3) uint8 frames to 64 x 86 and cut the centre; (T, 3, 56, 56) in [0, 1]."""
    planes = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    scaled = interpolate(planes, size=_RESIZED, mode="bilinear", align_corners=False)
    rows = slice(_CROP_ROW, _CROP_ROW + CROP_SIZE)
    columns = slice(_CROP_COLUMN, _CROP_COLUMN + CROP_SIZE)
    return scaled[:, :, rows, columns]


def normalise(clips: Tensor) -> Tensor:
    """Apply R(2+1)D's channel mean and deviation to (N, 3, T, H, W) float clips in [0, 1]."""
    shape = (1, 3, 1, 1, 1)
    return (clips - clips.new_tensor(_MEAN).view(shape)) / clips.new_tensor(_STD).view(shape)


def prepare_clip(frames: NDArray[np.uint8]) -> Tensor:
    """Turn (16, H, W, 3) uint8 frames at 25 frames/s into the network's (3, 16, 56, 56) input.

    Raises ValueError for another number of frames.
    """
    if len(frames) != CLIP_FRAMES:
        raise ValueError(f"the clip has {len(frames)} frames; the network takes {CLIP_FRAMES}")
    return normalise(resize_and_crop(frames).permute(1, 0, 2, 3)[None])[0]
