"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from reelstack.files import CHECKOUT
from reelstack.models.entries import ENTRIES, OPEN_ENTRIES

CODE = sorted((CHECKOUT / "scripts").rglob("*.py"))
RULES = sorted((CHECKOUT / "workflow").rglob("*.smk"))
FAMILIES = sorted({entry.family for entry in (*ENTRIES, *OPEN_ENTRIES)})
HEAVY = ("reencode", "extract", *(f"extract_{family}" for family in FAMILIES), "aggregate")


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def rule_blocks(path: Path) -> dict[str, list[str]]:
    """Rule name → its lines, trailing blank ones left out."""
    blocks: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in path.read_text().splitlines():
        start = re.match(r"(?:rule|checkpoint) (\w+):|use rule \w+ as (\w+) with:", line)
        if start:
            current = blocks[start[1] or start[2]] = [line]
        elif current is not None and (not line or line.startswith(" ")):
            current.append(line)
        else:
            current = None
    return {name: "\n".join(lines).rstrip().split("\n") for name, lines in blocks.items()}


BLOCKS = {
    name: lines
    for path in (*RULES, CHECKOUT / "Snakefile")
    for name, lines in rule_blocks(path).items()
}


def test_the_rules_are_found() -> None:
    expected = {"all", "probe", "fetch_weights", "reencode", "extract", "aggregate"}
    assert expected <= BLOCKS.keys()
    families = {name.removeprefix("extract_") for name in BLOCKS if name.startswith("extract_")}
    assert families <= set(FAMILIES), "a rule for no family"


def test_the_snakefile_only_includes() -> None:
    text = (CHECKOUT / "Snakefile").read_text()
    assert len(text.splitlines()) <= 50
    assert not re.search(r"^\s*(def|if|for|while|lambda|import (?!.*min_version))\b", text, re.M)
    assert "min_version(" in text
    included = set(re.findall(r'^include: "(.+)"', text, re.M))
    assert included == {name_of(path) for path in RULES}


@pytest.mark.parametrize("path", [*CODE, *RULES], ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 40, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_errors_are_never_swallowed_whole(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            names = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
            if names & {"Exception", "BaseException"}:
                raises = any(isinstance(n, ast.Raise) for n in ast.walk(node))
                assert raises, f"line {node.lineno} hides every error"


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_snakemake_is_known_to_the_bindings_only(path: Path) -> None:
    names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
    is_binding = path.parent == CHECKOUT / "scripts"
    assert ("snakemake" in names) is is_binding


@pytest.mark.parametrize("path", [p for p in CODE if p.parent.name == "scripts"], ids=name_of)
def test_bindings_are_thin(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    *imports, block = tree.body[1:]
    assert all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in imports)
    assert isinstance(block, ast.If)
    assert ast.unparse(block.test) == "__name__ == '__main__'"
    assert block.end_lineno is not None
    assert block.end_lineno - block.lineno + 1 <= 15
    (first,) = block.body
    assert isinstance(first, ast.With), "the first act is the log"
    assert ast.unparse(first.items[0]) == "job_log(snakemake.log[0])"


@pytest.mark.parametrize("path", RULES, ids=name_of)
def test_a_phase_says_what_it_needs_and_does(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""')
    head = text.split('"""')[1]
    assert "Required:" in head
    assert "Steps:" in head


@pytest.mark.parametrize("rule", BLOCKS)
def test_rules_are_short(rule: str) -> None:
    assert len(BLOCKS[rule]) <= 30


@pytest.mark.parametrize("rule", [name for name in BLOCKS if name != "all"])
class TestEveryRule:
    """Every rule but the target."""

    def test_has_a_docstring(self, rule: str) -> None:
        assert BLOCKS[rule][1].strip().startswith('"""'), "none of its own"

    def test_has_log_and_environment(self, rule: str) -> None:
        directives = {line.strip().rstrip(":") for line in BLOCKS[rule] if line.endswith(":")}
        assert {"log", "conda"} <= directives

    def test_names_its_log_and_benchmark_after_itself(self, rule: str) -> None:
        text = "\n".join(BLOCKS[rule])
        assert re.search(rf'"<logs>/{rule}[/.]', text)
        if "benchmark:" in text:
            assert re.search(rf'"<benchmarks>/{rule}[/.]', text)

    def test_has_an_environment_that_exists(self, rule: str) -> None:
        (file,) = re.findall(r'"\.\./\.\./(envs/\w+\.yaml)"', "\n".join(BLOCKS[rule]))
        assert (CHECKOUT / file).is_file()

    def test_glues_no_path_and_prints_no_message(self, rule: str) -> None:
        text = "\n".join(BLOCKS[rule])
        assert '" +' not in text
        assert "message:" not in text
        assert "rules." not in text


@pytest.mark.parametrize("rule", HEAVY)
def test_heavy_rules_are_measured(rule: str) -> None:
    assert "    benchmark:" in BLOCKS[rule]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_for_each_family(family: str) -> None:
    assert (CHECKOUT / "scripts/reelstack/models" / f"{family}.py").is_file()
    text = "\n".join(BLOCKS[f"extract_{family}"])
    assert f'sets_pattern("{family}")' in text
    assert f"envs/{family}.yaml" in text
