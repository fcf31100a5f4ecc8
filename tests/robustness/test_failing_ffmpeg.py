"""When ffmpeg fails: whose fault it is decides between a row and an error of the job."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from media_factory import write_video
from reelstack.errors import ReelstackError, VideoError
from reelstack.media import reencode

ENCODER = {"codec": "libx264", "preset": "ultrafast", "crf": 0, "pix_fmt": "yuv420p"}
REAL = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_video(tmp_path / "source.mkv", num_frames=60, height=240, width=320, codec="ffv1")


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a script first on PATH; the real one still answers `-version` and `-encoders`."""

    def install(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        ffmpeg = folder / "ffmpeg"
        ffmpeg.write_text(
            "#!/bin/bash\n"
            f'case "$*" in *-version*|*-encoders*) exec "{REAL}" "$@";; esac\n{script}\n'
        )
        ffmpeg.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return install


def encode(source: Path, target: Path, **changes: Any) -> dict[str, Any]:
    facts = {"width": 320, "height": 240, "frames_declared": 60, "duration_seconds": 2.4}
    return reencode.reencode_video(
        str(source), target, fps=25.0, encoder=ENCODER | changes, **facts
    )


def leftovers(target: Path) -> list[str]:
    return [name for name in os.listdir(target.parent) if name != "source.mkv"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "video.mp4"


def test_a_script_in_between_changes_nothing(source: Path, target: Path, fake_ffmpeg: Any) -> None:
    fake_ffmpeg(f'exec "{REAL}" "$@"')
    row = encode(source, target)
    assert (row["status"], row["frames_out"]) == ("ok", 60)


def test_a_disk_that_fills_up_is_no_video_s_fault(
    source: Path, target: Path, fake_ffmpeg: Any
) -> None:
    """ffmpeg has encoded all frames when it cannot write the index: its counts look fine."""
    fake_ffmpeg(f'ulimit -f 60\ntrap "" XFSZ\nexec "{REAL}" "$@"')
    with pytest.raises(ReelstackError, match=r"ffmpeg failed: .*File too large") as caught:
        encode(source, target)
    assert not isinstance(caught.value, VideoError)
    assert leftovers(target) == []


@pytest.mark.parametrize(
    "line",
    [
        "[out#0/mp4 @ 0x1] [error] Error writing trailer: No space left on device",
        "[out#0/mp4 @ 0x1] [fatal] Error opening output out.mp4: Permission denied",
        "[libx264 @ 0x1] [error] malloc failed\n[error] Cannot allocate memory",
    ],
)
def test_what_the_machine_refuses_ends_the_job(
    source: Path, target: Path, fake_ffmpeg: Any, line: str
) -> None:
    fake_ffmpeg(f"echo '{line}' >&2; exit 1")
    with pytest.raises(ReelstackError) as caught:
        encode(source, target)
    assert not isinstance(caught.value, VideoError)
    assert line.split("] ")[-1] in str(caught.value)


def test_a_killed_ffmpeg_ends_the_job(source: Path, target: Path, fake_ffmpeg: Any) -> None:
    fake_ffmpeg("kill -9 $$")
    with pytest.raises(ReelstackError, match="ffmpeg ended with status -9") as caught:
        encode(source, target)
    assert not isinstance(caught.value, VideoError), "an out-of-memory kill is no broken video"
    assert leftovers(target) == []


def test_a_cancelled_ffmpeg_leaves_no_short_video(
    source: Path, target: Path, fake_ffmpeg: Any
) -> None:
    """On SIGTERM ffmpeg closes the file properly: what is there looks complete."""
    fake_ffmpeg(f'exec "{REAL}" -readrate 2 "$@" & pid=$!; sleep 0.5; kill -TERM $pid; wait $pid')
    with pytest.raises(ReelstackError) as caught:
        encode(source, target)
    assert not isinstance(caught.value, VideoError)
    assert leftovers(target) == []


def test_what_ffmpeg_cannot_decode_is_a_row(source: Path, target: Path, fake_ffmpeg: Any) -> None:
    fake_ffmpeg("echo '[in#0] [error] Invalid data found when processing input' >&2; exit 183")
    with pytest.raises(VideoError, match="could decode no frame: Invalid data found") as caught:
        encode(source, target)
    assert caught.value.status == "unreadable"


def test_a_hanging_ffmpeg_is_ended_and_a_row(
    source: Path, target: Path, fake_ffmpeg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ffmpeg("exec sleep 60")
    monkeypatch.setattr(reencode, "_MIN_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(reencode, "_TIMEOUT_PER_VIDEO_SECOND", 0.0)
    started = time.monotonic()
    with pytest.raises(VideoError, match="gave up after") as caught:
        encode(source, target)
    assert caught.value.status == "timeout"
    assert time.monotonic() - started < 20
    assert leftovers(target) == []


def test_a_long_video_has_a_longer_timeout(
    source: Path, target: Path, fake_ffmpeg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ffmpeg(f'sleep 1; exec "{REAL}" "$@"')
    monkeypatch.setattr(reencode, "_MIN_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(reencode, "_TIMEOUT_PER_VIDEO_SECOND", 10.0)
    assert encode(source, target)["status"] == "ok"


def test_an_encoder_that_this_ffmpeg_lacks(source: Path, target: Path) -> None:
    with pytest.raises(ReelstackError, match="libx263") as caught:
        encode(source, target, codec="libx263")
    assert not isinstance(caught.value, VideoError)
    assert "choose another codec or put a fuller ffmpeg on PATH" in str(caught.value)


def test_settings_that_the_encoder_refuses(source: Path, target: Path) -> None:
    with pytest.raises(ReelstackError, match="ffmpeg failed: ") as caught:
        encode(source, target, preset="fastest")
    assert not isinstance(caught.value, VideoError)
    assert leftovers(target) == []


def test_an_old_result_survives_a_failure(source: Path, target: Path, fake_ffmpeg: Any) -> None:
    target.write_bytes(b"from before")
    fake_ffmpeg('for a; do case "$a" in file:*.tmp) echo half > "${a#file:}"; esac; done; exit 1')
    with pytest.raises(VideoError):
        encode(source, target)
    assert target.read_bytes() == b"from before"
    assert leftovers(target) == ["video.mp4"]
