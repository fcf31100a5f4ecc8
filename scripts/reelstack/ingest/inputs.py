"""From the config's `videos` list to identified video files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reelstack.errors import ConfigError, nearest
from reelstack.files import CHECKOUT, read_csv

VIDEO_SUFFIXES = frozenset(
    (
        ".3g2 .3gp .amv .asf .avi .dv .divx .f4v .flv .gif .m2t .m2ts .m2v .m4v .mkv .mov .mp4 "
        ".mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m"
    ).split()
)
"""What a folder is searched for; a file, a glob or a list entry may have any suffix."""

LIST_SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True)
class Video:
    """One input file.

    Attributes:
        video_id: path relative to its root without the suffix, `/` between parts.
        path: as the workflow opens it, relative to the working directory where the config is.
        size_bytes, mtime_ns: as found, 0 for a file that is not there; together the fingerprint
            of the content.
    """

    video_id: str
    path: str
    size_bytes: int
    mtime_ns: int

    @property
    def fingerprint(self) -> str:
        """`size:mtime_ns`; the same as long as nobody wrote to the file."""
        return f"{self.size_bytes}:{self.mtime_ns}"


def find_videos(entries: list[str]) -> list[Video]:
    """All videos that the config's `videos` entries name, sorted by id.

    Relative entries are looked up in the working directory, then in the checkout (so that the
    shipped config works with any `--directory`).

    Raises:
        ConfigError: for an entry that does not exist or matches nothing, and for two files
            with one id.
    """
    found: dict[str, Video] = {}
    for entry in entries:
        videos = list(_entry_videos(entry))
        if not videos:
            raise ConfigError(
                f"videos: {entry!r} matches no video. A folder is searched for files with a "
                f"video suffix ({', '.join(sorted(VIDEO_SUFFIXES)[:6])} …), a glob for any file."
            )
        for video in videos:
            known = found.setdefault(video.video_id, video)
            if known is not video and os.path.realpath(known.path) != os.path.realpath(video.path):
                raise ConfigError(
                    f"videos: two files have the id {video.video_id!r}: {known.path!r} and "
                    f"{video.path!r}. Ids are paths relative to the entry's folder without the "
                    "suffix: name a common parent folder instead, rename one, or give a .csv "
                    "list with the columns path,video_id."
                )
    return [found[video_id] for video_id in sorted(found)]


def _entry_videos(entry: str) -> Iterator[Video]:
    path = resolve(entry)
    if path.is_dir():
        yield from _folder_videos(path)
    elif path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        yield from _listed_videos(path)
    elif path.is_file():
        yield _video(path, root=path.parent)
    elif glob.has_magic(entry):
        yield from _glob_videos(entry)
    else:
        tried = sorted({str(Path.cwd() / entry), str(CHECKOUT / entry)})
        siblings = os.listdir(path.parent) if path.parent.is_dir() else []
        raise ConfigError(
            f"videos: {entry!r} is neither a folder nor a file nor a glob (looked for "
            f"{' and '.join(tried)}).{nearest(path.name, siblings)}"
        )


def resolve(entry: str) -> Path:
    """`entry` in the working directory if it exists there, else in the checkout."""
    path = Path(os.path.expanduser(entry))
    if not path.exists() and (CHECKOUT / path).exists():
        return CHECKOUT / path
    return path


def _folder_videos(root: Path) -> Iterator[Video]:
    """Videos below `root`; follows links to folders once, leaves hidden files out."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                yield _video(Path(folder, name), root=root)


def _glob_videos(pattern: str) -> Iterator[Video]:
    parts = Path(os.path.expanduser(pattern)).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    base = root if root.exists() else CHECKOUT / root
    for match in sorted(glob.glob(os.path.join(*parts[fixed:]), root_dir=base, recursive=True)):
        if (base / match).is_file():
            yield _video(base / match, root=base)


def _listed_videos(list_file: Path) -> list[Video]:
    """Videos of a .txt list (a path a line, # comments) or a .csv list (path[,video_id])."""
    if list_file.suffix.lower() == ".csv":
        rows = read_csv(list_file)
        if rows and "path" not in rows[0]:
            raise ConfigError(f"videos: {str(list_file)!r} has no column 'path'; has {[*rows[0]]}")
    else:
        lines = list_file.read_text("utf-8-sig", "surrogateescape").split("\n")
        rows = [{"path": s} for line in lines if (s := line.strip()) and not s.startswith("#")]
    videos = [_listed_video(list_file, row, number) for number, row in enumerate(rows, start=1)]
    if videos and not any(video.mtime_ns for video in videos):
        raise ConfigError(
            f"videos: none of the {len(videos)} files that {str(list_file)!r} names exists, the "
            f"first being {videos[0].path!r} (relative paths start at {str(list_file.parent)!r})"
        )
    return videos


def _listed_video(list_file: Path, row: dict[str, str], number: int) -> Video:
    where = f"videos: row {number} of {str(list_file)!r}"
    if not row["path"] or (path := list_file.parent / os.path.expanduser(row["path"])).is_dir():
        raise ConfigError(f"{where} has the path {row['path']!r}; allowed: the path of a file")
    inside = path.is_relative_to(list_file.parent)
    video = _video(path, root=list_file.parent if inside else path.parent)
    video_id = row.get("video_id") or video.video_id
    if video_id.startswith("/") or {"", ".", ".."} & set(video_id.split("/")):
        raise ConfigError(
            f"{where} has the video_id {video_id!r}; allowed: names joined by '/', none of them "
            "empty, '.' or '..'"
        )
    return Video(video_id, video.path, video.size_bytes, video.mtime_ns)


def _video(path: Path, *, root: Path) -> Video:
    try:
        facts = path.stat()
        size_bytes, mtime_ns = facts.st_size, facts.st_mtime_ns
    except OSError:  # gone, or a broken link: becomes a row with the status "missing"
        size_bytes = mtime_ns = 0
    relative = path.relative_to(root).with_suffix("").as_posix()
    readable = os.fsencode(relative).decode("utf-8", "backslashreplace")
    return Video(readable, str(path), size_bytes, mtime_ns)
