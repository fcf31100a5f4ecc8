"""Encoding rendered frames into video files, repeatably."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

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
