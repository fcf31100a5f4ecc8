"""From the config's `videos` to identified files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from reelstack.errors import ConfigError
from reelstack.files import CHECKOUT
from reelstack.ingest.inputs import VIDEO_SUFFIXES, Video, find_videos


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*paths: str | Path) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path.name))  # every file its own size or content


def ids(*entries: str) -> list[str]:
    return [video.video_id for video in find_videos(list(entries))]


def fails(*entries: str) -> str:
    with pytest.raises(ConfigError) as caught:
        find_videos(list(entries))
    return str(caught.value)


class TestFolders:
    def test_are_searched_recursively_for_video_suffixes(self) -> None:
        make("in/b.mp4", "in/sub/deep/a.MKV", "in/notes.txt", "in/cover.jpg", "in/c.webm")
        assert ids("in") == ["b", "c", "sub/deep/a"]

    @pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
    def test_know_the_suffix(self, suffix: str) -> None:
        make(f"in/a{suffix}", f"in/b{suffix.upper()}")
        assert ids("in") == ["a", "b"]

    def test_hidden_files_and_folders_are_left_out(self) -> None:
        make("in/a.mp4", "in/.b.mp4", "in/.trash/c.mp4", "in/._d.mp4")
        assert ids("in") == ["a"]

    def test_equal_stems_in_different_folders_are_different_videos(self) -> None:
        make("in/x/clip.mp4", "in/y/clip.mp4")
        videos = find_videos(["in"])
        assert [v.video_id for v in videos] == ["x/clip", "y/clip"]
        assert [v.path for v in videos] == ["in/x/clip.mp4", "in/y/clip.mp4"]

    def test_dots_in_names_stay(self) -> None:
        make("in/v1.2/take.3.mp4")
        assert ids("in") == ["v1.2/take.3"]

    def test_a_folder_named_like_a_video_is_no_video(self) -> None:
        make("in/frames.mp4/a.mp4")
        assert ids("in") == ["frames.mp4/a"]

    def test_the_same_folder_twice_is_no_clash(self, here: Path) -> None:
        make("in/a.mp4")
        assert ids("in", "in/", str(here / "in")) == ["a"]

    def test_home_is_expanded(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(here / "home"))
        make("home/in/a.mp4")
        assert ids("~/in") == ["a"]


class TestLinks:
    def test_to_files_and_folders_are_followed(self, here: Path) -> None:
        make("store/a.mp4", "store/more/b.mp4", "in/c.mp4")
        Path("in/linked.mp4").symlink_to(here / "store/a.mp4")
        Path("in/folder").symlink_to(here / "store/more")
        assert ids("in") == ["c", "folder/b", "linked"]

    def test_in_a_circle_end(self, here: Path) -> None:
        make("in/a.mp4", "in/sub/b.mp4")
        Path("in/sub/up").symlink_to(here / "in")
        assert ids("in") == ["a", "sub/b"]

    def test_that_lead_nowhere_are_kept_to_become_rows(self, here: Path) -> None:
        make("in/a.mp4")
        Path("in/gone.mp4").symlink_to(here / "nowhere.mp4")
        assert {v.video_id: v.size_bytes for v in find_videos(["in"])} == {"a": 5, "gone": 0}


class TestGlobs:
    def test_take_any_suffix_and_start_ids_after_the_fixed_part(self) -> None:
        make("in/2024/a.mp4", "in/2025/a.dat", "in/2025/b.mp4", "other/a.mp4")
        assert ids("in/*/a.*") == ["2024/a", "2025/a"]

    def test_two_stars_cross_folders(self) -> None:
        make("in/a.mp4", "in/x/y/b.mp4")
        assert ids("in/**/*.mp4") == ["a", "x/y/b"]

    def test_brackets_choose(self) -> None:
        make("in/take1.mp4", "in/take2.mp4", "in/take3.mp4")
        assert ids("in/take[12].mp4") == ["take1", "take2"]

    def test_brackets_in_a_real_name_are_just_a_name(self) -> None:
        make("in/take[1].mp4", "[set]/b.mp4")
        assert ids("in/take[1].mp4", "[set]") == ["b", "take[1]"]

    def test_absolute(self, here: Path) -> None:
        make("in/a.mp4")
        assert ids(f"{here}/in/*.mp4") == ["a"]

    def test_folders_that_match_are_no_videos(self) -> None:
        make("in/a.mp4", "in/sub.mp4/b.txt")
        assert ids("in/*.mp4") == ["a"]


class TestLists:
    def test_text_with_comments_and_blank_lines_relative_to_the_list(self, here: Path) -> None:
        make("data/a.mp4", "data/sub/b c.mp4", "elsewhere/d.dat")
        absolute = here / "elsewhere/d.dat"
        Path("data/list.txt").write_text(f"# mine\n\n a.mp4 \nsub/b c.mp4\n{absolute}\n")
        videos = find_videos(["data/list.txt"])
        assert [v.video_id for v in videos] == ["a", "d", "sub/b c"]
        assert [v.path for v in videos] == ["data/a.mp4", str(absolute), "data/sub/b c.mp4"]

    def test_csv_may_give_ids(self) -> None:
        make("data/a.mp4", "data/b.mp4")
        Path("data/l.csv").write_text('path,video_id,label\na.mp4,"set 1/first",x\nb.mp4,,y\n')
        assert ids("data/l.csv") == ["b", "set 1/first"]

    def test_csv_resolves_a_clash_of_stems(self) -> None:
        make("data/a.mp4", "data/a.mkv")
        Path("data/l.csv").write_text("path,video_id\na.mp4,one\na.mkv,two\n")
        assert ids("data/l.csv") == ["one", "two"]

    @pytest.mark.parametrize("name", ["l.txt", "l.csv"])
    def test_a_byte_order_mark_is_no_part_of_the_text(self, name: str) -> None:
        make("a.mp4")
        header = "path\n" if name.endswith("csv") else ""
        Path(name).write_text(f"{header}a.mp4\n", encoding="utf-8-sig")
        assert ids(name) == ["a"]

    def test_csv_with_a_short_row(self) -> None:
        make("a.mp4")
        Path("l.csv").write_text("video_id,path\nx,a.mp4\ny\n")
        assert "row 2 of 'l.csv' has the path None; allowed: the path of a file" in fails("l.csv")

    def test_csv_without_a_path_column(self) -> None:
        Path("l.csv").write_text("file,video_id\na.mp4,x\n")
        assert "'l.csv' has no column 'path'; has ['file', 'video_id']" in fails("l.csv")

    @pytest.mark.parametrize("name", ["l.txt", "l.csv"])
    def test_a_missing_file_is_kept_to_become_a_row(self, name: str) -> None:
        make("data/a.mp4")
        header = "path\n" if name.endswith("csv") else ""
        Path("data", name).write_text(f"{header}a.mp4\nb.mp4\n")
        found = {v.video_id: (v.path, v.fingerprint) for v in find_videos([f"data/{name}"])}
        assert found["b"] == ("data/b.mp4", "0:0")
        assert found["a"][1] != "0:0"

    def test_a_list_of_which_nothing_exists_is_an_error(self) -> None:
        make("data/other.mp4")
        Path("data/l.txt").write_text("x/a.mp4\nx/b.mp4\n")
        text = fails("data/l.txt")
        assert "none of the 2 files that 'data/l.txt' names exists" in text
        assert "'data/x/a.mp4'" in text

    @pytest.mark.parametrize("video_id", ["../a", "/etc/a", "x//y", "x/./y", ".."])
    def test_ids_that_would_leave_the_output_folder(self, video_id: str) -> None:
        make("a.mp4")
        Path("l.csv").write_text(f"path,video_id\na.mp4,{video_id}\n")
        text = fails("l.csv")
        assert f"row 1 of 'l.csv' has the video_id {video_id!r}" in text
        assert "allowed: names joined by '/'" in text

    def test_an_empty_list_matches_nothing(self) -> None:
        Path("l.txt").write_text("# nothing yet\n")
        assert "'l.txt' matches no video" in fails("l.txt")

    def test_odd_names_and_windows_line_ends(self) -> None:
        make("-dash.mp4", "u\u2028nusual.mp4")
        Path("l.txt").write_text("-dash.mp4\r\nu\u2028nusual.mp4\r\n", encoding="utf-8", newline="")
        assert ids("l.txt") == ["-dash", "u\u2028nusual"]


class TestErrors:
    def test_a_missing_entry_names_both_places_and_the_nearest_spelling(self, here: Path) -> None:
        make("holiday_videos/a.mp4")
        text = fails("holliday_videos")
        assert "'holliday_videos' is neither a folder nor a file nor a glob" in text
        assert str(here / "holliday_videos") in text
        assert str(CHECKOUT / "holliday_videos") in text
        assert "Did you mean 'holiday_videos'?" in text

    def test_a_folder_without_videos(self) -> None:
        make("in/a.txt")
        assert "'in' matches no video. A folder is searched for files with a video" in fails("in")

    def test_a_glob_without_match(self) -> None:
        make("in/a.txt")
        assert "'in/*.mp4' matches no video" in fails("in/*.mp4")

    def test_one_empty_entry_among_good_ones(self) -> None:
        make("in/a.mp4")
        Path("empty").mkdir()
        assert "'empty' matches no video" in fails("in", "empty")

    def test_a_clash_names_both_files_and_the_ways_out(self) -> None:
        make("x/clip.mp4", "y/clip.mp4")
        text = fails("x", "y")
        assert "two files have the id 'clip'" in text
        assert "'x/clip.mp4'" in text
        assert "'y/clip.mp4'" in text
        assert "common parent folder" in text

    def test_two_suffixes_of_one_stem_clash(self) -> None:
        make("in/clip.mp4", "in/clip.mkv")
        text = fails("in")
        assert "'in/clip.mp4'" in text
        assert "'in/clip.mkv'" in text


class TestWhereEntriesStart:
    def test_in_the_working_directory_first(self) -> None:
        make("resources/demo/videos/mine.mp4")
        assert ids("resources/demo/videos") == ["mine"]

    def test_in_the_checkout_else(self) -> None:
        demo = find_videos(["resources/demo/videos"])
        assert {v.video_id for v in demo} >= {"move_left", "more/zoom_in", "truncated"}
        assert all(v.path.startswith(f"{CHECKOUT}/") for v in demo)

    def test_globs_too(self) -> None:
        assert ids("resources/demo/videos/move_l*.mp4") == ["move_left"]


NAMES = [
    "with space",
    " leading and trailing ",
    'quote\'s "double"',
    "ünïcödé 视频 🎬",
    "-leading-dash",
    "line\nbreak",
    "semi;colon & $(touch x) `y`",
    "percent %d {braces} #hash",
    "comma,colon:pipe|star*",
    "back\\slash",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_found_as_they_are(name: str) -> None:
    make(f"in/{name}/{name}.mp4")
    (video,) = find_videos(["in"])
    assert video.video_id == f"{name}/{name}"
    assert Path(video.path).read_bytes() == os.fsencode(f"{name}.mp4")
    assert find_videos([f"in/{name}/{name}.mp4"])[0].video_id == name


def test_names_that_are_no_utf8_have_readable_ids() -> None:
    path = os.fsdecode(b"in/caf\xe9.mp4")
    make(path)
    (video,) = find_videos(["in"])
    assert video.video_id == r"caf\xe9"
    assert video.path == path


def test_the_fingerprint_sees_size_and_mtime() -> None:
    make("a.mp4")
    os.utime("a.mp4", ns=(5, 123))
    (video,) = find_videos(["a.mp4"])
    assert video == Video("a", "a.mp4", 5, 123)
    assert video.fingerprint == "5:123"


def test_a_single_file_may_have_any_suffix() -> None:
    make("recording.dat")
    assert ids("recording.dat") == ["recording"]
