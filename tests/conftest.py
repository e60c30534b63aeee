"""A tiny but real bundle, made with onnx.helper: three classes, fixed random weights, golden samples. No torch.

def test_something(make_bundle, tmp_path):
    folder = make_bundle(tmp_path / "tiny", {"rear_camera": "image", "words": "text"})
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
from onnx import TensorProto, helper, numpy_helper

from mla_serve.bundle.manifest import Bundle, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.fusion.intervals import Intervals, Thresholds
from mla_serve.inputs import Array, AudioInput, ColumnsInput, ImageInput, Input, Payload, TextInput, VectorInput
from mla_serve.inputs.columns import Column
from mla_serve.output.replacing import staging_folder
from mla_serve.tasks import Classes, Labels, Number, Task

CLASSES = ("red", "green", "blue")
TASKS: dict[str, Task] = {
    "classes": Classes(CLASSES),
    "labels": Labels(CLASSES, (0.3, 0.5, 0.7)),
    "number": Number("price", "EUR", log=True, mean=3.0, deviation=0.5),
}
"""A task of each name, for tests that hold for all of them."""
KINDS = {"image": "image", "audio": "audio", "text": "text", "vector": "vector"}
FEATURES = 8
TYPES: dict[type[Any], int] = {np.uint8: TensorProto.UINT8, np.float32: TensorProto.FLOAT, np.int64: TensorProto.INT64}

SCALES: dict[type[Any], float] = {np.uint8: 1 / 128, np.float32: 1.0, np.int64: 1 / 16}


def letters_tokenizer() -> str:
    """Write a tokenizer that gives every letter of the alphabet an id, as JSON."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {chr(ord("a") + i): i + 2 for i in range(26)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    return str(tokenizer.to_str())


COLUMNS = (
    Column("price", "number", low=1.0, high=250.0, middle=20.0, spread=40.0),
    Column("colour", "category", ("red", "green", "blue")),
    Column("size", "category", ("S", "M", "L")),
    Column("listed", "date", low=19_000.0, high=20_000.0, spread=300.0),
    Column("in stock", "yes_no"),
)
INPUTS: dict[str, Callable[[], Input]] = {
    "image": lambda: ImageInput(width=8, height=8, channels=1, max_pixels=1_000_000),
    "audio": lambda: AudioInput(rate=1000, window=500, hop=250, max_seconds=10.0),
    "text": lambda: TextInput(tokenizer=letters_tokenizer(), length=12, max_characters=200),
    "vector": lambda: VectorInput(size=4),
    "columns": lambda: ColumnsInput(COLUMNS),
}


def encoder_graph(reader: Input, generator: np.random.Generator, features: int = FEATURES) -> bytes:
    """Make an encoder: flatten, scale and multiply by random weights: (B, *shape) -> (B, D).

    NaN counts as 0, and the cells of columns are clipped, as a trained encoder of columns does.
    """
    size = int(np.prod(reader.shape))
    scale = SCALES[reader.dtype]
    weights = generator.standard_normal((size, features)).astype(np.float32) * np.float32(scale * 2 / size**0.5)
    nodes = [
        helper.make_node("Cast", [reader.tensor], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"], axis=1),
        helper.make_node("IsNaN", ["flat"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "flat"], ["filled"]),
        helper.make_node("Clip", ["filled", "least", "most"], ["clipped"]),
        helper.make_node("MatMul", ["clipped", "weights"], ["features"]),
    ]
    limit = np.float32(1e6 if reader.kind == "columns" else np.inf)
    constants = {"zero": np.zeros(1, np.float32), "least": np.array(-limit), "most": np.array(limit)}
    given = helper.make_tensor_value_info(reader.tensor, TYPES[reader.dtype], ["batch", *reader.shape])
    return _model(nodes, given, ("features", features), {"weights": weights} | constants)


def head_graph(generator: np.random.Generator, classes: int, features: int = FEATURES) -> bytes:
    """Make a linear head: features (B, D) -> logits (B, C)."""
    weights = generator.standard_normal((features, classes)).astype(np.float32)
    bias = generator.standard_normal(classes).astype(np.float32)
    node = helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"])
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features])
    return _model([node], given, ("logits", classes), {"weights": weights, "bias": bias})


def _model(nodes: Sequence[Any], given: Any, output: tuple[str, int], weights: Mapping[str, Array]) -> bytes:
    result = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["batch", output[1]])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, output[0], [given], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def write_bundle(
    target: Path,
    modalities: Mapping[str, str] = KINDS,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    golden: int = 2,
    inputs: Mapping[str, Input] | None = None,
    task: Task | None = None,
    intervals: Intervals | None = None,
    **changes: Any,
) -> Path:
    """Write a bundle and return its folder.

    Args: modalities, {name: kind}; inputs, to read some of them in another way; task, default: the classes; intervals, the
        thresholds of sets or intervals to keep; changes, fields of the manifest to set.
    """
    generator, task = np.random.default_rng(seed), task or Classes(tuple(classes))
    readers = {name: (inputs or {}).get(name) or INPUTS[kind]() for name, kind in modalities.items()}
    name = target.name.replace("-", "_")
    with staging_folder(target, name) as folder:
        fields = {name: _write_modality(folder, name, reader, generator) for name, reader in readers.items()}
        (folder / "head.onnx").write_bytes(head_graph(generator, task.outputs))
        if intervals is not None:
            (folder / "intervals.npz").write_bytes(intervals.to_bytes())
        samples = [{name: reader.generate(generator) for name, reader in readers.items()} for _ in range(golden)]
        stored = [_store(folder, index, sample) for index, sample in enumerate(samples)]
        before = [0.5] * task.outputs
        manifest = Manifest(
            name=name,
            created="2026-01-01T00:00:00Z",
            versions={"mla_serve": "0.1.0"},
            task=task.to_dict(),
            modalities=fields,  # type: ignore[arg-type]
            heads={"head": "head.onnx"},
            fusion={  # type: ignore[arg-type]
                "temperatures": {name: 1.0 + 0.5 * m for m, name in enumerate(readers)},
                "sharpness": 1.5,
                "scales": {"1": 1.0, "2": 1.2},
            },
            golden=[{"payloads": payloads, "answer": before} for payloads in stored],  # type: ignore[misc]
            intervals=None if intervals is None else "intervals.npz",
            golden_source="generated",
            tolerance=1e-4,
            parity={},
            metrics={"full": {"calibrated": {"accuracy": 1.0}}},
            training={},
            files={},
        )
        write_manifest(folder, manifest)
        manifest = _with_answers(folder, manifest, samples).model_copy(update=changes)
        write_manifest(folder, Manifest.model_validate(manifest.model_dump()))
    return target


def rising_intervals(task: Task, names: Sequence[str]) -> Intervals:
    """Make thresholds of 99 rows for each modality by itself, under the rule `calibrated`; other patterns take those."""
    scores = Thresholds.of(np.linspace(0, 2, 99))
    return Intervals(task, {"calibrated": dict.fromkeys(names, scores)})


def _write_modality(folder: Path, name: str, reader: Input, generator: np.random.Generator) -> dict[str, Any]:
    """Write one modality's graph and files; return its entry in the manifest."""
    fields, files = reader.to_fields()
    for filename, content in files.items():
        (folder / filename).write_bytes(content)
    (folder / f"{name}.onnx").write_bytes(encoder_graph(reader, generator))
    return {"kind": reader.kind, "input": fields, "encoder": f"{name}.onnx", "head": "head"}


def _store(folder: Path, index: int, sample: Mapping[str, Payload]) -> dict[str, Any]:
    """Put the files of a golden sample into the bundle; return its payloads as the manifest has them."""
    stored: dict[str, Any] = {}
    for name, payload in sample.items():
        stored[name] = payload
        if isinstance(payload, bytes):
            stored[name] = f"golden/{index}-{name}"
            (folder / "golden").mkdir(exist_ok=True)
            (folder / stored[name]).write_bytes(payload)
    return stored


def _with_answers(folder: Path, manifest: Manifest, samples: Sequence[Mapping[str, Payload]]) -> Manifest:
    if not samples:
        return manifest
    answers = Predictor(Bundle.load(folder)).replay().tolist()
    golden = [each.model_copy(update={"answer": own}) for each, own in zip(manifest.golden, answers, strict=True)]
    return manifest.model_copy(update={"golden": golden})


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object], seal: bool = True) -> None:
    """Change a bundle's manifest in place; seal gives it a hash that fits, as an attacker would."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    if seal:
        content["sha256"] = Manifest.model_validate(content).digest()
    path.write_text(json.dumps(content), encoding="utf-8")


def write_format_1(target: Path) -> Path:
    """Write a bundle as the versions before tasks did: classes beside a manifest of format 1, and scores for sets in it."""
    write_bundle(target, {"numbers": "vector", "words": "text"}, golden_source="training rows")
    path = target / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("intervals", "about", "table", "precision"):
        del content[key]
    content |= {"format": 1, "classes": content.pop("task")["classes"]}
    content["conformal"] = {"calibrated": {"words": [0.1, 0.2, 0.9], "numbers": [0.3], "2": [0.2, 0.4]}}
    content["golden"] = [{"payloads": one["payloads"], "probabilities": one["answer"]} for one in content["golden"]]
    rest = {key: value for key, value in content.items() if key != "sha256"}
    content["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
    path.write_text(json.dumps(content), encoding="utf-8")
    return target


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """List every non-empty subset, in the order of the names."""
    return [subset for size in range(1, len(names) + 1) for subset in itertools.combinations(names, size)]


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Return write_bundle(target, modalities, ...)."""
    return write_bundle


@pytest.fixture(scope="session")
def format_1() -> Callable[[Path], Path]:
    """Return write_format_1(target)."""
    return write_format_1


@pytest.fixture(scope="session")
def change_manifest() -> Callable[..., None]:
    """Return edit_manifest(folder, edit, seal=True)."""
    return edit_manifest


@pytest.fixture(scope="session")
def all_subsets() -> Callable[[Sequence[str]], list[tuple[str, ...]]]:
    """Return subsets(names)."""
    return subsets


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one bundle with a modality of every kind, to be left as it is."""
    return write_bundle(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session", params=TASKS)
def task_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one bundle for each task, with a modality of every kind and 99 rows for intervals, to be left as it is."""
    task, rows = TASKS[request.param], Thresholds.of(np.linspace(0, 3, 99))
    intervals = Intervals(task, {"calibrated": {"text": rows, "image+text": rows, "image+audio+text+vector": rows}})
    return write_bundle(tmp_path_factory.mktemp("models") / request.param, task=task, intervals=intervals)


@pytest.fixture(scope="session")
def task_predictor(task_bundle: Path) -> Predictor:
    """Open the bundle of each task."""
    return Predictor(Bundle.load(task_bundle))


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """Write the same bundle to damage."""
    return write_bundle(tmp_path / "tiny")


@pytest.fixture(scope="session")
def predictor(tiny_bundle: Path) -> Predictor:
    """Open the tiny bundle."""
    return Predictor(Bundle.load(tiny_bundle))


@pytest.fixture(scope="session")
def sample(predictor: Predictor) -> dict[str, Payload]:
    """Make one payload of each modality of the tiny bundle."""
    generator = np.random.default_rng(7)
    return {name: reader.generate(generator) for name, reader in predictor.bundle.inputs.items()}


@pytest.fixture(scope="session")
def make_sample(predictor: Predictor) -> Callable[[int], dict[str, Payload]]:
    """Return a function that makes a sample from a seed."""

    @functools.cache
    def make(seed: int) -> dict[str, Payload]:
        generator = np.random.default_rng(seed)
        return {name: reader.generate(generator) for name, reader in predictor.bundle.inputs.items()}

    return make
