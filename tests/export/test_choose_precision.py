"""A smaller precision is taken when it pays and when it keeps within its bound, and leaves nothing behind otherwise."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.bundle.manifest import Bundle, Manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.export import ExportConfig
from mla_serve.commands.export import run as export
from mla_serve.errors import BundleError, ConfigError
from mla_serve.export import choose_precision
from mla_serve.export.card import model_card
from mla_serve.export.choose_precision import MIN_SPEEDUP, PrecisionTarget, _check_loss, pick_fastest
from mla_serve.export.export_run import export_run
from mla_serve.export.run_data import read_rows_again
from mla_serve.export.timing import BATCHES, overall, times_faster
from mla_serve.fusion.novelty import QUANTILES, Reference, References
from mla_serve.inputs import Array
from mla_serve.tasks import Classes, Labels, Number, Task
from mla_serve.train.config import TrainConfig
from mla_serve.train.plan import make_plan
from mla_serve.train.run_folder import RunFolder
from tests.load.service import serving

LABELS = ("fp32", "int8 linear", "int8 convolutions")
found = st.fixed_dictionaries({label: st.tuples(st.floats(0.1, 10), st.floats(-0.1, 0.5)) for label in LABELS[1:]}).map(
    lambda drawn: {"fp32": (1.0, 0.0)} | drawn
)


@pytest.fixture(scope="session")
def plain(finished_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the run in fp32, once."""
    out = tmp_path_factory.mktemp("plain") / "stripes"
    export_run(finished_run.path, out, data=out.with_name("nowhere"))
    return out


@pytest.fixture(scope="module", autouse=True)
def fast_export(plain: Path) -> Iterator[None]:
    """Take the fp32 graphs from `plain`, and leave the report out: neither is tested here, both take long."""

    def copy_graphs(strategy: object, inputs: object, samples: object, staging: Path) -> dict[str, Any]:
        for path in plain.glob("*.onnx"):
            shutil.copy(path, staging)
        return Bundle.load(plain).manifest.parity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mla_serve.export.export_run._write_graphs", copy_graphs)
        patch.setattr("mla_serve.export.finish.write_report", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def quantised(
    finished_run: RunFolder, fast_export: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Manifest, Path]:
    out = tmp_path_factory.mktemp("models") / "stripes"
    return export_run(finished_run.path, out, PrecisionTarget("int8", 0.1)), out


@given(found=found, loss=st.floats(0, 0.3))
def test_auto_takes_nothing_slower_and_nothing_that_costs_too_much(
    found: Mapping[str, tuple[float, float]], loss: float
) -> None:
    speeds, lost = ({label: pair[at] for label, pair in found.items()} for at in (0, 1))
    best = pick_fastest(speeds, lost, PrecisionTarget("auto", loss))
    assert lost[best] <= loss
    assert best == "fp32" or speeds[best] >= MIN_SPEEDUP
    within = [speed for label, speed in speeds.items() if lost[label] <= loss]
    assert speeds[best] == max(within) or (best == "fp32" and max(within) < MIN_SPEEDUP)


@given(found=found, loss=st.floats(0, 0.3))
def test_int8_takes_the_fastest_within_the_bound_or_else_what_is_refused(
    found: Mapping[str, tuple[float, float]], loss: float
) -> None:
    speeds, lost = ({label: pair[at] for label, pair in found.items()} for at in (0, 1))
    best = pick_fastest(speeds, lost, PrecisionTarget("int8", loss))
    within = [label for label in LABELS[1:] if lost[label] <= loss]
    if within:
        assert best in within
        assert speeds[best] == max(speeds[label] for label in within)
    else:
        assert lost[best] == min(lost[label] for label in LABELS[1:])


def test_an_encoder_with_nothing_to_quantise_stays_as_it_is() -> None:
    assert pick_fastest({"fp32": 1.0}, {"fp32": 0.0}, PrecisionTarget("int8")) == "fp32"


class Clocked:
    """A session whose runs take what they are told on a clock that nothing else moves."""

    providers = ("CPUExecutionProvider",)
    now = 0.0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self, batch: Array) -> Array:
        Clocked.now += self.seconds * len(batch)
        return batch


def test_graphs_are_timed_against_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mla_serve.export.timing.time.thread_time", lambda: Clocked.now)
    sessions = {"fp32": Clocked(0.003), "fast": Clocked(0.001), "slow": Clocked(0.006)}
    ratios = times_faster(sessions, np.zeros((3, 2)))  # type: ignore[arg-type]
    for label, expected in (("fp32", 1.0), ("fast", 3.0), ("slow", 0.5)):
        assert ratios[label] == pytest.approx({str(size): expected for size in BATCHES})
        assert overall(ratios[label]) == pytest.approx(expected)


def test_a_quantised_bundle_says_what_was_done_and_reads_back(quantised: tuple[Manifest, Path]) -> None:
    manifest, out = quantised
    assert Bundle.load(out).manifest == manifest
    facts = manifest.precision
    assert facts["asked"] == "int8"
    for name, encoder in facts["encoders"].items():
        assert encoder["chosen"].startswith("int8")
        before, now = encoder["tried"]["fp32"], encoder["tried"][encoder["chosen"]]
        assert now["bytes"] == (out / f"{name}.onnx").stat().st_size < before["bytes"]
        assert {"accuracy", "ece", "nll"} <= now["alone"].keys()
        model = onnx.load(out / f"{name}.onnx")
        assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    for split in ("val", "test"):
        assert facts["measured"][split]["rows"] == 24
        assert facts["measured"][split]["before"].keys() == facts["measured"][split]["after"].keys()
    card = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "## Precision" in card
    assert f"| text | {facts['encoders']['text']['chosen']} |" in card
    assert "Measured again below" in card


def test_the_card_says_that_a_cost_was_measured_before_a_later_fit(quantised: tuple[Manifest, Path]) -> None:
    manifest, _ = quantised
    again = {"trained": manifest.created, "created": manifest.created, "sha256": "0" * 64, "rows": 60, "split": "val"}
    again |= {"versions": {"mla_serve": "0.2.0"}, "notes": [], "before": {"full": {"accuracy": 0.5}}}
    card = model_card(manifest.model_copy(update={"training": manifest.training | {"recalibrated": again}}))
    assert "Measured again below" not in card
    assert "Measured below as exported, before it was fitted again" in card


def test_a_quantised_bundle_replays_its_own_answers(quantised: tuple[Manifest, Path]) -> None:
    manifest, out = quantised
    assert Predictor(Bundle.load(out)).verify() < 1e-6
    assert manifest.tolerance == choose_precision.GOLDEN_TOLERANCE["int8"]
    assert manifest.precision["golden_difference"] > 0


def test_golden_answers_are_recorded_as_they_will_be_replayed_also_of_unfamiliar_input(tiny_bundle: Path) -> None:
    predictor = Predictor(Bundle.load(tiny_bundle))
    width = predictor.encode("vector", [predictor.decode_one("vector", [0.0] * 4)]).shape[1]
    only_zeros = Reference("mahalanobis", np.zeros((1, width)), np.zeros(width), np.eye(width), QUANTILES)
    predictor.bundle.references = References({"vector": only_zeros})
    predictor.bundle.fusion = dataclasses.replace(predictor.bundle.fusion, discounts={"vector": 1.0})
    golden, difference = choose_precision._recompute_golden(predictor)
    assert difference < 1e-6
    np.testing.assert_allclose([one.answer for one in golden], predictor.replay())


def test_what_is_measured_afterwards_is_what_the_bundle_does(
    quantised: tuple[Manifest, Path], finished_run: RunFolder
) -> None:
    manifest, _ = quantised
    after = manifest.precision["measured"]["test"]["after"]["full"]
    assert manifest.metrics["conditions"]["full"]["calibrated"]["accuracy"] == after["accuracy"]


def test_answers_of_a_quantised_bundle_do_not_depend_on_the_batch(quantised: tuple[Manifest, Path]) -> None:
    predictor = Predictor(Bundle.load(quantised[1]))
    generator = np.random.default_rng(0)
    samples = [{n: spec.generate(generator) for n, spec in predictor.bundle.inputs.items()} for _ in range(6)]
    together = predictor.run_graphs([predictor.decode(sample) for sample in samples]).opinions
    for at, sample in enumerate(samples):
        np.testing.assert_array_equal(predictor.run_graphs([predictor.decode(sample)]).opinions[:, 0], together[:, at])


@pytest.mark.slow  # starts a server
def test_a_quantised_bundle_is_served(quantised: tuple[Manifest, Path]) -> None:
    predictor = Predictor(Bundle.load(quantised[1]))
    expected = predictor.predict([{"text": "rot 1"}])[0].by_label()
    with serving(quantised[1], workers=1) as service:
        reply = httpx.post(f"http://127.0.0.1:{service.port}/predict", files={"text": (None, "rot 1")}, timeout=30)
    assert reply.status_code == 200, reply.text
    given = {each["label"]: each["probability"] for each in reply.json()["probabilities"]}
    assert given == pytest.approx(expected, abs=1e-6)


def deaf(graph: bytes, *_: object) -> bytes:
    """Return a graph that says the same of everything."""
    return _filled(graph, 0)


def _filled(graph: bytes, value: float) -> bytes:
    model = onnx.load_from_string(graph)
    for one in model.graph.initializer:
        if len(one.dims) > 1 and one.name.endswith("weight"):
            one.CopyFrom(onnx.numpy_helper.from_array(np.full(one.dims, value, np.float32), one.name))
    content: bytes = model.SerializeToString()
    return content


def test_a_loss_above_the_bound_is_refused_and_leaves_nothing(
    finished_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_precision, "to_int8", deaf)
    models = tmp_path / "models"
    with pytest.raises(BundleError, match=r"accuracy on val .* falls from .* to .*--precision-loss 0\.01") as caught:
        export_run(finished_run.path, models / "stripes", PrecisionTarget("int8"))
    assert "nothing was exported" in str(caught.value)
    assert list(models.iterdir()) == []


def test_a_loss_on_test_alone_is_refused_too(
    finished_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [{"full": {"accuracy": accuracy, "ece": 0.0, "nll": 0.0}} for accuracy in (0.9, 0.8)]
    monkeypatch.setattr(choose_precision, "_on_test", lambda *given: {"rows": 10, given[-1]: scores.pop(0)})
    with pytest.raises(BundleError, match=r"accuracy on test \(full\) falls from 0\.9000 to 0\.8000"):
        export_run(finished_run.path, tmp_path / "models" / "stripes", PrecisionTarget("int8", 0.05))
    assert list((tmp_path / "models").iterdir()) == []


def test_a_graph_that_overflows_says_nothing_and_is_refused(
    finished_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_precision, "to_int8", lambda graph, *_: _filled(graph, np.inf))
    with pytest.raises(BundleError, match=r"accuracy on val .* falls"):
        export_run(finished_run.path, tmp_path / "models" / "stripes", PrecisionTarget("int8"))


def test_auto_leaves_an_encoder_that_loses_too_much_in_fp32(
    finished_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_precision, "to_int8", deaf)
    manifest = export_run(finished_run.path, tmp_path / "models" / "stripes", PrecisionTarget("auto"))
    assert {encoder["chosen"] for encoder in manifest.precision["encoders"].values()} == {"fp32"}
    assert manifest.tolerance == choose_precision.GOLDEN_TOLERANCE["fp32"]
    before, after = (manifest.precision["measured"]["val"][when] for when in ("before", "after"))
    assert before == after


def test_fp16_is_exported_and_runs_where_there_is_no_gpu(finished_run: RunFolder, tmp_path: Path) -> None:
    manifest = export_run(finished_run.path, tmp_path / "half", PrecisionTarget("fp16", 0.1))
    assert {encoder["chosen"] for encoder in manifest.precision["encoders"].values()} == {"fp16"}
    assert Predictor(Bundle.load(tmp_path / "half")).verify() < 1e-3


def test_data_that_moved_are_found_and_missing_or_changed_data_are_refused(
    finished_run: RunFolder, tmp_path: Path
) -> None:
    facts = finished_run.read_json()
    moved = shutil.copytree(facts["data"], tmp_path / "moved")
    assert len(read_rows_again(facts, moved).train) == 45
    with pytest.raises(ConfigError, match=r"no such table or folder.*--data DIR"):
        export_run(finished_run.path, tmp_path / "out", PrecisionTarget("int8"), tmp_path / "nowhere")
    (moved / "val.jsonl").write_text('{"label": "rot", "text": "rot"}\n')
    with pytest.raises(ConfigError, match=r"their fingerprint differs.*--precision fp32 needs none"):
        export_run(finished_run.path, tmp_path / "out", PrecisionTarget("int8"), moved)
    for folder in (moved, tmp_path / "nowhere"):  # fp32 needs no data, but what is named must be the run's own
        with pytest.raises(ConfigError, match=r"--data DIR"):
            export(ExportConfig(finished_run.path, tmp_path / "out", data=folder))
    assert not (tmp_path / "out").exists()


def test_validation_rows_that_training_held_out_are_held_out_again(finished_run: RunFolder, tmp_path: Path) -> None:
    data = shutil.copytree(finished_run.read_json()["data"], tmp_path / "data")
    (data / "val.jsonl").unlink()
    config = TrainConfig(data=data, runs=tmp_path / "runs", seed=3)
    planned = make_plan(config)
    facts = {
        "config": {"fingerprint": planned.table.fingerprint, "seed": 3},
        "recipe": {"inputs": {"image": {}, "text": {}}},
    }
    rows = read_rows_again(facts, data)
    assert [row.id for row in rows.train] == [row.id for row in planned.rows["train"]]
    assert [row.id for row in rows.val] == [row.id for row in planned.rows["val"]]


@pytest.mark.parametrize("loss", [-0.1, 1.0, float("nan")])
def test_a_bound_that_is_no_fraction_is_refused(finished_run: RunFolder, tmp_path: Path, loss: float) -> None:
    with pytest.raises(ConfigError, match=r"--precision-loss .*expected a fraction"):
        export_run(finished_run.path, tmp_path / "out", PrecisionTarget("int8", loss))
    assert not (tmp_path / "out").exists()


def test_fp32_needs_no_data_and_says_nothing_of_precision(plain: Path) -> None:
    assert Bundle.load(plain).manifest.precision == {}
    assert "## Precision" not in (plain / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("task", "before", "after", "message"),
    [
        (Classes(("a", "b")), 0.9, 0.85, r"accuracy on val \(full\) falls from 0\.9000 to 0\.8500, more"),
        (Labels(("a", "b")), 0.9, 0.85, r"mAP on val \(full\) falls from 0\.9000 to 0\.8500, more"),
        (Number("price", "EUR"), 100.0, 106.0, r"MAE, EUR on val \(full\) grows from 100\.00 to 106\.00, more"),
    ],
)
def test_the_cost_is_bounded_in_the_score_of_the_task(task: Task, before: float, after: float, message: str) -> None:
    old, new = ({"full": {task.cost_score: value}} for value in (before, after))
    _check_loss(task, "val", old, new, ["full"], PrecisionTarget("int8", loss=0.07))
    with pytest.raises(BundleError, match=message):
        _check_loss(task, "val", old, new, ["full"], PrecisionTarget("int8", loss=0.04))
