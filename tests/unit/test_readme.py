"""README.md says what the library says."""

from __future__ import annotations

import pytest
from reelstack.cli import main
from reelstack.files import CHECKOUT


def test_the_table_of_models_is_that_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--markdown"]) == 0
    text = (CHECKOUT / "README.md").read_text()
    start, end = (
        "<!-- written by `python -m reelstack models --markdown` -->",
        "<!-- end of the table",
    )
    assert text.split(start)[1].split(end)[0].strip() == capsys.readouterr().out.strip()
