"""A bundle that is fitted to new rows keeps its graphs, tells truer probabilities, and is refused rows that do not fit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import mla_serve
from mla_serve.bundle.about import About
from mla_serve.bundle.manifest import Bundle, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.recalibrate import RecalibrateConfig, compared
from mla_serve.commands.recalibrate import run as run_command
from mla_serve.errors import BundleError, ConfigError, DataError, MlaServeError
from mla_serve.export import report
from mla_serve.export.card import model_card
from mla_serve.export.copied_rows import CANNOT_TELL
from mla_serve.export.export_extension import _training
from mla_serve.export.export_run import export_run
from mla_serve.export.new_rows import doubts, read_new_rows
from mla_serve.export.quantise import to_fp16
from mla_serve.export.recalibrate import NOTES_OF_A_FIT, recalibrate
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array
from mla_serve.inputs.vector import VectorInput
from mla_serve.tasks import Number, Task
from mla_serve.train.config import TrainConfig
from mla_serve.train.notes import DATA
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned
from tests.conftest import CLASSES, TASKS, write_bundle
from tests.export.conftest import write_stripes

KINDS = {"numbers": "vector", "words": "text"}
SPLITS = {"train": 120, "val": 300, "test": 300}
DOUBT = 0.35
"""The graphs of the bundle are surer than they may be: labels are drawn from their opinions times this."""


def draw_labels(task: Task, opinions: Array, generator: np.random.Generator) -> list[Any]:
    """Draw a label for the opinions (B, O) of each row, far less certain than they say."""
    if isinstance(task, Number):
        deviation = np.exp(opinions[:, 1] / 2) / DOUBT
        standardised = opinions[:, 0] + deviation * generator.standard_normal(len(opinions))
        drawn = task.restore(np.clip(standardised, -9, 9))
        return [float(value) for value in drawn]
    if task.name == "labels":
        there = generator.random(opinions.shape) < 1 / (1 + np.exp(-DOUBT * opinions))
        return [[name for name, has in zip(task.names, row, strict=True) if has] for row in there]
    noise = generator.gumbel(size=opinions.shape)
    return [task.names[at] for at in (DOUBT * opinions + noise).argmax(axis=1)]


def write_rows(folder: Path, model: Path, splits: dict[str, int], names: Sequence[str] = tuple(KINDS)) -> Path:
    """Write a table whose labels are drawn from what the model thinks, with a value missing here and there."""
    folder.mkdir(parents=True)
    predictor, generator = Predictor(Bundle.load(model)), np.random.default_rng(1)
    inputs = predictor.bundle.inputs
    for split, count in splits.items():
        rows = [{name: inputs[name].generate(generator) for name in names} for _ in range(count)]
        outputs = predictor.run_graphs([predictor.decode(row) for row in rows])
        chosen = generator.integers(len(names), size=count)
        at = [predictor.names.index(name) for name in names]
        opinions = outputs.opinions[np.array(at)[chosen], np.arange(count)]
        labels = draw_labels(predictor.task, opinions, generator)
        lines = []
        for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
            if number % 5 == 2 and len(names) > 1:
                del row[names[number % len(names)]]
            lines.append(json.dumps({"label": label, **row}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps({"modalities": {name: KINDS[name] for name in names}}))
    return folder


@pytest.fixture(autouse=True)
def no_report() -> Iterator[None]:
    """Leave the report out, which takes long and is tested elsewhere; one test here asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mla_serve.export.finish.gather", lambda *_: {"intervals": {}})
        patch.setattr("mla_serve.export.finish.write_report", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module", params=TASKS)
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a bundle of each task, and rows for it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = write_bundle(folder / "model", KINDS, task=TASKS[request.param])
    return model, write_rows(folder / "data", model, SPLITS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("classes") / "model", KINDS)


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    return write_rows(model.with_name("data"), model, SPLITS)


def fit_again(model: Path, data: Path, out: Path, split: str | None = None, **options: Any) -> Bundle:
    base = Bundle.load(model)
    recalibrate(base, out, read_new_rows(base, data, split), **options)
    return Bundle.load(out)


def graphs(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.read(name) for name in bundle.manifest.files if name.endswith(".onnx")}


def test_probabilities_get_truer_and_graphs_stay(given: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = given
    before, after = Bundle.load(model), fit_again(model, data, tmp_path / "new")
    assert graphs(after) == graphs(before)
    assert after.golden_samples() == before.golden_samples()
    Predictor(after).verify()
    facts, metrics = after.manifest.training["recalibrated"], after.manifest.metrics
    assert (metrics["split"], metrics["rows"], facts["split"], facts["rows"]) == ("test", 300, "val", 300)
    for condition, was in facts["before"].items():
        assert metrics["conditions"][condition][DEFAULT_RULE]["nll"] < was["nll"] - 0.01, condition
    assert metrics["condition_rows"]["numbers"] == 270
    assert {"full", "numbers", "words"} <= metrics["conditions"].keys()
    assert all(
        "pooled" in metrics["conditions"][name][DEFAULT_RULE] for name in ("full", "words")
    )  # has sets or intervals
    assert after.references.by_modality.keys() == KINDS.keys()
    assert facts["notes"][0] == CANNOT_TELL
    assert all(note.startswith(NOTES_OF_A_FIT) for note in facts["notes"][1:])
    card = (tmp_path / "new" / "MODEL_CARD.md").read_text()
    assert "## Recalibrated" in card
    assert "300\nrows of split `val`" in card


def test_thresholds_of_labels_are_fitted_again(tmp_path: Path) -> None:
    model = write_bundle(tmp_path / "model", KINDS, task=TASKS["labels"])
    after = fit_again(model, write_rows(tmp_path / "data", model, SPLITS), tmp_path / "new")
    assert after.task.to_dict() != Bundle.load(model).task.to_dict()
    assert after.task.names == CLASSES


def test_fitting_to_the_rows_of_the_training_gives_what_the_training_gave(tmp_path: Path) -> None:
    """The graphs give the same opinions as torch, so the same comes out; a second time, too."""
    data = write_stripes(tmp_path / "data", {"train": 60, "val": 66, "test": 24})
    config = TrainConfig(
        data=data, name="stripes", runs=tmp_path / "runs", epochs=2, batch_size=15, width=16, samples=True
    )
    run = train_as_planned(config, make_plan(config), lambda record: None)
    export_run(run.path, tmp_path / "stripes")
    first = Bundle.load(tmp_path / "stripes")
    assert [note for note in first.manifest.training["notes"] if note.startswith(NOTES_OF_A_FIT)]
    assert first.manifest.training["counts"] == {"train": 60, "val": 66, "test": 24}
    model = tmp_path / "stripes"
    for number in ("second", "third"):
        again = fit_again(model, data, tmp_path / number)
        for name, value in first.manifest.fusion.model_dump(exclude={"native", "prior_once"}).items():
            assert again.manifest.fusion.model_dump()[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
        for name, reference in first.references.by_modality.items():
            assert again.references.by_modality[name].method == reference.method
            assert again.references.by_modality[name].quantiles == pytest.approx(reference.quantiles, rel=1e-2)
        for pattern in ("image", "image+text"):
            expected = first.intervals.thresholds[DEFAULT_RULE][pattern]
            found = again.intervals.thresholds[DEFAULT_RULE][pattern]
            assert found.rows == expected.rows
            finite = np.isfinite(
                expected.values
            )  # of 66 rows, a single one whose labels change places moves some by 0.1
            np.testing.assert_array_equal(np.isfinite(found.values), finite)
            assert np.abs(found.values[finite] - expected.values[finite]).mean() < 0.05
        training = again.manifest.training
        assert not [note for note in training["notes"] if note.startswith(NOTES_OF_A_FIT)]
        assert training["rows"] == first.manifest.training["rows"]
        assert [one.truth for one in again.manifest.golden] == [one.truth for one in first.manifest.golden]
        model = tmp_path / number
    renamed = shutil.copytree(data, tmp_path / "renamed", ignore=shutil.ignore_patterns("*.jsonl")) / "rows.jsonl"
    lines = (data / "train.jsonl").read_text().splitlines()
    renamed.write_text("\n".join(lines[1:]) + "\n")  # one row less
    with pytest.raises(ConfigError, match="training rows that the bundle holds as samples"):
        fit_again(tmp_path / "stripes", renamed, tmp_path / "sure")
    assert not (tmp_path / "sure").exists()
    assert {note.split(":")[0] for note in training["recalibrated"]["notes"] if not note.startswith(DATA)} == {
        note.split(":")[0] for note in first.manifest.training["notes"] if note.startswith(NOTES_OF_A_FIT)
    }


def test_a_bundle_of_format_1_becomes_one_of_today(
    format_1: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, with the report, and with the true labels of its samples."""
    model = format_1(tmp_path / "old")
    before, rows = Bundle.load(model), write_rows(tmp_path / "data", model, SPLITS)
    sample = before.golden_samples()[0]
    with (rows / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"label": "green", **sample}) + "\n")
    about = tmp_path / "about.md"
    about.write_text("# Old\n\n## Purpose\nTells colours.\n\n## Data\nDrawn.\n")
    run_command(RecalibrateConfig(model, rows, tmp_path / "new", about=about, samples=True))
    printed = capsys.readouterr().out
    assert "before -> after" in printed
    content = json.loads((tmp_path / "new" / "manifest.json").read_text())
    after = Bundle.load(tmp_path / "new")
    assert (content["format"], content["conformal"], content["intervals"]) == (2, {}, "intervals.npz")
    assert graphs(after) == graphs(before)
    assert [one.truth for one in after.manifest.golden] == ["green", None]
    assert after.manifest.about == About(purpose="Tells colours.", data="Drawn.")
    assert after.manifest.table["label"] == "label"


def test_the_report_is_written_and_keeps_the_learning_curves(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mla_serve.export.finish.gather", report.gather)
        patch.setattr("mla_serve.export.finish.write_report", report.write_report)
        first = fit_again(model, data, tmp_path / "first")
        report_of = json.loads(first.read("report.json"))
        assert (report_of["epochs"], report_of["wrongest"]) == ([], [])
        assert first.manifest.metrics["intervals"]["full"]["nll"]
        second = fit_again(tmp_path / "first", data, tmp_path / "second", samples=True)
        assert json.loads(second.read("report.json"))["wrongest"]
        page = second.read("report.html").decode()
        assert "<dt>Made</dt><dd><p>1 January 2026</p></dd>" in page
        assert "Made on 1 January 2026, fitted again on " in page
        assert "<dt>Fitted again</dt>" in page
        assert "fusion: ridge" in page


def test_without_training_and_test_rows_the_references_are_scaled_and_the_fitted_rows_are_measured(
    model: Path, data: Path, tmp_path: Path
) -> None:
    base = fit_again(model, data, tmp_path / "base")
    table = tmp_path / "rows.jsonl"
    table.write_text((data / "val.jsonl").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({"modalities": KINDS}))
    after = fit_again(tmp_path / "base", table, tmp_path / "new")
    metrics = after.manifest.metrics
    assert (metrics["split"], metrics["rows"], metrics["fitted"]) == ("test", 300, True)  # a table without splits
    card = (tmp_path / "new" / "MODEL_CARD.md").read_text()
    assert "Measured through this bundle on the 300 rows that it was fitted to" in card
    assert "On the 300 rows that it was fitted to" in card
    assert "rows of split `test`, under" not in card
    assert compared(after.manifest, after.task).title == "300 rows that were fitted, before -> after"
    for name, before in base.references.by_modality.items():
        now = dataclasses.asdict(after.references.by_modality[name])
        for field, value in dataclasses.asdict(before).items():
            np.testing.assert_array_equal(now[field], value)
    assert [note for note in after.manifest.training["recalibrated"]["notes"] if "as before" in note]


def test_an_extension_is_not_what_its_base_was_fitted_to(model: Path, data: Path, tmp_path: Path) -> None:
    """The gain of what is added is not that of the fit, and a bundle that was not measured has a card, too."""
    manifest = fit_again(model, data, tmp_path / "base").manifest
    extends = {"name": "base", "sha256": manifest.sha256, "folder": "/data/base", "added": ["note"]}
    config = dict.fromkeys(("epochs", "batch_size", "lr", "weight_decay", "label_smoothing", "augment", "seed"), 1)
    facts = {"config": config | {"extends": extends}, "best": {"epoch": 1, "nll": 0.5}, "versions": {}, "machine": {}}
    training = _training(manifest, facts)
    card = model_card(manifest.model_copy(update={"training": training, "metrics": {}}))
    assert "## Recalibrated" not in card
    assert "Fitted again" not in card
    assert "After its own training it had been fitted again" in card
    again = training["extended"][0]["recalibrated"]
    assert again == manifest.training["recalibrated"] | {"fitted": manifest.created}


def test_smaller_graphs_stay_as_they_are(model: Path, data: Path, tmp_path: Path) -> None:
    """Here one in half precision: what is fitted is fitted to its opinions."""

    def halve(graph: bytes) -> bytes:
        weights = {each.name for each in onnx.load_from_string(graph).graph.initializer}
        return to_fp16(graph, {"zero", "least", "most"} & weights)

    small = tmp_path / "small"
    write_bundle(small, KINDS)
    changed = halve((small / "words.onnx").read_bytes())
    reseal(small, "words.onnx", changed)
    after = fit_again(small, data, tmp_path / "new")
    assert after.read("words.onnx") == changed != Bundle.load(model).read("words.onnx")
    assert Predictor(after).verify() == pytest.approx(0, abs=1e-6)


def reseal(folder: Path, name: str, content: bytes) -> None:
    """Put another file into a bundle, and let its manifest know."""
    manifest = Bundle.load(folder).manifest.model_copy(update={"tolerance": 1e-2})
    (folder / name).write_bytes(content)
    write_manifest(folder, manifest)


def few(data: Path) -> None:
    lines = (data / "val.jsonl").read_text().splitlines()
    (data / "val.jsonl").write_text("\n".join(lines[:49]) + "\n")


def edited(change: Callable[[dict[str, Any]], object], split: str = "val") -> Callable[[Path], None]:
    def edit(data: Path) -> None:
        rows = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
        for row in rows:
            change(row)
        (data / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows if len(row) > 1) + "\n")

    return edit


REFUSED: dict[str, tuple[Callable[[Path], object], str | None, list[str]]] = {
    "a label that the model lacks": (
        edited(lambda row: row.update(label="pink")),
        None,
        ["pink", "label", "correct it"],
    ),
    "too few rows": (few, None, ["--split val: 49 rows", "expected 50 at least", "add rows"]),
    "one class": (edited(lambda row: row.update(label="red")), None, ["one class only, 'red'"]),
    "no words": (edited(lambda row: row.pop("words", None)), None, ["no rows with words", "add rows with it"]),
    "a value that cannot be read": (edited(lambda row: row.update(numbers=[1.0])), None, ["numbers", "got 1"]),
    "no val": (lambda data: (data / "val.jsonl").unlink(), None, ["has train, test, but no val", "--split"]),
    "no such split": (lambda data: None, "dev2", ["--split dev2", "train, val, test"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_written(name: str, model: Path, tmp_path: Path) -> None:
    change, split, words = REFUSED[name]
    data = write_rows(tmp_path / "data", model, {"train": 60, "val": 60, "test": 60})
    change(data)
    with pytest.raises(MlaServeError) as caught:
        fit_again(model, data, tmp_path / "new", split)
    assert isinstance(caught.value, DataError | ConfigError)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_label_of_another_task_is_refused(tmp_path: Path, model: Path, data: Path) -> None:
    number = write_bundle(tmp_path / "number", KINDS, task=TASKS["number"])
    with pytest.raises(DataError, match="number"):
        fit_again(number, data, tmp_path / "new")


def test_rows_that_the_model_was_trained_on_are_refused(model: Path, data: Path, tmp_path: Path) -> None:
    fingerprint = read_new_rows(Bundle.load(model), data).fingerprint
    trained = write_bundle(tmp_path / "trained", KINDS, training={"config": {"fingerprint": fingerprint}})
    with pytest.raises(ConfigError, match="was trained on these rows"):
        read_new_rows(Bundle.load(trained), data, "train")
    assert read_new_rows(Bundle.load(model), data, "train").split == "train"


@pytest.mark.parametrize("copies", [0, 40, 60])
def test_no_row_that_was_fitted_is_measured_unless_there_are_no_others(tmp_path: Path, copies: int) -> None:
    """Rows of text alone may be equal by chance; here each has a vector of eight numbers."""
    vectors = {"numbers": VectorInput(size=8)}
    model = write_bundle(tmp_path / "model", {"numbers": "vector"}, inputs=vectors)
    data = write_rows(tmp_path / "data", model, {"train": 6, "val": 60, "test": 60}, ["numbers"])
    fitted, measured = ((data / f"{split}.jsonl").read_text().splitlines() for split in ("val", "test"))
    (data / "test.jsonl").write_text("\n".join([*fitted[:copies], *measured[copies:]]) + "\n")
    manifest = fit_again(model, data, tmp_path / "new").manifest
    expected = (60, "val", True) if copies == 60 else (60 - copies, "test", None)
    assert tuple(manifest.metrics.get(key) for key in ("rows", "split", "fitted")) == expected
    assert manifest.metrics.get("copies_left_out") == (40 if copies == 40 else None)
    assert ("prints them again" in (tmp_path / "new" / "MODEL_CARD.md").read_text()) == (copies == 0)
    told = [note for note in manifest.training["recalibrated"]["notes"] if note.startswith("copies: ")]
    assert [note.split(" are ")[0] for note in told] == ([f"copies: {copies} of 60 rows of test"] if copies else [])


def test_rows_that_an_extension_was_trained_on_are_refused(model: Path, data: Path, tmp_path: Path) -> None:
    step = {"config": {"fingerprint": read_new_rows(Bundle.load(model), data).fingerprint}}
    extended = write_bundle(tmp_path / "extended", KINDS, training={"extended": [step]})
    with pytest.raises(ConfigError, match="was trained on these rows"):
        read_new_rows(Bundle.load(extended), data, "train")


def test_rows_that_flatter_are_noted(model: Path, data: Path) -> None:
    new = read_new_rows(Bundle.load(model), data)
    assert doubts(new) == []
    again = dataclasses.replace(new, split="train", measured=[*new.measured, *new.fitted[:7]])
    first, second = doubts(again)
    assert "fitted to rows of split train" in first
    assert "7 of 307 test rows are also among the train rows" in second


def test_what_is_there_is_not_overwritten(model: Path, data: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for out, words in ((model, "is the folder of the bundle"), (model / "new", "lies in"), (full, "holds notes.txt")):
        with pytest.raises(ConfigError, match=words):
            run_command(RecalibrateConfig(model, data, out))
    assert (full / "notes.txt").read_text() == "mine"
    once = fit_again(model, data, tmp_path / "new")
    fit_again(model, data, tmp_path / "new")
    assert Bundle.load(tmp_path / "new.old").manifest.sha256 == once.manifest.sha256


def test_a_damaged_bundle_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    broken = write_bundle(tmp_path / "broken", KINDS)
    (broken / "words.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"words\.onnx"):
        run_command(RecalibrateConfig(broken, data, tmp_path / "new"))
    wrong = write_bundle(tmp_path / "wrong", KINDS)
    manifest = Bundle.load(wrong).manifest
    golden = [one.model_copy(update={"answer": [0.2, 0.3, 0.5]}) for one in manifest.golden]
    write_manifest(wrong, manifest.model_copy(update={"golden": golden}))
    with pytest.raises(BundleError, match="golden samples differ"):
        fit_again(wrong, data, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_faults_are_left_out_where_that_is_asked(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # the list of all faults is written there
    data = write_rows(tmp_path / "data", model, {"train": 60, "val": 70, "test": 60})
    with (data / "val.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"label": "red", "words": "abc", "numbers": [1.0, 2.0]}) + "\n")
    run_command(RecalibrateConfig(model, data, tmp_path / "new", skip_bad=True, json=True))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["training"]["recalibrated"]["rows"] == 70
    assert "1 of 191 rows left out because of faults" in captured.err


def test_from_python_rows_in_memory_are_fitted_and_measured(model: Path, data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data / "val.jsonl").read_text().splitlines()]
    first = mla_serve.load(model, threads=1)
    second = first.recalibrate(rows, out=tmp_path / "new")
    assert second.metrics["fitted"]
    assert second.metrics["rows"] == len(rows)
    held_out = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    assert second.evaluate(held_out).scores["nll"] < first.evaluate(held_out).scores["nll"] - 0.01
    with pytest.raises(ConfigError, match=r"^out "):
        first.recalibrate(rows, out=model)
    with pytest.raises(DataError, match="49 rows"):
        first.recalibrate(rows[:49], out=tmp_path / "few")
    of_files = first.recalibrate(data, out=tmp_path / "files")
    assert of_files.metrics["split"] == "test"
    assert "fitted" not in of_files.metrics


def test_from_python_a_column_says_which_rows_are_fitted_and_which_are_measured(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """As by the command: val is fitted, test is measured, and a row of train is never fitted unless that is asked."""
    rows = [
        json.loads(line) | {"split": split}
        for split in SPLITS
        for line in (data / f"{split}.jsonl").read_text().splitlines()
    ]
    first = mla_serve.load(model, threads=1)
    about = "## Purpose\nTells colours.\n"
    now = first.recalibrate(rows, out=tmp_path / "new", about=about)
    by_files = fit_again(model, data, tmp_path / "files").manifest
    manifest = Bundle.load(tmp_path / "new").manifest
    assert now.metrics["conditions"] == by_files.metrics["conditions"]
    assert (now.metrics["split"], now.metrics["rows"]) == ("test", 300)
    assert manifest.fusion == by_files.fusion
    assert manifest.about.purpose == "Tells colours."
    assert first.recalibrate(rows, out=tmp_path / "other", split="train").metrics["split"] == "test"
    with pytest.raises(ConfigError, match=r"^split dev2: the data set has train, val, test"):
        first.recalibrate(rows, out=tmp_path / "none", split="dev2")
    with pytest.raises(DataError, match="data:1: split is 'half', expected train, val or test"):
        first.recalibrate([rows[0] | {"split": "half"}, *rows[1:]], out=tmp_path / "none")
    broken = rows[130] | {"numbers": [1.0]}
    with pytest.raises(DataError, match="numbers"):
        first.recalibrate([*rows, broken], out=tmp_path / "none")
    first.recalibrate([*rows, broken], out=tmp_path / "skipped", skip_bad=True)
    assert Bundle.load(tmp_path / "skipped").manifest.training["recalibrated"]["rows"] == 300
