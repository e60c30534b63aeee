"""A modality that is added later: the head is read and does not learn, what was fitted before keeps every bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mla_serve.bundle.manifest import Bundle
from mla_serve.errors import BundleError, ConfigError, DataError, MlaServeError
from mla_serve.fusion.explain import explain
from mla_serve.fusion.formula import Fusion, pattern_name
from mla_serve.fusion.intervals import Intervals
from mla_serve.fusion.rules import RULES
from mla_serve.inputs import VectorInput
from mla_serve.tasks import Classes
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.samples import Samples
from mla_serve.train.extend.fit import FusionExtension, added_patterns
from mla_serve.train.extend.head import FIXED_HEAD, Head, build_fixed_head, read_head
from mla_serve.train.extend.plan import plan_extension
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.plan import make_plan
from mla_serve.train.recipe import Recipe
from mla_serve.train.run import train_as_planned
from mla_serve.train.strategies import Options

CLASSES = ("red", "green", "blue")
D = 8
MakeBundle = Callable[..., Path]


@pytest.fixture
def old(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    """A bundle over two modalities of which nothing is trained."""
    return make_bundle(tmp_path / "old", {"numbers": "vector", "words": "text"})


@pytest.fixture
def write_late(tmp_path: Path) -> Callable[..., Path]:
    """A table with `numbers` and `words`, which say nothing, and a new vector `late`, which tells the class."""

    def write(name: str = "late", rows: int = 30, classes: tuple[str, ...] = CLASSES, kinds: str = "vector") -> Path:
        folder = tmp_path / f"table-{name}"
        folder.mkdir()
        generator = np.random.default_rng(0)
        for split in ("train", "val", "test"):
            lines = []
            for number in range(rows):
                c = number % len(classes)
                late = (3 * np.eye(6)[c] + 0.3 * generator.standard_normal(6)).round(3).tolist()
                row = {"label": classes[c], "numbers": generator.standard_normal(4).round(3).tolist(), name: late}
                if number % 5:
                    row["words"] = "abc"
                if number % 7 == 3:
                    del row[name]
                lines.append(json.dumps(row))
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        declared = {"modalities": {"numbers": kinds, "words": "text", name: "vector"}}
        (folder / "dataset.json").write_text(json.dumps(declared))
        return folder

    return write


def linear(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.GraphProto:
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", D])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    return helper.make_graph(
        nodes, "head", [given], [result], [numpy_helper.from_array(w, n) for n, w in weights.items()]
    )


class OneHead:
    """As much of a bundle as read_head looks at."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        self.content = model.SerializeToString()
        self.manifest = type("M", (), {"heads": {"head": "head.onnx"}})
        self.task = Classes(CLASSES)
        self.folder = Path("somewhere")

    def read(self, name: str) -> bytes:
        return self.content


W = np.random.default_rng(0).standard_normal((D, 3)).astype(np.float32)
B = np.array([1.0, 2.0, 3.0], np.float32)


@pytest.mark.parametrize(
    ("nodes", "weights", "bias"),
    [
        ([helper.make_node("Gemm", ["features", "w", "b"], ["logits"])], {"w": W, "b": B}, B),
        ([helper.make_node("Gemm", ["features", "w", "b"], ["logits"], transB=1, beta=2.0)], {"w": W.T.copy(), "b": B}, 2 * B),
        ([helper.make_node("Gemm", ["features", "w"], ["logits"])], {"w": W}, 0 * B),
        ([helper.make_node("MatMul", ["features", "w"], ["logits"])], {"w": W}, 0 * B),
        (
            [helper.make_node("MatMul", ["features", "w"], ["z"]), helper.make_node("Add", ["b", "z"], ["logits"])],
            {"w": W, "b": B[None][0]},
            B,
        ),
    ],
)  # fmt: skip
def test_a_linear_head_is_read_in_every_form(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], bias: np.ndarray
) -> None:
    head = read_head(OneHead(linear(nodes, **weights)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(head.weight, W.T)
    np.testing.assert_array_equal(head.bias, bias)


def test_a_head_that_is_more_than_linear_is_refused() -> None:
    nodes = [helper.make_node("Relu", ["features"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["logits"])]
    with pytest.raises(BundleError, match=r"holds Relu, MatMul; expected a linear layer"):
        read_head(OneHead(linear(nodes, w=W)))  # type: ignore[arg-type]


def test_the_encoder_learns_and_the_head_does_not(make_samples: Callable[..., Samples]) -> None:
    from mla_serve.train.data.batches import training_batches

    head = Head("head", W.T, B)
    recipe = Recipe(Classes(CLASSES), {"a": VectorInput(6)}, {"a": "small"}, D, FIXED_HEAD, Options(weight_decay=0.1))
    late = build_fixed_head(recipe, head)
    samples = make_samples(("a",), rows=60)
    late.prepare(100, 60)
    late.train()
    before = {name: value.clone() for name, value in late.state_dict().items()}
    losses = []
    for epoch in range(12):
        generator = torch.Generator().manual_seed(epoch)
        for batch in training_batches(samples, 20, generator, torch.device("cpu"), augment={}):
            losses.append(late.step(batch)["loss/a"])
    assert losses[-1] < losses[0] - 0.3
    for name, value in late.state_dict().items():
        assert name.startswith("encoders") or torch.equal(value, before[name])
    np.testing.assert_array_equal(late.heads["head"].weight.detach().numpy(), head.weight)


def evidence(names: int, rows: int = 80, seed: int = 0) -> Evidence:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    logits = generator.normal(size=(names, rows, 3)) + 2.0 * np.eye(3)[labels]
    present = generator.random((names, rows)) < 0.8
    present[-1] = True
    return Evidence.of(4 * logits, present, labels, generator.random((names, rows)), Classes(("x", "y", "z")))


BASES = (
    Fusion({"a": 0.7, "b": 2.0}, 1.4, {"a": 1.1, "a+b": 0.9}, {"a": 0.2}, {"a": 1.0, "b": 2.0}),
    Fusion({"a": 0.7, "b": 2.0}, 0.0, {"2": 1.3, "1": 0.8}),
    Fusion(
        {name: 1.0 + n / 5 for n, name in enumerate("abcdefg")}, 1.4, {"2": 1.3, "7": 0.8}, dict.fromkeys("ab", 0.3)
    ),
)


@pytest.mark.parametrize("base", BASES)
def test_what_was_fitted_before_stays_and_the_new_is_fitted(base: Fusion) -> None:
    count = len(base.temperatures) + 1
    extension = FusionExtension(base, ["late"])
    fusion = extension.with_static_weights(
        evidence(count), extension.fit(evidence(count), evidence(count, seed=1), 1e-2)
    )
    for field in ("temperatures", "scales", "discounts", "shares"):
        before, after = dict(getattr(base, field)), dict(getattr(fusion, field))
        assert {key: after[key] for key in before} == before
        assert all("late" in key for key in after.keys() - before.keys())
    alone = np.array([[name == "late"] for name in fusion.temperatures])
    assert fusion.temperatures["late"] / fusion.scale(alone)[0] > 1.2  # its logits are four times too sure
    assert (fusion.sharpness, fusion.native) == (base.sharpness, base.native)
    assert list(fusion.temperatures) == [*base.temperatures, "late"]
    assert bool(fusion.shares) == bool(base.shares)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_handful_of_rows_is_fitted_without_a_pattern_that_has_enough(rows: int) -> None:
    extension, few = FusionExtension(BASES[0], ["late"]), evidence(3, rows)
    ridge, _ = extension.choose_ridge(few, np.arange(rows))
    fusion = extension.fit(few, few, ridge)
    assert np.isfinite([*fusion.temperatures.values(), *fusion.scales.values(), *fusion.discounts.values()]).all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(BASES), st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([2, 3, 11, 64]))
def test_old_patterns_are_fused_to_the_same_bits(base: Fusion, seed: int, rows: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    count = len(base.temperatures)
    extension = FusionExtension(base, ["late"])
    fusion = extension.fit(evidence(count + 1, 20), evidence(count + 1, 20, seed=1), np.inf)
    logits = 10 * generator.normal(size=(count, rows, classes)).astype(np.float32)
    present = generator.random((count, rows)) < 0.6
    present[generator.integers(count), ~present.any(axis=0)] = True
    excess = np.where(present, 3 * generator.random((count, rows)), 0.0)

    def more(values: np.ndarray, fill: float) -> np.ndarray:
        return np.concatenate([values, np.full_like(values[:1], fill)])

    for rule in RULES:
        old = explain(logits, present, base, rule, excess)
        new = explain(more(logits, 0), more(present, False), fusion, rule, more(excess, 0))
        was, now = old.fused, new.fused
        assert was.answers.tobytes() == now.answers.tobytes(), rule
        assert was.weights.tobytes() == now.weights[:-1].tobytes()
        assert not now.weights[-1].any()
        assert old.influence.tobytes() == new.influence[:-1].tobytes()
        assert old.alone[present].tobytes() == new.alone[:-1][present].tobytes()


def test_thresholds_of_old_patterns_are_found_where_they_were() -> None:
    def thresholds(found: dict[str, float]) -> Intervals:
        return Intervals.of_format_1(Classes(), {"paper": {key: [score] * 99 for key, score in found.items()}})

    before = thresholds({"a": 0.1, "2": 0.2, "1": 0.3})
    once = before.extended(thresholds({"late": 0.4, "a+late": 0.5, "a+b+late": 0.6}), ["late"])
    twice = once.extended(thresholds({"late+later": 0.7, "later": 0.8}), ["later"])
    for found in (before, once, twice):
        for pattern, threshold in ((["a"], 0.1), (["b"], 0.3), (["a", "b"], 0.2)):
            assert found.threshold("paper", pattern, 0.9)[0] == pytest.approx(threshold)
    for found in (once, twice):
        assert found.threshold("paper", ["a", "late"], 0.9)[0] == pytest.approx(0.5)
        assert found.threshold("paper", ["b", "late"], 0.9)[0] == pytest.approx(0.5)
        assert found.threshold("paper", ["a", "b", "late"], 0.9)[0] == pytest.approx(0.6)
    assert twice.threshold("paper", ["late", "later"], 0.9)[0] == pytest.approx(0.7)
    assert twice.threshold("paper", ["a", "later"], 0.9)[0] == pytest.approx(0.7)


def test_the_patterns_of_an_addition_all_contain_it() -> None:
    for old_count, added in itertools.product((1, 2, 7), (1, 2)):
        patterns = added_patterns(old_count, added)
        assert patterns[:, old_count:].any(axis=1).all()
        assert len(np.unique(patterns, axis=0)) == len(patterns)
    assert len(added_patterns(2, 1)) == 4
    assert pattern_name(["a", "late"]) == "a+late"


def config(old: Path, data: Path, tmp_path: Path, **more: object) -> TrainConfig:
    fields = {"extend": old, "data": data, "out": tmp_path / "models" / "new", "runs": tmp_path / "runs"} | more
    return TrainConfig(**fields)  # type: ignore[arg-type]


REFUSED = [
    ({"strategy": "ensemble"}, ConfigError, "--strategy ensemble: does not go with --extend"),
    ({"heads": "separate"}, ConfigError, "--heads separate: does not go with --extend"),
    ({"width": 64}, ConfigError, "--width 64: does not go with --extend"),
    ({"hgm": "off"}, ConfigError, "--hgm off: does not go with --extend"),
    ({"name": "old"}, ConfigError, "--name old: that is the name of the extended bundle"),
    ({"out": Path("old")}, ConfigError, "is the folder of the extended bundle"),
    ({"out": Path("old/inside")}, ConfigError, "lies in the folder of the extended bundle"),
    ({"out": Path(), "runs": Path("/nowhere")}, ConfigError, "holds the folder of the extended bundle"),
    ({"modalities": ("words",)}, ConfigError, "--modalities words: the bundle has that already"),
    ({"modalities": ("smell",)}, ConfigError, "--modalities smell: the table has"),
    ({"encoders": ("words=small",)}, ConfigError, "expected NAME=ENCODER with a name out of late"),
]


@pytest.mark.parametrize(("flags", "error", "says"), REFUSED)
def test_flags_that_do_not_fit_are_refused_before_anything_is_written(
    old: Path, write_late: Callable[..., Path], tmp_path: Path, flags: dict[str, object], error: type, says: str
) -> None:
    if isinstance(flags.get("out"), Path):
        flags = {"out": tmp_path / str(flags["out"])}
    with pytest.raises(error) as caught:
        plan_extension(config(old, write_late(), tmp_path, **flags))
    assert says in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_bundles_and_tables_that_do_not_fit_are_refused(
    old: Path, make_bundle: MakeBundle, write_late: Callable[..., Path], tmp_path: Path
) -> None:
    def refusal(bundle: Path, data: Path) -> str:
        with pytest.raises(MlaServeError) as caught:
            plan_extension(config(bundle, data, tmp_path))
        return str(caught.value)

    good = write_late()
    kinds = {"numbers": "vector", "words": "text", "late": "vector"}
    assert "the bundle has all of them" in refusal(make_bundle(tmp_path / "all", kinds), good)
    purple = write_late("purple", classes=(*CLASSES, "purple"))
    assert "labels that the bundle does not know: purple" in refusal(old, purple)
    (purple / "val.jsonl").write_text('{"label": "red", "words": "abc"}\n' * 3)
    other = make_bundle(tmp_path / "other", {"late": "image"})
    assert "modality late: of kind vector" in refusal(other, good)
    head = old / "head.onnx"
    head.write_bytes(head.read_bytes()[:-1] + b"x")
    assert "its sha256 is not the manifest's" in refusal(old, good)


def test_a_split_without_the_new_modality_is_refused(
    old: Path, write_late: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_late()
    (data / "val.jsonl").write_text('{"label": "red", "words": "abc"}\n{"label": "green", "words": "abc"}\n')
    with pytest.raises(ConfigError, match=r"modality late: no row of val has it"):
        plan_extension(config(old, data, tmp_path))


def test_several_heads_are_refused_and_a_faulty_row_is_named(
    old: Path, change_manifest: Callable[..., None], write_late: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_late()
    lines = (data / "val.jsonl").read_text().splitlines()
    (data / "val.jsonl").write_text("\n".join([*lines, json.dumps({"label": "red", "words": " ", "late": [1.0]})]))
    with pytest.raises(DataError, match="late: expected 6 numbers"):
        plan_extension(config(old, data, tmp_path))
    change_manifest(old, lambda manifest: manifest["heads"].update(second="head.onnx"))
    with pytest.raises(ConfigError, match=r"the bundle has 2 heads, head, second.*--heads shared"):
        plan_extension(config(old, data, tmp_path))
    assert Bundle.load(old).manifest.heads.keys() == {"head", "second"}


def test_a_resumed_extension_ends_where_an_uninterrupted_one_does(
    old: Path, write_late: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_late()

    def train(runs: str, stop: bool = False, resume: bool = False) -> Path:
        told = config(old, data, tmp_path, runs=tmp_path / runs, epochs=3, batch_size=10, resume=resume)

        def report(record: dict[str, object]) -> None:
            if stop and record["epoch"] == 1:
                raise KeyboardInterrupt

        return train_as_planned(told, plan_extension(told), report).path

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("parts", stop=True)
    parts = train("parts", resume=True)
    assert (whole / "metrics.jsonl").read_text() == (parts / "metrics.jsonl").read_text()
    one, other = (json.loads((run / "run.json").read_text()) for run in (whole, parts))
    assert (one["fusion"], one["best"]) == (other["fusion"], other["best"])
    intervals = [
        Intervals.from_bytes(Classes(), (run / "intervals.npz").read_bytes()).thresholds for run in (whole, parts)
    ]
    np.testing.assert_equal(
        *({rule: {key: t.values for key, t in of.items()} for rule, of in each.items()} for each in intervals)
    )
    weights = [torch.load(run / "best.pt", weights_only=True)["weights"] for run in (whole, parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_extension_is_resumed_where_its_bundle_was_moved_to(
    old: Path, write_late: Callable[..., Path], tmp_path: Path
) -> None:
    told = config(old, write_late(), tmp_path, epochs=2, batch_size=10, name="same")

    def stop(record: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_as_planned(told, plan_extension(told), stop)
    moved = old.rename(tmp_path / "moved")
    told = dataclasses.replace(told, extend=moved, resume=True)
    run = train_as_planned(told, plan_extension(told), lambda record: None)
    assert json.loads((run.path / "run.json").read_text())["config"]["extends"]["folder"] == str(moved)


def test_an_extension_of_another_bundle_is_not_resumed(
    old: Path, make_bundle: MakeBundle, write_late: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_late()
    told = config(old, data, tmp_path, epochs=1, batch_size=10, name="same")
    train_as_planned(told, plan_extension(told), lambda record: None)
    other = make_bundle(tmp_path / "another", {"numbers": "vector", "words": "text"}, seed=4)
    told = dataclasses.replace(told, extend=other, resume=True)
    with pytest.raises(ConfigError, match=r"--resume: .*extends changed"):
        train_as_planned(told, plan_extension(told), lambda record: None)
    told = dataclasses.replace(told, extend=None)
    with pytest.raises(ConfigError, match=r"--resume: .*extends changed"):
        train_as_planned(told, make_plan(told), lambda record: None)
