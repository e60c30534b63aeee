"""Clients that others' tools write from /openapi.json, and the one in the JDK: every subset gets the predictor's answer.

`make clients` installs the tools into .venv/clients and runs this. Without them the tests are skipped; with
MLA_REQUIRE_CLIENTS=1 they fail instead.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Payload
from mla_serve.tasks import Labels, Number, Task
from tests.conftest import rising_intervals
from tests.load.service import Service, serving

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DIGITS = ROOT / "models" / "digits"
TOOLS = Path(os.environ.get("MLA_CLIENTS", ROOT / ".venv" / "clients"))
PYTHON = TOOLS / "python" / "bin" / "python"
NODE_MODULES = TOOLS / "node_modules"
pytestmark = pytest.mark.slow


def need(there: object, what: str) -> None:
    """Skip, or fail where the clients are required."""
    if not there:
        if os.environ.get("MLA_REQUIRE_CLIENTS") == "1":
            pytest.fail(f"MLA_REQUIRE_CLIENTS=1, but {what}")
        pytest.skip(what)


@pytest.fixture(scope="module")
def sample() -> dict[str, Payload]:
    """Return a golden sample of models/digits, of a picture, a recording and a word."""
    return Bundle.load(DIGITS).golden_samples()[7]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving(DIGITS, workers=1) as service:
        yield service


@pytest.fixture
def sample_file(sample: dict[str, Payload], tmp_path: Path) -> Path:
    """Write the sample as JSON, files in base64."""
    path = tmp_path / "sample.json"
    content = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in sample.items()
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def document(service: Service, tmp_path: Path) -> Path:
    """Write /openapi.json as the service sends it."""
    import httpx

    path = tmp_path / "openapi.json"
    path.write_bytes(httpx.get(f"{address(service)}/openapi.json").content)
    return path


def address(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


def run(*command: object, folder: Path) -> str:
    """Run a command; returns what it prints."""
    done = subprocess.run([str(each) for each in command], cwd=folder, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    return done.stdout.decode()


@pytest.fixture
def assert_right(sample: dict[str, Payload], all_subsets: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that compares the answers to all subsets with the predictor's own."""
    predictor = Predictor(Bundle.load(DIGITS))

    def check(answers: dict[str, Any]) -> None:
        subsets = all_subsets(list(sample))
        assert set(answers) == {"+".join(names) for names in subsets}
        for names in subsets:
            answer = answers["+".join(names)]
            expected = predictor.predict([{name: sample[name] for name in names}])[0]
            assert answer["label"] == expected.label
            assert [each["label"] for each in answer["probabilities"]] == list(expected.by_label())
            assert answer["probability"] == pytest.approx(expected.probability, abs=1e-6)
            assert set(answer["modalities"]) == set(names)

    return check


def check_all(answers: dict[str, Any], assert_right: Callable[[dict[str, Any]], None]) -> None:
    """Check what ask.py and ask.ts print."""
    for way in ("form", "json", "batch"):
        assert_right(answers[way])
    for key, embedded in answers["embed"].items():
        assert set(embedded["features"]) == set(key.split("+"))
    for answer in answers["options"].values():
        assert len(answer["probabilities"]) == 2
        assert answer["label"] in answer["prediction_set"]["labels"]
    assert answers["problem"]["missing"]["type"] == "/problems/missing-input"


def generate_python(document: Path, folder: Path) -> None:
    """Let openapi-python-client write a client into the folder `generated`."""
    need(PYTHON.exists(), f"there is no openapi-python-client in {TOOLS}: make clients")
    generator = PYTHON.with_name("openapi-python-client")
    # any warning of the generator is about a part of the API that the client then lacks; ruff would only format it
    (folder / "config.yaml").write_text("post_hooks: []\n")
    options = ["--config", "config.yaml", "--meta", "none", "--output-path", "generated", "--fail-on-warning"]
    run(generator, "generate", "--path", document, *options, folder=folder)


def compile_typescript(document: Path, program: str | Path, folder: Path) -> None:
    """Let openapi-typescript write the types, and compile a program that uses them."""
    need(NODE_MODULES.exists() and shutil.which("node"), f"there is no openapi-typescript in {TOOLS}: make clients")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    if (HERE / program).parent != folder:
        shutil.copy(HERE / program, folder)
    tools = NODE_MODULES / ".bin"
    run(tools / "openapi-typescript", document, "-o", "schema.ts", folder=folder)
    (folder / "package.json").write_text('{"type": "module"}')
    types = ["--strict", "--noUncheckedIndexedAccess", "--types", "node", "--skipLibCheck"]
    modules = ["--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext"]
    run(tools / "tsc", *types, *modules, program, folder=folder)


def test_a_generated_python_client_asks_for_every_subset(
    service: Service, document: Path, sample_file: Path, tmp_path: Path, assert_right: Callable[[dict[str, Any]], None]
) -> None:
    generate_python(document, tmp_path)
    output = run(PYTHON, HERE / "ask.py", address(service), tmp_path / "generated", sample_file, folder=tmp_path)
    check_all(json.loads(output), assert_right)


def test_a_generated_typescript_client_asks_for_every_subset(
    service: Service, document: Path, sample_file: Path, tmp_path: Path, assert_right: Callable[[dict[str, Any]], None]
) -> None:
    compile_typescript(document, "ask.ts", tmp_path)
    check_all(json.loads(run("node", "ask.js", address(service), sample_file, folder=tmp_path)), assert_right)


@pytest.mark.parametrize("version", ["default", "HTTP_1_1"])
def test_the_client_of_the_jdk_asks_for_every_subset(
    service: Service, sample_file: Path, tmp_path: Path, version: str, assert_right: Callable[[dict[str, Any]], None]
) -> None:
    need(shutil.which("javac"), "there is no JDK: apt-get install default-jdk-headless")
    output = run("java", HERE / "Ask.java", address(service), sample_file, version, folder=tmp_path)
    assert_right(json.loads(output))


def test_generated_clients_send_columns(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    import httpx

    bundle = make_bundle(tmp_path / "shop", {"text": "text", "columns": "columns"})
    cells = {"price": 12.5, "colour": "red", "listed": "2023-06-01", "in stock": True}
    expected = Predictor(Bundle.load(bundle)).predict([{"columns": cells}])[0]
    with serving(bundle, workers=1) as service:
        document = tmp_path / "openapi.json"
        document.write_bytes(httpx.get(f"{address(service)}/openapi.json").content)
        generate_python(document, tmp_path)
        output = run(PYTHON, HERE / "ask_columns.py", address(service), tmp_path / "generated", folder=tmp_path)
        compile_typescript(document, "ask_columns.ts", tmp_path)
        answers = [json.loads(output), json.loads(run("node", "ask_columns.js", address(service), folder=tmp_path))]
    assert [set(each) for each in answers] == [{"form", "json", "batch"}, {"form", "json", "batch", "single"}]
    for answer in (answer for each in answers for answer in each.values()):
        assert answer["label"] == expected.label
        assert answer["probability"] == pytest.approx(expected.probability, abs=1e-6)


TYPESCRIPT_OF_TASKS = """
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

async function main(): Promise<void> {
  const client = createClient<paths>({ baseUrl: process.argv[2]! });
  const { data: answer } = await client.POST("/predict", { body: { text: "abc", coverage: 0.9 } });
  const { data: model } = await client.GET("/model");
  console.log(JSON.stringify([%s]));
}

void main();
"""


@pytest.mark.parametrize("name", ["labels", "number"])
def test_generated_clients_read_every_task(make_bundle: Callable[..., Path], tmp_path: Path, name: str) -> None:
    """What a program reads is typed: TypeScript would not compile a member that the schema lacks."""
    import httpx

    tasks: dict[str, Task] = {
        "labels": Labels(("drama", "crime", "war"), (0.2, 0.5, 0.7)),
        "number": Number("price", "EUR", mean=10.0, deviation=2.0, low=1.0, high=90.0),
    }
    read = {
        "labels": "answer!.labels, answer!.probabilities[0]!.threshold, answer!.prediction_set!.labels, "
        "answer!.modalities.text!.labels, model!.labels![0]!.threshold, answer!.model.name",
        "number": "answer!.value, answer!.deviation, [answer!.interval!.low, answer!.interval!.high], "
        "answer!.modalities.text!.value, model!.number!.unit, answer!.model.name",
    }
    intervals = rising_intervals(tasks[name], ["text"])
    bundle = make_bundle(tmp_path / "tiny", {"text": "text"}, task=tasks[name], intervals=intervals)
    with serving(bundle, workers=1) as service:
        document = tmp_path / "openapi.json"
        document.write_bytes(httpx.get(f"{address(service)}/openapi.json").content)
        reply = httpx.post(f"{address(service)}/predict", json={"text": "abc", "coverage": 0.9}).json()
        generate_python(document, tmp_path)
        output = run(PYTHON, HERE / "ask_tasks.py", address(service), tmp_path / "generated", folder=tmp_path)
        assert json.loads(output) == reply
        (tmp_path / "ask_tasks.ts").write_text(TYPESCRIPT_OF_TASKS % read[name], encoding="utf-8")
        compile_typescript(document, tmp_path / "ask_tasks.ts", tmp_path)
        values = json.loads(run("node", "ask_tasks.js", address(service), folder=tmp_path))
    if name == "labels":
        own, threshold, kept, alone = values[:4]
        assert (own, kept) == (reply["labels"], reply["prediction_set"]["labels"])
        assert (threshold, alone) == (reply["probabilities"][0]["threshold"], reply["modalities"]["text"]["labels"])
    else:
        value, deviation, (low, high), alone = values[:4]
        assert (value, deviation) == (reply["value"], reply["deviation"])
        assert low < value < high
        assert alone == pytest.approx(value)
    assert values[4:] == [0.2 if name == "labels" else "EUR", "tiny"]
