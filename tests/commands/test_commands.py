"""The commands as a person types them: what is printed where, exit codes, pipes, what is not imported."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import setuptools

from mla_serve import __version__, console
from mla_serve.__main__ import COMMANDS, main
from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Payload

ROOT = Path(__file__).parents[2]
BAR = "█"
ESCAPE = "\x1b"


def run(*args: object, stdin: bytes = b"", code: int = 0) -> Any:
    """Run a command in this process, which is quick, at the end of a pipe; check the exit code."""
    output, errors = io.StringIO(), io.StringIO()
    words = [str(arg) for arg in args]
    ended: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            patch.delenv(name, raising=False)
        patch.setattr(sys, "argv", ["mla-serve", *words])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                main(words)
            except SystemExit as end:
                ended = end.code or 0
    assert ended == code, (ended, output.getvalue(), errors.getvalue())
    return argparse.Namespace(stdout=output.getvalue(), stderr=errors.getvalue())


def run_process(*args: object, code: int = 0, path: Path | None = None, **variables: str) -> Any:
    """Run `python -m mla_serve ARGS` as a user does, where the whole process matters."""
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    folders = [str(path)] if path else []
    environment |= {"PYTHONPATH": os.pathsep.join([*folders, str(ROOT)]), "PYTHONUTF8": "1", **variables}
    command = [sys.executable, "-m", "mla_serve", *map(str, args)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False, encoding="utf-8")
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def one_line(done: Any) -> str:
    """Return what went to standard error, which shall be one line."""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, sample: dict[str, Payload]) -> dict[str, Path]:
    """Write the sample's image and sound."""
    folder = tmp_path_factory.mktemp("files")
    contents = {name: payload for name, payload in sample.items() if isinstance(payload, bytes)}
    for name, payload in contents.items():
        (folder / name).write_bytes(payload)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize("args", [(), ("--help",), ("help",)])
def test_the_commands_are_listed_with_one_line_each(args: tuple[str, ...]) -> None:
    lines = run(*args).stdout.splitlines()
    for name, command in COMMANDS.items():
        assert [line for line in lines if line.split()[:1] == [name] and command.does in line]


def test_the_version_is_told() -> None:
    assert run("--version").stdout == f"{__version__}\n"


FAKES = ("torch", "onnxruntime", "bentoml")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of packages that cannot be imported."""
    folder = tmp_path_factory.mktemp("fakes")
    for name in FAKES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')\n")
    return folder


@pytest.mark.parametrize("args", [(), *((name, "--help") for name in ("predict", "train", "ask"))], ids=str)
def test_help_imports_nothing_heavy(without: Path, args: tuple[str, ...]) -> None:
    assert "usage: " in run_process(*args, path=without).stdout


def test_training_without_its_extra_names_the_command_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
    )
    flags = ("--model", "none", "--data", "none", "--out", "none")
    for command in (("train",), ("export", "runs/none"), ("recalibrate", *flags)):
        line = one_line(run_process(*command, code=2, path=tmp_path))
        assert "torch" in line.split(" not installed; run: pip install")[0]
        assert "pip install -c constraints.txt -e '.[cpu,train]'" in line
        assert "--data" in run("train", "--help").stdout


def test_an_answer_is_drawn(tiny_bundle: Path, files: dict[str, Path], predictor: Predictor) -> None:
    done = run("predict", "--model", tiny_bundle, "--image", files["image"], "--text", "seven")
    expected = predictor.predict([{"image": files["image"].read_bytes(), "text": "seven"}])[0]
    assert done.stdout.split()[:2] == [expected.label, f"{expected.probability:.1%}"]
    assert BAR in done.stdout
    assert ESCAPE not in done.stdout
    assert "missing: audio, vector" in done.stdout
    assert done.stderr == ""


def test_no_color_is_respected_where_colour_is_forced(tiny_bundle: Path) -> None:
    args = ("predict", "--model", tiny_bundle, "--text", "seven")
    assert f"{ESCAPE}[36m" in run_process(*args, FORCE_COLOR="1").stdout
    assert not re.search(rf"{ESCAPE}\[[0-9;]*3[0-9]m", run_process(*args, FORCE_COLOR="1", NO_COLOR="1").stdout)


def test_json_is_the_reply_of_the_service(tiny_bundle: Path, predictor: Predictor) -> None:
    args = ("--model", tiny_bundle, "--json", "--top-k", "2", "--fusion", "paper", "--input", "vector=1 2 3 4")
    answer = json.loads(run("predict", *args).stdout)
    expected = predictor.predict([{"vector": "1 2 3 4"}], "paper", 2)[0].to_dict()
    assert answer.pop("model")["name"] == "tiny"
    assert expected.pop("model") is None
    assert answer == expected


@pytest.mark.parametrize("name", ["image", "audio", "text", "vector"])
def test_a_modality_may_come_from_standard_input(
    tiny_bundle: Path, sample: dict[str, Any], predictor: Predictor, name: str
) -> None:
    payload = sample[name]
    stdin = payload if isinstance(payload, bytes) else f"{payload}\n".encode()
    flags = ("--input", "vector=-") if name == "vector" else (f"--{name}", "-")
    answer = json.loads(run("predict", "--model", tiny_bundle, "--json", *flags, stdin=stdin).stdout)
    given = {each["label"]: each["probability"] for each in answer["probabilities"]}
    assert given == pytest.approx(predictor.predict([{name: payload}])[0].by_label(), abs=1e-6)


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("prdict",), "did you mean predict?"),
    (("predict", "--modle", "x"), "perhaps you meant --model PATH"),
    (("predict", "--top-k", "two"), "--top-k"),
    (("evaluate",), "--data"),
    (("export",), "--help"),
    (("predict", "--model", "no/such"), "no/such/manifest.json: no such file"),
    (("predict", "--model", "BUNDLE"), "nothing was sent; send at least one of image, audio, text, vector"),
    (("predict", "--model", "BUNDLE", "--image", "no/such.png"), "image: no/such.png: cannot be read"),
    (("predict", "--model", "BUNDLE", "--image", "pyproject.toml"), "image: this is plain text, expected PNG"),
    (("predict", "--model", "BUNDLE", "--text", "-"), "text: standard input was empty"),
    (("predict", "--model", "BUNDLE", "--text", "-", "--image", "-"), "only one of them can read standard input"),
    (("predict", "--model", "BUNDLE", "--input", "vector"), "expected NAME=VALUE"),
    (("predict", "--model", "BUNDLE", "--text", "a", "--input", "text=b"), "given before"),
    (("predict", "--model", "BUNDLE", "--text", "a", "--fusion", "none"), "no rule is called 'none'"),
    (("evaluate", "--model", "BUNDLE", "--data", "no/such"), "no/such"),
    (
        ("ask", "--url", "http://127.0.0.1:port", "--text", "a"),
        "(Invalid port: 'port'); expected an address such as",
    ),
    (("predict", "--table", "no/such.csv", "--out", "x.parquet"), "--table no/such.csv: cannot be read"),
    (("serve", "--port", "70000"), "--port 70000: expected 1 to 65535"),
    (("tune", "--model", "no/such"), "no/such/manifest.json: no such file"),
    (("ask", "--url", "http://127.0.0.1:9", "--text", "a"), "http://127.0.0.1:9/model: no connection"),
]


@pytest.mark.parametrize(("args", "advice"), WRONG, ids=str)
def test_a_users_error_is_one_line_that_says_what_to_do(tiny_bundle: Path, args: tuple[str, ...], advice: str) -> None:
    line = one_line(run(*(str(tiny_bundle) if arg == "BUNDLE" else arg for arg in args), code=2))
    assert advice in line


def test_a_row_that_cannot_be_measured_is_named_by_its_line(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the list of all faults is written there
    (tmp_path / "train.csv").write_text("label,text\nred,a\nblue,b\n")
    (tmp_path / "test.csv").write_text("label,text,image\nred,a,\nblue,,broken.png\n")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    said = run("evaluate", "--model", tiny_bundle, "--data", tmp_path, code=2).stderr
    assert said.startswith("error: ")
    assert "\n  test.csv:3: image: 'broken.png': " in said
    assert "Traceback" not in said


def test_a_traceback_is_shown_with_debug_only(tiny_bundle: Path) -> None:
    done = run("predict", "--model", tiny_bundle, "--text", "", "--debug", code=2)
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: text")


def test_a_bug_is_one_line_and_another_exit_code(bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import mla_serve.commands.sample_flags as s\ndef read(*_): raise ZeroDivisionError('oh')\ns.read_sample = read\n"
    )
    line = one_line(run_process("predict", "--model", bundle_copy, code=1, path=tmp_path))
    assert "ZeroDivisionError: oh" in line
    assert "--debug" in line


CODES: dict[int, tuple[str, str]] = {
    0: ("None", ""),
    1: ("1 / 0", "error: ZeroDivisionError: division by zero (a bug of mla_serve; --debug shows where)\n"),
    2: ("raise_(errors.ConfigError('no'))", "error: no\n"),
    130: ("raise_(KeyboardInterrupt)", "interrupted\n"),
    141: ("raise_(BrokenPipeError)", ""),
}


@pytest.mark.parametrize("code", CODES)
def test_every_exit_code_is_as_documented(code: int) -> None:
    does, told = CODES[code]
    script = f"""
import dataclasses
from mla_serve import console, errors
def raise_(error): raise error
@dataclasses.dataclass(frozen=True)
class Config: "None."
console.main(lambda config: {does}, Config, args=[])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, told)


def test_every_exit_code_is_documented() -> None:
    section = (ROOT / "docs" / "reference" / "cli.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == list(CODES)


@pytest.mark.parametrize("args", ["predict --json --text a --model BUNDLE", "train --help"])
def test_a_reader_that_leaves_is_no_error(tiny_bundle: Path, args: str) -> None:
    command = f"{sys.executable} -m mla_serve {args.replace('BUNDLE', str(tiny_bundle))}"
    script = f"set -o pipefail; {command} | true"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, 141)  # 0 where the pipe took it all before anybody left
    assert done.stderr == b""


@pytest.mark.skipif(not shutil.which("bash"), reason="bash completes here")
def test_bash_completes_commands_and_flags(tmp_path: Path) -> None:
    script = tmp_path / "mla-serve"
    script.write_text(run("--tyro-print-completion", "bash").stdout)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    for word in (*COMMANDS, "--model", "--top-k", "--data"):
        assert word in script.read_text()


def test_words_of_the_user_are_printed_as_they_are(tmp_path: Path) -> None:
    """Not as emoji, and not as markup of rich."""
    folder = tmp_path / "[red]:dog:"
    folder.mkdir()
    (folder / "train.csv").write_text("label,text\n:dog:,[bold]x\n:cat:,[/]\n:rat:,\n", encoding="utf-8")
    done = run("evaluate", "--model", folder, "--data", folder, code=2)
    assert f"error: {folder}/manifest.json: no such file" in done.stderr
    for screen in (console.console, console.errors):
        with screen.capture() as captured:
            screen.print(":dog: [red]x[/red] [/]", soft_wrap=True)
        assert captured.get() == ":dog: [red]x[/red] [/]\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_what_cannot_be_written_is_one_line(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "mla_serve", "predict", "--model", tiny_bundle, "--text", "seven", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output, or a file: No space left on device; make room there")
    assert len(done.stderr.splitlines()) == 1


def test_a_printed_command_is_always_spelled_mla_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mla_serve/__main__.py", "train"])
    assert console.command_line("serve", "--model", "a b") == "mla-serve serve --model 'a b'"


@pytest.mark.parametrize("module", [("mla_serve", "train"), ("mla_serve.train",)])
def test_the_usage_line_of_each_way_to_start_training_is_that_of_the_command(module: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", *module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: mla-serve train ")


def test_a_hint_to_install_an_extra_fits_a_clone_or_an_installed_package(tmp_path: Path) -> None:
    assert console.in_clone()
    assert console.install_command("cpu,train") == "pip install -c constraints.txt -e '.[cpu,train]'"
    assert console.install_command("cpu,train", tmp_path) == "pip install 'mla_serve[cpu,train]'"


OWN_FILES = ("export.py", "data.py", "train.py", "table.py", "client.py", "errors.py", "mla-serve.py")


def test_files_of_the_user_in_the_current_directory_are_not_imported(tiny_bundle: Path, tmp_path: Path) -> None:
    """`python -m` searches the current directory first, so a user's export.py must not stand for a module of ours."""
    for name in OWN_FILES:
        (tmp_path / name).write_text("raise SystemExit('a file of the user was imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for args in (("export", "--help"), ("train", "--help"), ("predict", "--model", str(tiny_bundle), "--text", "a")):
        command = [sys.executable, "-m", "mla_serve", *args]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), args


def test_a_wheel_holds_one_top_level_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert settings["namespaces"] is False
    found = setuptools.find_packages(str(ROOT), include=settings["include"])
    assert {name.partition(".")[0] for name in found} == {"mla_serve"}
    assert "mla_serve.export" in found


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_clone(tmp_path: Path) -> None:
    """Build a wheel and install it where nothing else of this package is; its dependencies are those of this environment."""
    source, wheels, site = tmp_path / "source", tmp_path / "wheels", tmp_path / "site"
    files = ("pyproject.toml", "README.md", "LICENSE")
    shutil.copytree(ROOT / "mla_serve", source / "mla_serve")  # follows the link to export/
    for name in files:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", site, *wheels.glob("*.whl")], check=True)
    tops = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert tops == {"mla_serve", "bin"}

    def in_wheel(code: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert in_wheel("import mla_serve; print(mla_serve.__file__)") == str(site / "mla_serve" / "__init__.py")
    assert in_wheel("from mla_serve.__main__ import main; main(['--version'])") == __version__
    assert (
        in_wheel("from mla_serve.console import install_command as i; print(i('cpu'))")
        == "pip install 'mla_serve[cpu]'"
    )
    page = "from mla_serve.serve.http import pages; from pathlib import Path; print((Path(pages.__file__).parents[1] / 'web' / 'index.html').is_file())"
    assert in_wheel(page) == "True"
