"""The command line, called as a function."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from media_factory import write_video
from reelstack.cli import main
from reelstack.files import CHECKOUT
from reelstack.models.entries import OPEN_ENTRIES
from reelstack.models.registry import MODELS
from store_factory import make_rows, write_store

TINY = "r2plus1d_tiny_motion"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def table_of(text: str) -> dict[str, dict[str, str]]:
    """First column → column → cell of a table whose columns start where the rules do."""
    header, rules, *rows = text.splitlines()
    starts = [match.start() for match in re.finditer("-+", rules)]
    columns = list(pairwise([*starts, None]))
    names = [header[slice(*column)].strip() for column in columns]
    cells = [[row[slice(*column)].strip() for column in columns] for row in rows]
    return {row[0]: dict(zip(names, row, strict=True)) for row in cells}


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "models")
    assert status == 0
    text, _, notes = out.partition("\n\n")
    assert "·: " in notes
    assert "resources/weights.yaml" in notes
    rows = table_of(text)
    assert list(rows) == [*MODELS, *(entry.name for entry in OPEN_ENTRIES)]
    wide = rows["r2plus1d_34_32_ig65m_ft_kinetics"]
    facts = ("stack/step", "dim", "classes", "GMAC/window", "weights", "extra")
    assert [wide[k] for k in facts] == ["32/32", "512", "400", "152.36", "to fetch", ""]
    assert wide["licence"].startswith("MIT")
    assert rows[TINY]["weights"] == "in the checkout"
    assert rows["vggish"]["stack/step"] == "0.96 s"
    assert rows["r2plus1d_pytorch"]["weights"] == "give your own"
    anything = rows["hf/<repo or folder>"]
    assert [anything[k] for k in facts] == ["·/·", "·", "·", "·", "to fetch", "hf"]


def test_models_for_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    """What is on this disk does not belong there."""
    status, out, _ = run(capsys, "models", "--markdown")
    assert status == 0
    header, _, *rows = out.splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")][-1] == "extra"
    names = [*MODELS, *(entry.name for entry in OPEN_ENTRIES)]
    assert [row.split("|")[1].strip() for row in rows] == [f"`{name}`" for name in names]


def test_show_with_other_keys_of_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=40)
    given = ("--model", TINY, "--device", "cpu", "--top-k", 0)
    wanted = ("layer=layer2", "stack_size=8", "step_size=30", f"keep_frames={tmp_path / 'kept'}")
    options = [text for option in wanted for text in ("--option", option)]
    status, out, _ = run(capsys, "show", video, *given, *options)
    assert (status, out.splitlines()[1]) == (0, "rgb: shape (2, 40), float32")
    assert len(list((tmp_path / "kept").iterdir())) == 16  # 0–7 and 30–37
    status, _, error = run(capsys, "show", video, *given, "--option", "layer")
    assert (status, error) == (1, "error: --option is 'layer'; allowed: KEY=VALUE\n")


def test_show_with_a_checkpoint_of_a_component(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("show", "v.mp4", "--model", "i3d_kinetics400", "--option", "streams=[rgb]")
    status, _, error = run(capsys, *given, "--weights", "rgb=nowhere.pt")
    assert status == 1
    assert "weights of i3d_kinetics400 (rgb): nowhere.pt" in error
    status, _, error = run(capsys, *given, "--weights", "sound=nowhere.pt")
    assert "weights has the component 'sound'; i3d_kinetics400 has: rgb, flow" in error


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "-a b.mp4", num_frames=40)
    options = ("--model", TINY, "--device", "cpu", "--tail", "pad", "--top-k", 2)
    status, out, _ = run(capsys, "show", *options, "--", video)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"{video}: 40 frames at 25 fps, 64×48, status ok"
    assert lines[1] == "rgb: shape (3, 64), float32"
    assert lines[2].split()[::2] == ["max", "mean", "min", "std"]
    assert [line.split() for line in lines[3::3]] == [
        ["0.00", "–", "0.64", "s"],
        ["0.64", "–", "1.28", "s"],
        ["1.28", "–", "1.60", "s"],
    ]
    labels = (CHECKOUT / "resources/demo/labels.txt").read_text().splitlines()
    for line in (*lines[4:6], *lines[7:9]):
        score, name = line.split(maxsplit=1)
        assert 0 <= float(score) <= 1
        assert name in labels


def test_show_a_short_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "a.mp4", num_frames=3)
    status, out, _ = run(capsys, "show", video, "--model", TINY, "--device", "cpu")
    assert status == 0
    assert "status too_short (3 frames do not fill one window of 16" in out
    assert "rgb: shape (0, 64), float32" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "gone.mp4", "--model", TINY), "error: gone.mp4: no such file"),
        (("show", "gone.mp4", "--model", "resnet5"), "error: model is 'resnet5'; allowed: "),
        (("show", "text.mp4", "--model", TINY), "error: text.mp4: cannot be opened as a video"),
        (("show", "v.mp4", "--model", TINY, "--weights", "w.pth"), "w.pth is no file"),
        (("show", "v.mp4", "--model", TINY, "--stack-size", "-2"), "stack_size is -2"),
        (("summary", "nothing"), "error: nothing/manifest.csv: no such manifest"),
        (("export", "nothing"), "error: 'nothing' is no Zarr store"),
    ],
)
def test_a_bad_input_is_status_1_and_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.mp4", num_frames=3)
    (tmp_path / "text.mp4").write_text("no video")
    status, out, err = run(capsys, *arguments)
    assert status == 1
    assert message in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize("arguments", [(), ("shwo",), ("show", "v.mp4"), ("export",)])
def test_a_wrong_call_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    assert "usage: python -m reelstack" in capsys.readouterr().err


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(tmp_path / "p", {"a": 3, "b": 1})
    write_store(tmp_path / "s.zarr", {"x": rows, "y": rows})
    target = ("--out", tmp_path / "out")
    status, _, err = run(capsys, "export", tmp_path / "s.zarr", *target)
    assert status == 1
    assert "--set NAME" in err
    status, out, _ = run(
        capsys, "export", tmp_path / "s.zarr", *target, "--set", "x", "--format", "pickle"
    )
    assert (status, out) == (0, f"2 files written to {tmp_path / 'out'}\n")
    assert len(list((tmp_path / "out").rglob("*.pkl"))) == 2


def test_a_reader_that_has_seen_enough() -> None:
    """`python -m reelstack models | head -0` says nothing of a broken pipe."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "scripts")}
    command = f'"{sys.executable}" -u -m reelstack models | head -n 0'
    answer = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.stderr == ""
