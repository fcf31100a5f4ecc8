"""Files that try to make the machine do something: nothing is fetched, nothing else is read."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from media_factory import write_video
from reelstack.errors import VideoError
from reelstack.ingest.probe import probe_video
from reelstack.media.frames import VideoReader
from reelstack.media.reencode import reencode_video

ENCODER = {"codec": "libx264", "preset": "ultrafast", "crf": 18, "pix_fmt": "yuv420p"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine that would serve a video, and what was asked of it."""
    content = write_video(tmp_path / "served.ts", num_frames=5).read_bytes()
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    running.server_close()


def playlists(address: str) -> dict[str, str]:
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\n"
    return {
        "hls": f"{head}{address}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{address}'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nu={address}\nm=video 5004 RTP/AVP 96\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f'<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    }


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "m3u8", "ts", "mpd"])
@pytest.mark.parametrize("kind", ["hls", "concat", "sdp", "dash"])
def test_no_address_is_asked(
    tmp_path: Path, server: tuple[str, list[str]], kind: str, suffix: str
) -> None:
    address, asked = server
    path = tmp_path / f"clip.{suffix}"
    path.write_text(playlists(f"{address}/served.ts")[kind])
    assert probe_video(path)["status"] in ("unreadable", "no_video")
    with pytest.raises(VideoError), VideoReader(path) as reader:
        list(reader)
    with pytest.raises(VideoError):
        reencode_video(
            str(path),
            tmp_path / "out.mp4",
            fps=25.0,
            encoder=ENCODER,
            width=64,
            height=48,
            frames_declared=1,
            duration_seconds=1.0,
        )
    assert asked == []
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("target", ["other.ts", "{folder}/other.ts", "file:{folder}/other.ts"])
@pytest.mark.parametrize("kind", ["hls", "concat"])
@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "ts"])
def test_no_other_file_is_shown_in_its_place(
    tmp_path: Path, kind: str, suffix: str, target: str
) -> None:
    """The content would not be what was hashed."""
    write_video(tmp_path / "other.ts", num_frames=5)
    path = tmp_path / f"clip.{suffix}"
    path.write_text(playlists(target.format(folder=tmp_path))[kind])
    facts = probe_video(path)
    assert facts["status"] == "unreadable"
    assert not facts.get("frames_declared"), "would be given to ffmpeg"
    with pytest.raises(VideoError) as caught:
        VideoReader(path)
    assert caught.value.status == "unreadable"


def test_an_address_in_place_of_a_path_is_a_missing_file(server: tuple[str, list[str]]) -> None:
    address, asked = server
    with pytest.raises(VideoError) as caught:
        VideoReader(f"{address}/served.ts")
    assert caught.value.status == "missing"
    assert asked == []
