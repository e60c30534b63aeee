"""Who may import whom. Read from the sources, so that it holds for code that no test happens to run.

The layers, from the bottom. A module imports its own package and those below it, never one above:

    errors, telemetry, console, payloads, progress
    inputs   fusion
    bundle   table
    evaluation   client   output   bulk
    serve   train          which do not know each other
    export                 which knows train
    python, then sklearn
    commands

mla_serve/__init__.py offers names of the upper layers. It imports them when they are used first, so that is no circle.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mla_serve

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "bentoml", "onnxruntime", "transformers", "peft")
MAY_IMPORT = {
    "mla_serve/train": {"torch"},
    "mla_serve/train/pretrained": {"torch", "transformers", "peft"},
    "mla_serve/serve/bento": {"bentoml"},
    "mla_serve/bundle/runtime.py": {"onnxruntime"},
    "export": {"torch"},
}
LOWEST = {"errors", "telemetry", "console", "payloads", "progress", "decimals", "palette", "tasks"}
CORE = {*LOWEST, "inputs", "fusion", "bundle", "table", "evaluation", "output"}
MAY_KNOW = {  # package -> packages that it may import
    "": {"telemetry"},
    "errors": set(),
    "telemetry": set(),
    "console": {"errors"},
    "payloads": {"errors"},
    "decimals": set(),
    "palette": set(),
    "tasks": {"decimals"},
    "progress": {"console"},
    "inputs": LOWEST,
    "fusion": LOWEST,
    "bundle": {*LOWEST, "inputs", "fusion"},
    "table": {*LOWEST, "inputs"},
    "evaluation": {*LOWEST, "inputs", "fusion", "bundle", "table"},
    "client": {*LOWEST, "inputs", "bundle"},
    "output": {*LOWEST, "bundle"},
    "bulk": CORE - {"evaluation"},
    "serve": CORE - {"table", "evaluation", "output"},
    "train": CORE,
    "export": {*CORE, "train"},
    "python": {*CORE, "train", "export"},
    "sklearn": {*CORE, "python"},
    "commands": {*CORE, "bulk", "client", "serve", "train", "export"},
}
BENTO = Path("mla_serve/serve/bento")
# Parts that these libraries do not promise to keep. uvicorn.run and uvicorn.Config are public.
INTERNALS = (
    "_bentoml_impl",
    "_bentoml_sdk",
    "bentoml._internal",
    "circus",
    "prometheus_client.mmap_dict",
    "prometheus_client.values",
    "ray._private",
    "uvicorn.config",
    "uvicorn.loops",
    "uvicorn.protocols",
)
INTERNAL_WORDS = ("bentoml._internal", '"_internal"', "MmapedDict", "_upper_bounds", "ray._private")
SOURCES = sorted(
    path.relative_to(ROOT)
    for top in ("mla_serve", "export")
    for path in (ROOT / top).rglob("*.py")
    if "mla_serve/export" not in path.as_posix()
)


def imported(path: Path) -> Iterator[str]:
    """Yield the full name of everything that is imported: "mla_serve.errors.InputError".

    What mla_serve/__init__.py imports for type checkers only is left out; _LAZY names it again.
    """
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    if path == Path("mla_serve/__init__.py"):
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_by_name(path: Path) -> Iterator[str]:
    """Yield what importlib.import_module and __import__ are called with, where that is written out."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (part.value for each in node.args for part in ast.walk(each) if is_text(part))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def module_name(path: Path) -> str:
    """Name a source as it is imported: export/card.py is mla_serve.export.card."""
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith("mla_serve") else f"mla_serve.{name}"


MODULES = {module_name(path): path for path in SOURCES}


def ours(path: Path) -> Iterator[str]:
    """Yield the modules of this package that a source imports."""
    for name in imported(path):
        while name.startswith("mla_serve") and name not in MODULES:
            name = name.rpartition(".")[0]
        if name in MODULES:
            yield name


def place(path: Path, places: object) -> str:
    """Find the longest entry that a path lies in."""
    names = [name for name in places if path.as_posix().startswith(name)]  # type: ignore[attr-defined]
    return max(names, key=len, default="")


ALL = sorted(
    {*SOURCES, *(path.relative_to(ROOT) for top in ("benchmarks", "deploy") for path in (ROOT / top).rglob("*.py"))}
)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    allowed = MAY_IMPORT.get(place(path, MAY_IMPORT), set())
    tops = {name.split(".")[0] for name in imported(path)}
    assert tops & set(HEAVY) <= allowed


@pytest.mark.parametrize("top", ["mla_serve", "export", "benchmarks", "deploy"])
def test_onnxruntime_is_imported_in_one_place(top: str) -> None:
    paths = {path.relative_to(ROOT) for path in (ROOT / top).rglob("*.py")} - {Path("mla_serve/bundle/runtime.py")}
    words = {str(path): [*imported(path), *imported_by_name(path)] for path in paths}
    assert [path for path, names in words.items() if any(name.split(".")[0] == "onnxruntime" for name in names)] == []


def test_there_is_no_circle_of_imports() -> None:
    """Not between modules, and not where an import stands inside a function either."""
    graph = {name: set(ours(path)) - {name} for name, path in MODULES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def parts_of_serve() -> list[str]:
    """Read the parts of serve in the order of its docstring; a file directly in serve/ is a part of its own."""
    text = ast.get_docstring(ast.parse((ROOT / "mla_serve/serve/__init__.py").read_text(encoding="utf-8"))) or ""
    return re.findall(r"^(\w+)/?  ", text, re.MULTILINE)


def test_a_part_of_serve_imports_only_those_above_it_in_the_list() -> None:
    """So there is no circle between them."""
    parts = parts_of_serve()
    found = {name.split(".")[2] for name in MODULES if name.startswith("mla_serve.serve.")}
    assert sorted(found | {"web"}) == sorted(parts)
    wrong = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in ours(path)
        if name.startswith("mla_serve.serve.") and other.startswith("mla_serve.serve.")
        if parts.index(other.split(".")[2]) > parts.index(name.split(".")[2])
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["train"])
def test_subpackages_form_no_circle(package: str) -> None:
    """Neither between the packages in a package, nor with the modules that lie beside them."""
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if name.startswith(f"mla_serve.{package}."):
            part = name.split(".")[2]
            known = {other.split(".")[2] for other in ours(path) if other.startswith(f"mla_serve.{package}.")}
            graph.setdefault(part, set()).update(known - {part})
    assert len(graph) > 5
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name != "__main__.py"], ids=str)
def test_a_package_imports_only_those_below_it(path: Path) -> None:
    package = (*module_name(path).split("."), "")[1]
    known = {name.split(".")[1] for name in ours(path) if "." in name}
    assert known - {package} <= MAY_KNOW.get(package, set())


@pytest.mark.parametrize("path", [path for path in ALL if BENTO not in path.parents], ids=str)
def test_internals_of_libraries_are_touched_in_one_package(path: Path) -> None:
    """A new version of BentoML, uvicorn, circus, prometheus_client or Ray can then break one package only."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not [name for name in imported(path) if name.startswith(INTERNALS)]
    assert not [word for word in INTERNAL_WORDS if word in text]


def test_importing_the_package_imports_no_library() -> None:
    """`import mla_serve` costs nothing; what it offers is imported at its first use, and nothing of it imports torch."""
    code = (
        "import sys, mla_serve; assert not {'numpy', 'onnxruntime', 'torch', 'rich', 'PIL'} & sys.modules.keys(); "
        "assert {*mla_serve.__all__} <= {*dir(mla_serve)}; mla_serve.Predictor, mla_serve.load, mla_serve.Prediction; "
        "assert not {'torch', 'bentoml', 'sklearn', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_public_name_is_imported_for_type_checkers_from_where_it_is_taken() -> None:
    tree = ast.parse((ROOT / "mla_serve/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == mla_serve._LAZY
    assert {*told, "__version__"} == {*mla_serve.__all__}
