"""What `bentoml build` makes: what answering needs and nothing else, and it answers, from a folder nobody can write to."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
import yaml

from mla_serve import palette
from tests.load.service import free_port

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits"
VERSION = "9.9.9"  # of the built sources alone: tells that they run, and not those of this checkout
PATIENCE_S = 120
pytestmark = pytest.mark.slow


def environment(folder: Path) -> dict[str, str]:
    """What a container has: no home, no settings of this shell, one folder to write to."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLA_", "BENTOML_", "OTEL_"))}
    kept.pop("HOME", None)
    return kept | {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True", "TMPDIR": str(folder)}


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it once."""
    folder = tmp_path_factory.mktemp("bentoml")
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "-o", "tag"],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tag = done.stdout.partition("__tag__:")[2].split()[0]
    return folder / "bentos" / tag.replace(":", "/")


def files(bento: Path) -> set[str]:
    return {path.relative_to(bento / "src").as_posix() for path in (bento / "src").rglob("*") if path.is_file()}


def test_it_holds_what_answering_needs_and_nothing_else(bento: Path) -> None:
    found = files(bento)
    serving = [path for path in (ROOT / "mla_serve" / "serve").rglob("*") if path.suffix in (".py", ".js", ".css")]
    needed = {path.relative_to(ROOT).as_posix() for path in (*serving, palette.STYLE)}
    needed |= {path.relative_to(ROOT).as_posix() for path in DIGITS.rglob("*") if path.is_file()}
    assert needed - found == set()
    tops = {name.split("/")[0] for name in found}
    assert tops <= {"mla_serve", "models", "LICENSE", "bentofile.yaml"}
    assert not [name for name in found if name.startswith(("mla_serve/train", "export", "tests", "benchmarks"))]
    assert not [name for name in found if name.endswith((".pyc", ".pt", ".jsonl"))]
    assert {name.split("/")[1] for name in found if name.startswith("models/")} == {"digits"}


def test_no_source_in_it_imports_torch(bento: Path) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (bento / "src").rglob("*.py")]
    assert sources
    assert not [
        each for each in sources if re.search(r"^\s*(import|from) (torch|mla_serve\.train|export)\b", each, re.M)
    ]


def test_its_image_gets_no_torch(bento: Path) -> None:
    """Every package that the image installs, with all that they need, is in requirements.txt."""
    lines = (bento / "env" / "python" / "requirements.txt").read_text(encoding="utf-8").lower().splitlines()
    packages = {re.split(r"[=<>\[ ;]", line)[0] for line in lines if line and not line.startswith(("#", "-", " "))}
    assert {"bentoml", "numpy", "starlette"} <= packages
    assert not packages & {
        "torch",
        "torchvision",
        "onnx",
        "onnxscript",
        "pytest",
        "matplotlib",
        "scikit-learn",
        "pyarrow",
    }


def test_what_is_installed_is_what_the_tests_ran_with(bento: Path) -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    asked = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))["python"]["packages"]
    for package in asked:
        name, version = package.split("==")
        assert pins[name.partition("[")[0]] == version


@contextlib.contextmanager
def started(bento: Path) -> Iterator[tuple[httpx.Client, Path]]:
    """Serve a copy that cannot be written to, by one who may only write to one other folder."""
    with tempfile.TemporaryDirectory() as place:
        copy, spare, port = Path(place, "bento"), Path(place, "tmp"), free_port()
        shutil.copytree(bento, copy)
        version = copy / "src" / "mla_serve" / "__init__.py"
        version.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{VERSION}"', version.read_text()))
        spare.mkdir()
        for path in (copy, *copy.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
        command = [*as_nobody_special(), sys.executable, "-m", "bentoml", "serve", ".", "--host", "127.0.0.1"]
        variables = environment(spare / "bentoml") | {"TMPDIR": str(spare), "MLA_DEVICE": "cpu", "MLA_WORKERS": "2"}
        with (spare / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--port", str(port)], cwd=copy, env=variables, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_ready(client, process, spare / "log")
                yield client, copy
        finally:
            process.terminate()
            process.wait(60)
            for path in (copy, *copy.rglob("*")):
                path.chmod(path.stat().st_mode | 0o200)


def as_nobody_special() -> Sequence[str]:
    """Take the rights from root that let it write where it may not."""
    return () if os.getuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(10 * PATIENCE_S):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_it_answers_every_subset_from_a_folder_that_cannot_be_written_to(
    bento: Path, all_subsets: Callable[[Sequence[str]], list[tuple[str, ...]]]
) -> None:
    payloads = {
        "image": ("7.image", (DIGITS / "golden" / "7.image").read_bytes()),
        "audio": ("7.audio", (DIGITS / "golden" / "7.audio").read_bytes()),
        "text": (None, "sieben"),
    }
    with started(bento) as (client, copy):
        assert not os.access(copy, os.W_OK) or os.getuid() == 0
        assert client.get("/openapi.json").json()["info"]["version"] == VERSION
        for subset in all_subsets(tuple(payloads)):
            reply = client.post("/predict", files={name: payloads[name] for name in subset})
            assert reply.status_code == 200
            assert reply.json()["label"] == "7"
            assert set(reply.json()["modalities"]) == set(subset)
        assert "mla_samples_total" in client.get("/metrics").text
    assert not list(copy.rglob("__pycache__"))
