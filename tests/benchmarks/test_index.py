"""benchmarks/README.md lists every benchmark, with a make target that runs it and results that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
LINES = [line for line in (FOLDER / "README.md").read_text().splitlines() if "| `make " in line]
SCRIPTS = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob("*.py")
    if "__main__" in path.read_text() and "peers" not in path.parts
)


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def listed_scripts() -> list[str]:
    return sorted(link for line in LINES for link in links(line) if link.endswith(".py"))


def test_every_script_has_one_line() -> None:
    assert listed_scripts() == SCRIPTS


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("`")[1].split()[1])
def test_the_target_of_a_line_runs_its_script_and_its_results_exist(line: str) -> None:
    target, script = line.split("`")[1].split()[1], next(link for link in links(line) if link.endswith(".py"))
    module = "benchmarks." + script.removesuffix(".py").replace("/", ".")
    rule = (ROOT / "Makefile").read_text().split(f"\n{target}:")[1].split("\n\n")[0]
    assert f"-m {module} " in rule
    docstring = (FOLDER / script).read_text().split('"""')[1]
    assert f"`make {target}`" in docstring
    assert f"python -m {module}" in docstring


def test_every_link_leads_to_a_file_and_every_result_is_listed() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [link for link in links(text) if not (FOLDER / link).exists()] == []
    results = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*.*")
        if path.suffix in (".json", ".md", ".svg", ".parquet") and path.name != "README.md"
    }
    assert results == {link for line in LINES for link in links(line) if not link.endswith(".py")}
    assert all((FOLDER / result).with_suffix(".py").exists() for result in results)


def test_results_name_no_folder_of_the_machine_that_measured() -> None:
    paths = {path.name: re.findall(r'"(/[^"]*)"', path.read_text()) for path in sorted(FOLDER.rglob("*.json"))}
    assert len(paths) >= 5
    assert {name: found for name, found in paths.items() if found} == {}
