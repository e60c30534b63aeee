"""`python -m mla_serve.train` as a user runs it: from a table to a bundle, with no serving package in sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command of the package where importing the named packages raises."""

    def command(*args: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        for package in without:
            fake = tmp_path / "fakes" / package
            fake.mkdir(parents=True, exist_ok=True)
            (fake / "__init__.py").write_text(f"raise ImportError('{package} must not be imported here')\n")
        root = str(Path(__file__).parents[2])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "fakes"), root]), "COLUMNS": "120"}
        return subprocess.run(
            [sys.executable, "-m", *args], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return command


def test_training_ends_in_a_bundle_and_never_imports_bentoml(
    run: Run, write_table: Callable[..., Path], tmp_path: Path
) -> None:
    flags = ["--epochs", "3", "--batch-size", "16", "--width", "16", "--seed", "7", "--device", "cpu"]
    done = run(
        "mla_serve.train", "--data", str(write_table()), "--name", "mine", "--modalities", "text", "numbers", *flags,
        without=("bentoml", "fastapi", "starlette"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "    mla-serve serve --model models/mine\n" in done.stdout
    assert sum(line.startswith("epoch") for line in done.stdout.splitlines()) == 3
    predictor = Predictor(Bundle.load(tmp_path / "models" / "mine"))
    assert predictor.predict([{"text": "rot"}])[0].missing == ["numbers"]


def test_an_unfinished_run_is_resumed_by_its_flag(run: Run, write_table: Callable[..., Path], tmp_path: Path) -> None:
    data = str(write_table())
    flags = (
        "mla_serve.train",
        "--data",
        data,
        "--name",
        "mine",
        "--batch-size",
        "16",
        "--width",
        "16",
        "--epochs",
        "2",
        "--augment",
        "none",
    )
    assert run(*flags).returncode == 0
    (tmp_path / "runs" / "mine" / "run.json").unlink()
    config = tmp_path / "runs" / "mine" / "config.json"
    told = json.loads(config.read_text())
    assert told["augment"] == "none"
    config.write_text(json.dumps({key: told[key] for key in told if key not in ("norm", "tune")}))  # an older run's
    done = run(*flags, "--resume")
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stdout.split("classes")[1].split("exporting")[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("mla_serve.train", "--data", "nowhere"), "nowhere"),
        (("mla_serve.train", "--strategy", "hope", "--data", "table"), "--strategy hope"),
        (("mla_serve", "export", "runs/nothing"), "is runs/nothing a finished run?"),
        (
            ("mla_serve", "predict", "--model", "models/none", "--text", "x"),
            "models/none/manifest.json: no such file",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    run: Run, write_table: Callable[..., Path], args: tuple[str, ...], message: str
) -> None:
    write_table()
    done = run(*args)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_torch_training_names_the_command_that_installs_it(run: Run) -> None:
    code = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'torch' else f(n, *a)\n"
    )
    code += "import runpy, sys; sys.argv = ['train']; runpy.run_module('mla_serve.train', run_name='__main__')"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("train", "--data", "no/such"), "does not exist; expected a table"),
        (("train", "--extend", "no/such"), "no/such/manifest.json: no such file"),
        (("export", "no/such"), "no/such/run.json: cannot be read"),
    ],
    ids=str,
)
def test_what_is_not_there_is_one_line(args: tuple[str, ...], told: str, run: Run) -> None:
    done = run("mla_serve", *args)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
