"""Who may import whom. Read from the sources, so that it holds for code that no test happens to run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "bentoml", "onnxruntime", "transformers", "peft")
MAY_IMPORT = {
    "mla_serve/train": {"torch"},
    "mla_serve/train/pretrained": {"torch", "transformers", "peft"},
    "mla_serve/serve": {"bentoml"},
    "mla_serve/runtime.py": {"onnxruntime"},
    "export": {"torch"},
}
MAY_NOT_IMPORT_OURS = {
    "mla_serve/train": ("mla_serve.serve",),
    "mla_serve/serve": ("mla_serve.train", "export"),
    "mla_serve": ("mla_serve.train", "mla_serve.serve", "export"),
    "export": ("mla_serve.serve",),
}
SOURCES = sorted(path.relative_to(ROOT) for top in ("mla_serve", "export") for path in (ROOT / top).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def imported_by_name(path: Path) -> Iterator[str]:
    """Yield what importlib.import_module and __import__ are called with, where that is written out."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (part.value for each in node.args for part in ast.walk(each) if is_text(part))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def place(path: Path, places: object) -> str:
    """Find the longest entry that a path lies in."""
    names = [name for name in places if path.as_posix().startswith(name)]  # type: ignore[attr-defined]
    return max(names, key=len, default="")


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    allowed = MAY_IMPORT.get(place(path, MAY_IMPORT), set())
    tops = {name.split(".")[0] for name in imported(path)}
    assert tops & set(HEAVY) <= allowed


@pytest.mark.parametrize("top", ["mla_serve", "export", "benchmarks", "deploy"])
def test_onnxruntime_is_imported_in_one_place(top: str) -> None:
    paths = {path.relative_to(ROOT) for path in (ROOT / top).rglob("*.py")} - {Path("mla_serve/runtime.py")}
    words = {str(path): [*imported(path), *imported_by_name(path)] for path in paths}
    assert [path for path, names in words.items() if any(name.split(".")[0] == "onnxruntime" for name in names)] == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_the_core_imports_no_wing_and_wings_not_each_other(path: Path) -> None:
    if path.as_posix() in ("mla_serve/train/__main__.py", "mla_serve/__main__.py"):
        return  # the commands: training ends with an export, and the list of commands names them all
    forbidden = MAY_NOT_IMPORT_OURS[place(path, MAY_NOT_IMPORT_OURS)]
    assert not [name for name in imported(path) if name.startswith(forbidden)]
