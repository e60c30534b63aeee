"""The documentation does what it says: every block of code is run, and every link inside the repository leads somewhere.

A block that cannot run here is listed in NOT_RUN with the reason; a new block is run unless it is listed. The blocks of
the tutorial build on each other, so they have a test of their own.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Column, ColumnsInput
from mla_serve.serve.api import create_app
from mla_serve.serve.settings import Settings

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```([a-z]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDRESS = "localhost:3000"
NOT_CODE = ("text", "json")

# The start of a block -> why it is not run.
NOT_RUN = {
    "make serve\n": "makes an environment and does not end; tests/serve/bento/test_service.py starts the service",
    "make train": "makes an environment; `mla-serve train` does the same, see tests/train",
    "pip install": "would change the environment of the tests",
    "python3 -m venv": "makes an environment",
    "mla-serve evaluate": "needs the data set, which is not in the repository",
    "mla-serve recalibrate": "needs labelled rows; tests/export/test_recalibrate.py runs the command",
    "newer = mla_serve.load": "needs labelled rows; tests/export/test_recalibrate.py does the same",
    "from datasets import": "needs `datasets` and the network; tests/table/test_find_tables.py reads what it writes",
    "mla-serve train --modalities image audio": "takes minutes of all cores; tests/export/test_export_extension.py extends a bundle",
    "import pandas as pd\n\nimport mla_serve\n\nframe = pd.read_csv": "needs a table; tests/train/test_notebook.py does the same",
    "measured = model.evaluate": "needs the model of the block before; tests/train/test_notebook.py does the same",
    "from sklearn.model_selection": "trains several times; tests/train/test_sklearn.py does the same",
    "torchrun": "trains for minutes on all cores; tests/train/distributed/test_distributed.py runs these commands on a small table",
    "mkdir -p ~/": "writes into the home folder; tests/commands/test_commands.py looks at the script",
}
NEEDS_TORCH = "mla-serve train"
USERS_ERROR = 2  # the exit code for what the user can mend


def blocks(page: Path) -> list[tuple[str, str]]:
    """List the blocks of a page: language and content."""
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def reason(content: str) -> str | None:
    """Say why a block is not run; None where it is."""
    return next((why for start, why in NOT_RUN.items() if content.startswith(start)), None)


def cases() -> list[Any]:
    """List what is run."""
    found = []
    for page in PAGES:
        for number, (language, content) in enumerate(blocks(page), 1):
            if page != TUTORIAL and language not in NOT_CODE and reason(content) is None:
                marks = [pytest.mark.slow] if NEEDS_TORCH in content else []
                found.append(pytest.param(language, content, id=f"{page.name}-{number}-{language}", marks=marks))
    return found


SHOP = ColumnsInput(
    (
        Column("price", "number", low=1.0, high=250.0, middle=20.0, spread=40.0),
        Column("brand", "category", ("Acme", "Other")),
        Column("listed", "date", low=19_000.0, high=20_000.0, spread=300.0),
        Column("in stock", "yes_no"),
    )
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    """Lay out what a reader has in a clone: models/digits, or where that is not there one that reads and says as much."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("mla_serve", "export", "docs", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "models").mkdir()
    if (DIGITS / "manifest.json").is_file():
        shutil.copytree(DIGITS, folder / "models" / "digits")
    else:
        kinds = {name: name for name in ("image", "audio", "text")}
        target = make_bundle(folder / "models" / "digits", kinds, [str(digit) for digit in range(10)], golden=8)
        for kind in ("image", "audio"):
            shutil.copy(target / "golden" / f"7-{kind}", target / "golden" / f"7.{kind}")
    make_bundle(folder / "models" / "shop", {"columns": "columns"}, inputs={"columns": SHOP})
    for number, label in enumerate(("cat", "dog") * 5):
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        picture = np.full((8, 8), 20 * number, dtype=np.uint8)
        Image.fromarray(picture).save(folder / "photos" / label / f"{number}.png")
    return folder


@contextlib.contextmanager
def serving(model: Path) -> Iterator[str]:
    """Serve a bundle; gives the address, which stands for localhost:3000 of the pages."""
    settings = Settings(model=model, device="cpu")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_app(Predictor(Bundle.load(settings.model)), settings)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="module")
def address(workplace: Path) -> Iterator[str]:
    """Serve the workplace's model."""
    with serving(workplace / "models" / "digits") as address:
        yield address


@pytest.fixture(scope="module")
def shop_address(workplace: Path) -> Iterator[str]:
    """Serve a model of products, which has columns."""
    with serving(workplace / "models" / "shop") as address:
        yield address


@pytest.mark.parametrize(("language", "content"), cases())
def test_a_block_runs(workplace: Path, address: str, shop_address: str, language: str, content: str) -> None:
    served = shop_address if "columns" in content else address
    output = run_block(language, content.replace(ADDRESS, served), workplace)
    if "curl" in content:
        assert ("/problems/" in output) == ("no image" in content or "image=sieben" in content), output


def run_block(language: str, content: str, folder: Path) -> str:
    """Run a block of Python or bash in a folder; return what it prints."""
    if language == "python":
        return run([sys.executable, "-c", content], folder)
    assert language == "bash", f"a block of {language}: say in the test how it is run"
    if "curl" in content and not shutil.which("curl"):
        pytest.skip("there is no curl")
    return run(["bash", "-euo", "pipefail", "-c", content.replace("curl ", "curl -sS ")], folder)


@pytest.mark.slow
def test_the_tutorial_works_from_its_first_block_to_its_last(tmp_path: Path) -> None:
    outputs = []
    with contextlib.ExitStack() as stack:
        address = ADDRESS
        for language, content in blocks(TUTORIAL):
            if content.startswith("mla-serve serve"):
                address = stack.enter_context(serving(tmp_path / "models" / "shapes"))
            elif "2 faults in the data set" in content:
                refused = f"mla-serve train --data shapes 2>&1 || [ $? = {USERS_ERROR} ]"
                for line in run_block("bash", refused, tmp_path).splitlines()[1:]:
                    assert line in content
            elif language not in NOT_CODE and reason(content) is None:
                outputs.append(run_block(language, content.replace(ADDRESS, address), tmp_path))
    head, trained, both, unclear, asked, client, table, loaded = outputs[1:]
    assert head.splitlines()[:2] == [
        "id,category,image,description,price,material,made",
        '1000,square,pictures/0.png,"a shape, new",7.11,,2025-05-03',
    ]
    assert "models/shapes is ready" in trained
    assert both.startswith("square ")
    assert float(unclear.split()[1].rstrip("%")) < 70
    assert json.loads(asked)["label"] == "square"
    assert client.startswith("square ")
    assert "['circle', 'triangle', 'square']" in client
    assert re.search(r"^description: \d+ texts", trained, re.MULTILINE)
    assert [row["label"] for row in ast.literal_eval(table.splitlines()[-1])] == ["square", "circle", None]
    assert loaded.startswith("<ClassPrediction 'circle' ")


def test_the_examples_of_tasks_print_what_the_page_shows(workplace: Path) -> None:
    found = blocks(ROOT / "docs" / "explanation" / "tasks.md")
    pairs = [(code, shown) for (language, code), (_, shown) in itertools.pairwise(found) if language == "python"]
    assert len(pairs) == 2
    for code, shown in pairs:
        assert run_block("python", code, workplace) == shown


def run(command: list[str], folder: Path) -> str:
    """Run a command as a reader whose environment is active; return what it prints on standard output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLA_")}
    environment |= {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    return done.stdout.decode()


def test_the_list_of_what_is_not_run_is_not_longer_than_it_must_be() -> None:
    contents = [content for page in PAGES for _, content in blocks(page)]
    assert [start for start in NOT_RUN if not any(content.startswith(start) for content in contents)] == []


def test_python_that_is_not_run_compiles() -> None:
    for page in PAGES:
        for language, content in blocks(page):
            if language == "python":
                compile(content, page.name, "exec")


def test_the_folders_of_the_page_are_a_data_set(workplace: Path) -> None:
    from mla_serve.table import read_table

    table = read_table(workplace / "photos")
    assert table.classes == ("cat", "dog")
    assert sum(len(rows) for rows in table.splits.values()) == 10


def test_every_suffix_of_a_table_is_documented_and_no_other() -> None:
    from mla_serve.table.formats import READERS

    page = (ROOT / "docs" / "reference" / "data-format.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\.[a-z`., ]*`) \|", page, re.MULTILINE)
    documented = {suffix for row in rows for suffix in re.findall(r"`(\.[a-z]+)`", row)}
    assert documented == {suffix for suffix in READERS if not suffix.endswith(".gz")}


def test_the_json_of_the_pages_is_json() -> None:
    for page in PAGES:
        for language, content in blocks(page):
            if language == "json":
                json.loads(content)


def test_what_is_generated_is_current() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "110")
        patch.setenv("NO_COLOR", "1")
        old = [str(path.relative_to(ROOT)) for path, *_ in generate.stale((DIGITS / "manifest.json").is_file())]
    assert old == [], "run: python docs/generate.py"


LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """List the anchors that GitHub, and the site, give to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_commands_have_one_spelling() -> None:
    """`mla-serve COMMAND`; that `python -m` works as well is said in the text of one page."""
    found = [(page.name, content) for page in PAGES for _, content in blocks(page) if "python -m mla_serve" in content]
    assert found == []


def test_the_citation_names_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_a_vector_in_a_csv_table_is_written_in_the_documented_ways(tmp_path: Path) -> None:
    from mla_serve.table import read_table

    page = (ROOT / "docs" / "reference" / "data-format.md").read_text(encoding="utf-8")
    forms = ["[1, 2]", "[1. 2.]", "1 2", "1;2", "1,2"]
    assert (
        f"| cell of a CSV table | {', '.join(f'`{form}`' for form in forms[:-1])} or, in quotes, `{forms[-1]}` |"
        in page
    )
    (tmp_path / "dataset.json").write_text('{"modalities": {"numbers": "vector"}}')
    rows = [f'train,{label},"{form}"' for label in ("a", "b") for form in forms]
    (tmp_path / "rows.csv").write_text("\n".join(["split,label,numbers", *rows]))
    assert [row.values["numbers"] for row in read_table(tmp_path).splits["train"]] == [(1.0, 2.0)] * 2 * len(forms)
