"""A bundle with a modality added: answers without it are those of before to the bit, and with it they are better."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mla_serve.bundle.manifest import Bundle, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import BundleError, ConfigError
from mla_serve.evaluation.splits import run_split, score_split
from mla_serve.export.card import model_card
from mla_serve.export.choose_precision import PrecisionTarget
from mla_serve.export.export_extension import check_unchanged
from mla_serve.export.export_run import export_run
from mla_serve.fusion.formula import pattern_name
from mla_serve.fusion.novelty import References
from mla_serve.fusion.rules import RULES
from mla_serve.inputs import Payload
from mla_serve.train.config import TrainConfig
from mla_serve.train.extend.plan import plan_extension
from mla_serve.train.fit.novelty import fit_reference
from mla_serve.train.run import train_as_planned
from mla_serve.train.run_folder import RunFolder

CLASSES = ("red", "green", "blue")
OLD = ("numbers", "words")
FITTED_AGAIN = {
    "trained": "2025-12-01T00:00:00+00:00",
    "created": "2025-12-01T00:00:00+00:00",
    "sha256": "0" * 64,
    "versions": {"mla_serve": "0.2.0"},
    "split": "val",
    "rows": 300,
    "fingerprint": "1" * 64,
    "notes": ["fusion: ridge 0.1"],
    "before": {"full": {"accuracy": 0.5, "nll": 1.0}},
}
"""Facts of a bundle that was fitted again before it was extended."""


def write_late(folder: Path) -> Path:
    """Write a table with `numbers` and `words`, which say nothing, and a new text, `colour`, which tells the class."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for split, rows in (("train", 45), ("val", 60), ("test", 45)):
        lines = []
        for number in range(rows):
            row = {"label": CLASSES[number % 3], "colour": f"{CLASSES[number % 3]} {number % 5}", "words": "abc"}
            row["numbers"] = generator.standard_normal(4).round(3).tolist()
            if number % 7 == 3:
                del row[("numbers", "colour", "words")[number % 3]]
            lines.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    declared = {"modalities": {"numbers": "vector", "words": "text", "colour": "text"}}
    (folder / "dataset.json").write_text(json.dumps(declared))
    return folder


def references() -> bytes:
    features = np.random.default_rng(1).standard_normal((90, 8)).astype(np.float32)
    indicators = np.eye(3)[np.arange(90) % 3]
    reference, _ = fit_reference(features, indicators, features[:30] + 0.1, features[:30] * 3)
    return References({"numbers": reference}).to_bytes()


@pytest.fixture(scope="session")
def old(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a reference for one modality and scores by pattern, and by number where patterns are few."""
    scores = {rule: {"numbers": [0.1, 0.3, 0.6], "1": [0.2, 0.5], "2": [0.1, 0.2, 0.4, 0.7]} for rule in RULES}
    folder = make_bundle(tmp_path_factory.mktemp("bundles") / "old", dict(zip(OLD, ("vector", "text"), strict=True)))
    (folder / "familiar.npz").write_bytes(references())

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"unfamiliar": "familiar.npz", "conformal": scores, "training": {"recalibrated": FITTED_AGAIN}}
    manifest["fusion"] |= {"discounts": {"numbers": 0.4}, "shares": {"numbers": 2.0, "words": 1.0}}
    write_manifest(folder, Manifest(**manifest))
    return folder


@pytest.fixture(scope="session")
def config(old: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("late")
    data = write_late(folder / "data")
    more = {"epochs": 8, "batch_size": 15, "lr": 0.01, "out": folder / "new", "device": "cpu"}
    return TrainConfig(extend=old, data=data, runs=folder / "runs", name="new", **more)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def new(config: TrainConfig) -> Path:
    run = train_as_planned(config, plan_extension(config), lambda record: None)
    assert config.out is not None
    export_run(run.path, config.out)
    return config.out


@pytest.fixture(scope="session")
def both(old: Path, new: Path) -> tuple[Predictor, Predictor]:
    return Predictor(Bundle.load(old)), Predictor(Bundle.load(new))


@pytest.mark.parametrize("rule", RULES)
def test_answers_without_the_added_modality_keep_every_bit(both: tuple[Predictor, Predictor], rule: str) -> None:
    before, after = both
    generator = np.random.default_rng(0)
    inputs = before.bundle.inputs
    samples: list[dict[str, Payload]] = [
        {name: inputs[name].generate(generator) for name in names}
        for size in (1, 2)
        for names in itertools.combinations(OLD, size)
        for _ in range(4)
    ]
    for batch in ([samples[0]], [samples[-1]], samples):
        for coverage in (None, 0.5, 0.9):
            was, now = (one.predict(batch, rule, coverage=coverage) for one in (before, after))
            assert was == [dataclasses.replace(each, missing=each.missing[:-1]) for each in now]
            assert all(each.missing[-1] == "colour" for each in now)


def test_with_the_added_modality_more_is_right(
    both: tuple[Predictor, Predictor], config: TrainConfig, new: Path
) -> None:
    _, after = both
    assert config.data is not None
    found = score_split(after, run_split(after, config.data), 0, ("calibrated",))["conditions"]
    accuracy = {name: scores["calibrated"]["accuracy"] for name, scores in found.items()}
    assert accuracy["colour"] > 0.9
    assert accuracy["numbers+words+colour"] > accuracy["numbers+words"] + 0.2
    assert found["full"]["calibrated"]["nll"] < found["numbers+words"]["calibrated"]["nll"]
    assert "colour" in (new / "MODEL_CARD.md").read_text()
    assert "cards/" in (new / "MODEL_CARD.md").read_text()


def test_old_files_and_facts_are_those_of_before(old: Path, new: Path) -> None:
    was, now = Bundle.load(old).manifest, Bundle.load(new).manifest
    kept = {name: sha256 for name, sha256 in was.files.items() if name != "familiar.npz"}
    assert kept.items() <= now.files.items()
    assert now.golden[: len(was.golden)] == was.golden
    assert all("colour" in each.payloads for each in now.golden[len(was.golden) :])
    assert len(now.golden) > len(was.golden)
    for field in ("temperatures", "scales", "discounts", "shares"):
        before, after = getattr(was.fusion, field), getattr(now.fusion, field)
        assert before.items() <= after.items()
        assert all("colour" in key for key in after.keys() - before.keys())
    thresholds = Bundle.load(new).intervals.thresholds
    for rule, patterns in Bundle.load(old).intervals.thresholds.items():
        for key, before in patterns.items():
            np.testing.assert_array_equal(thresholds[rule][key].values, before.values)
        assert all("colour" in key for key in thresholds[rule].keys() - patterns.keys())
        assert "colour" in thresholds[rule]
    assert list(now.modalities) == [*OLD, "colour"]
    assert now.modalities["colour"].input["tokenizer"] == "colour.tokenizer.json"
    step = now.training["extended"][0]
    assert (step["name"], step["sha256"], step["added"]) == (was.name, was.sha256, ["colour"])
    assert str(old) not in (new / "manifest.json").read_text()


def test_the_card_tells_an_earlier_fit_as_one_of_the_extended_bundle(new: Path) -> None:
    """What was better after it is in the old card; the extension changed the scores too, or they were not measured."""
    manifest = Bundle.load(new).manifest
    assert "recalibrated" not in manifest.training
    assert manifest.training["extended"][0]["recalibrated"]["rows"] == 300
    for card in (model_card(manifest), model_card(manifest.model_copy(update={"metrics": {}}))):
        assert "## Recalibrated" not in card
        assert "Fitted again on" not in card
        assert "it had been fitted again, on 1 January 2026, to 300 rows" in card
        assert "answers are those of old to the bit" in card
    page = Bundle.load(new).read("report.html").decode()
    assert "<dt>Fitted again</dt>" not in page
    assert "fusion: ridge 0.1" in page


def test_the_old_references_keep_their_bytes(old: Path, new: Path) -> None:
    was, now = (np.load(io.BytesIO((folder / "familiar.npz").read_bytes())) for folder in (old, new))
    for name in was.files:
        assert (was[name].dtype, was[name].tobytes()) == (now[name].dtype, now[name].tobytes())
    assert "colour/points" in now.files


def test_the_extended_bundle_is_not_touched_and_its_run_can_be_exported_again(
    old: Path, new: Path, config: TrainConfig, tmp_path: Path
) -> None:
    def digest(folder: Path) -> str:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()

    before = digest(old)
    run = config.runs / "new"
    with pytest.raises(ConfigError, match="is the folder of the extended bundle"):
        export_run(run, old)
    with pytest.raises(ConfigError, match=r"--precision int8: an extended bundle keeps its graphs"):
        export_run(run, tmp_path / "small", PrecisionTarget("int8"))
    assert digest(old) == before
    assert not (tmp_path / "small").exists()


def test_a_bundle_that_answers_otherwise_is_not_written(
    both: tuple[Predictor, Predictor], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", {"numbers": "vector", "words": "text", "colour": "text"}, seed=5)
    with pytest.raises(BundleError, match=r"answers to numbers by calibrated are not those of"):
        check_unchanged(both[0], Predictor(Bundle.load(other)))


@pytest.mark.parametrize("names", ["ab", "cd", "acd", "abcde"])
def test_one_subset_of_many_that_is_answered_otherwise_is_found(
    names: str, make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bundles of five modalities differ in the scale of one pattern."""
    old, new = (Predictor(Bundle.load(make_bundle(tmp_path / at, dict.fromkeys("abcde", "vector")))) for at in "on")
    check_unchanged(old, new)
    scales = {**new.bundle.fusion.scales, pattern_name(list(names)): 2.0}
    monkeypatch.setattr(new.bundle, "fusion", dataclasses.replace(new.bundle.fusion, scales=scales))
    with pytest.raises(BundleError, match=re.escape(f"answers to {'+'.join(names)} by calibrated are not those of")):
        check_unchanged(old, new)


def test_a_run_whose_bundle_was_replaced_is_not_exported(
    old: Path, new: Path, config: TrainConfig, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    facts = json.loads((config.runs / "new" / "run.json").read_text())
    replaced = make_bundle(tmp_path / "replaced", dict(zip(OLD, ("vector", "text"), strict=True)), seed=3)
    facts["config"]["extends"]["folder"] = str(replaced)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"or replaced since; give the right folder with --base"):
        export_run(run, tmp_path / "again")


def test_a_base_for_a_run_that_extends_nothing_is_refused(finished_run: RunFolder, old: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--base .*: .* is not an extension of a bundle; leave it out"):
        export_run(finished_run.path, tmp_path / "out", base=old)
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_was_moved_is_named(
    old: Path, new: Path, config: TrainConfig, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    facts = json.loads((config.runs / "new" / "run.json").read_text())
    facts["config"]["extends"]["folder"] = str(tmp_path / "gone")
    run = shutil.copytree(config.runs / "new", tmp_path / "run")
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=r"gone: the extended bundle, old, is not there; .* --base FOLDER"):
        export_run(run, tmp_path / "again")
    other = make_bundle(tmp_path / "other", dict(zip(OLD, ("vector", "text"), strict=True)), seed=3)
    with pytest.raises(BundleError, match=r"not the bundle that was extended"):
        export_run(run, tmp_path / "again", base=other)
    moved = shutil.copytree(old, tmp_path / "moved")
    assert export_run(run, tmp_path / "again", base=moved).fusion == Bundle.load(new).manifest.fusion


@pytest.mark.slow
def test_an_extended_bundle_is_extended_again(new: Path, config: TrainConfig, tmp_path: Path) -> None:
    assert config.data is not None
    data = tmp_path / "data"
    data.mkdir()
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        rows = [json.loads(line) for line in (config.data / f"{split}.jsonl").read_text().splitlines()]
        for row in rows:
            row["smell"] = (2 * np.eye(3)[CLASSES.index(row["label"])] + generator.standard_normal(3)).round(3).tolist()
            row["note"] = f"{row['label']} it was"
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    kinds = {"numbers": "vector", "words": "text", "colour": "text", "smell": "vector", "note": "text"}
    (data / "dataset.json").write_text(json.dumps({"modalities": kinds}))
    told = dataclasses.replace(config, extend=new, data=data, name="newer", out=tmp_path / "newer", epochs=3)
    run = train_as_planned(told, plan_extension(told), lambda record: None)
    manifest = export_run(run.path, tmp_path / "newer")
    before, after = (Predictor(Bundle.load(folder)) for folder in (new, tmp_path / "newer"))
    assert list(after.names) == [*OLD, "colour", "smell", "note"]
    assert [step["name"] for step in manifest.training["extended"]] == ["old", "new"]
    assert manifest.modalities["note"].input["tokenizer"] == "smell_note.tokenizer.json"
    assert manifest.metrics["conditions"]["full"]["calibrated"]["accuracy"] > 0.9
    sample = {"numbers": [0.1, 0.2, 0.3, 0.4], "words": "abc", "colour": "red 1"}
    for rule in RULES:
        for size in (1, 2, 3):
            for names in itertools.combinations(sample, size):
                some = [{name: sample[name] for name in names}]
                was, now = (one.predict(some, rule, coverage=0.8)[0] for one in (before, after))
                assert was == dataclasses.replace(now, missing=now.missing[:-2])
