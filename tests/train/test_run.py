"""From a table to a bundle: bit-exact resuming, export, evaluation, and what is refused before training."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tokenizers
import torch
from PIL import Image

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.export import ExportConfig
from mla_serve.commands.export import run as export
from mla_serve.commands.train import TrainFlags
from mla_serve.commands.train import run as train_command
from mla_serve.errors import BundleError, ConfigError, DataError, InputError
from mla_serve.evaluation.splits import SHOWN_RULES, run_split, score_split
from mla_serve.export.export_run import export_run
from mla_serve.inputs import TextInput
from mla_serve.python.fit import fit
from mla_serve.table import Row, Table
from mla_serve.tasks import Classes
from mla_serve.train.augmentation import choose_augmentation
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.decode import decode_table
from mla_serve.train.data.samples import make_samples
from mla_serve.train.plan import Plan, make_plan
from mla_serve.train.run import train_as_planned
from mla_serve.train.run_folder import BEST, LAST, RunFolder


class Interrupted(Exception):
    """What stops a run in these tests."""


@pytest.fixture
def config(write_table: Callable[..., Path], tmp_path: Path) -> TrainConfig:
    return TrainConfig(data=write_table(), name="small", runs=tmp_path / "runs", epochs=4, batch_size=16, width=16)


def train(config: TrainConfig, stop_after: int | None = None) -> RunFolder:
    def report(record: dict[str, object]) -> None:
        if record["epoch"] == stop_after:
            raise Interrupted

    return train_as_planned(config, make_plan(config), report)


def weights(folder: Path, name: str = BEST) -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)["weights"]  # type: ignore[no-any-return]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config: TrainConfig) -> None:
    whole = train(config)
    parts = dataclasses.replace(config, name="parts")
    with pytest.raises(Interrupted):
        train(parts, stop_after=2)
    resumed = train(dataclasses.replace(parts, resume=True))
    for name in (BEST, LAST):
        first, second = weights(whole.path, name), weights(resumed.path, name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert (whole.path / "metrics.jsonl").read_text() == (resumed.path / "metrics.jsonl").read_text()
    assert whole.read_fusion() == resumed.read_fusion()


def test_planning_counts_towards_the_time_limit(config: TrainConfig) -> None:
    limited = dataclasses.replace(config, time_limit=600.0)
    planned = make_plan(limited)
    with pytest.raises(ConfigError, match=r"--time-limit 600: reading and decoding alone took 600\.0 minutes"):
        train_as_planned(limited, planned, lambda _: None, spent=36_000)
    assert not (config.runs / "small").exists()
    run = train_as_planned(limited, planned, lambda _: None, spent=18_000)
    assert torch.load(run.path / LAST, weights_only=True)["elapsed"] >= 18_000
    run = train_as_planned(dataclasses.replace(limited, resume=True), planned, lambda _: None, spent=60)
    assert run.read_json("run.json")["best"]


def test_the_command_and_fit_count_planning(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = dataclasses.replace(config, time_limit=0.005)
    original = make_plan

    def slow(*args: Any) -> Plan:
        time.sleep(0.4)
        return original(*args)

    monkeypatch.setattr("mla_serve.train.plan.make_plan", slow)
    with pytest.raises(ConfigError, match="reading and decoding alone took"):
        train_command(TrainFlags(**vars(limited)))
    with pytest.raises(ConfigError, match="reading and decoding alone took"):
        fit(config.data, runs=config.runs, name="other", time_limit=0.005)


def test_a_half_written_epoch_is_done_again(config: TrainConfig) -> None:
    whole = train(config)
    parts = dataclasses.replace(config, name="parts")
    with pytest.raises(Interrupted):
        train(parts, stop_after=2)
    with (config.runs / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "acc')
    resumed = train(dataclasses.replace(parts, resume=True))
    assert (whole.path / "metrics.jsonl").read_text() == (resumed.path / "metrics.jsonl").read_text()


def test_resuming_with_other_settings_is_refused(config: TrainConfig) -> None:
    with pytest.raises(Interrupted):
        train(config, stop_after=1)
    with pytest.raises(ConfigError, match="lr changed"):
        train(dataclasses.replace(config, resume=True, lr=0.01))


def test_a_second_run_of_the_same_name_keeps_the_first_beside_it(config: TrainConfig) -> None:
    first = weights(train(config).path)
    train(dataclasses.replace(config, seed=1))
    kept = weights(config.runs / "small.old")
    assert all(torch.equal(first[key], kept[key]) for key in first)


def test_the_whole_path_ends_in_a_bundle_that_says_what_torch_says(config: TrainConfig, tmp_path: Path) -> None:
    folder = train(config)
    manifest = export_run(folder.path, tmp_path / "models" / "small")
    predictor = Predictor(Bundle.load(tmp_path / "models" / "small"))
    assert predictor.verify() < 1e-5
    assert max(manifest.parity["largest_difference"].values()) < 1e-4
    assert manifest.metrics["conditions"]["full"]["calibrated"]["accuracy"] > 0.8
    assert (tmp_path / "models" / "small" / "MODEL_CARD.md").read_text().startswith("# small")
    split_run = run_split(predictor, config.data, "test")  # type: ignore[arg-type]
    again = score_split(predictor, split_run, 20, SHOWN_RULES)
    assert again["conditions"] == manifest.metrics["conditions"]
    assert str(tmp_path) not in (tmp_path / "models" / "small" / "manifest.json").read_text()


def test_the_bundle_holds_no_training_row_unless_asked_for(config: TrainConfig, tmp_path: Path) -> None:
    manifest = export_run(train(config).path, tmp_path / "plain")
    assert manifest.golden_source == "generated"
    assert [set(golden.payloads) for golden in manifest.golden] == [{"text", "numbers"}] * 8 + [{"text"}, {"numbers"}]
    rows = [json.loads(line) for path in config.data.glob("*.jsonl") for line in path.read_text().splitlines()]  # type: ignore[union-attr]
    sent = {str(golden.payloads.get(name)) for golden in manifest.golden for name in ("text", "numbers")}
    assert not sent & {str(row.get(name)) for row in rows for name in ("text", "numbers")} - {"None"}
    files = {path: path.read_bytes() for path in (tmp_path / "plain").rglob("*") if path.is_file()}
    assert not [path.name for path, content in files.items() if b'gruen 4"' in content or b"gruen 4<" in content]
    card = (tmp_path / "plain" / "MODEL_CARD.md").read_text()
    assert "`golden/` holds 10 generated payloads, none of the training data." in card
    assert "`unfamiliar.npz`, by which unfamiliar input is detected, holds features of" in card
    assert "The tokenizer's vocabulary holds words and parts of words" in card


def test_samples_puts_training_rows_into_the_bundle(config: TrainConfig, tmp_path: Path) -> None:
    manifest = export_run(train(dataclasses.replace(config, samples=True)).path, tmp_path / "bundle")
    assert manifest.golden_source == "training rows"
    assert {str(golden.payloads["text"]).split()[0] for golden in manifest.golden} == {"rot", "gruen", "blau"}
    assert "anyone who can call the service can see them" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("there", [("train",), ("train", "test")])
def test_without_validation_rows_a_part_of_training_is_held_out_and_said(
    config: TrainConfig, tmp_path: Path, there: tuple[str, ...]
) -> None:
    for split in {"val", "test"} - set(there):
        (config.data / f"{split}.jsonl").unlink()  # type: ignore[operator]
    manifest = export_run(train(config).path, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert (manifest.metrics["split"], manifest.metrics["rows"]) == (
        ("val", 12) if "test" not in there else ("test", 30)
    )
    assert ("They were held out of the training rows" in card) == ("test" not in there)
    assert ("prints them again" in card) == ("test" in there)
    assert (tmp_path / "bundle" / "report.html").exists()


def test_data_that_are_gone_or_changed_cost_the_figures_and_not_the_bundle(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(config)
    (config.data / "test.jsonl").write_text('{"label": "gelb", "text": "gelb"}\n')  # type: ignore[operator]
    for out in ("changed", "gone"):
        export(ExportConfig(folder.path, tmp_path / out))
        again = f"mla-serve export {folder.path} --data DIR"
        assert f"not measured; with the data set: {again}" in capsys.readouterr().out
        assert Bundle.load(tmp_path / out).manifest.metrics == {}
        assert "Not measured" in (tmp_path / out / "MODEL_CARD.md").read_text()
        shutil.rmtree(config.data, ignore_errors=True)  # type: ignore[arg-type]
    assert "their fingerprint differs" in caplog.text
    assert "no such table or folder" in caplog.text


def write_rows(folder: Path, **splits: list[dict[str, object]]) -> Path:
    """Write a table of texts and numbers."""
    folder.mkdir()
    (folder / "dataset.json").write_text('{"modalities": {"numbers": "vector"}}')
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_what_has_too_few_rows_is_said_before_training_and_on_the_card(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"label": "ab"[n % 2], "text": f"word {n}"} for n in range(24)]
    one = {"label": "a", "text": "x", "numbers": [1, 2]}
    data = write_rows(tmp_path / "rows", train=[*rows, one], val=rows[:8], test=rows[:8])
    config = TrainConfig(data=data, runs=tmp_path / "runs", epochs=1, batch_size=8, width=8)
    notes = make_plan(config).notes
    assert "numbers: only 1 training row has it; an encoder that normalises over its batch learns nothing" in "\n".join(
        notes
    )
    assert (
        "numbers: no validation row has it; its probabilities are not calibrated and it is not measured alone" in notes
    )
    assert not any(note.startswith(("text: only", "text: no ")) for note in notes)
    manifest = export_run(train(config).path, tmp_path / "bundle")
    assert manifest.training["rows"] == {"train": {"text": 25, "numbers": 1}, "val": {"text": 8, "numbers": 0}}
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "| numbers | 1 | 0 | 1.00, not fitted: too few validation rows |" in card
    assert "| text | 25 | 8 | 1.00, as in the paper" in card or "fitted on validation |" in card


def test_a_modality_of_one_class_is_said_and_one_without_training_rows_is_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"label": "ab"[n % 2], "text": f"word {n}"} for n in range(24)]
    wide: list[dict[str, object]] = [{**row, "numbers": [1, 2]} for row in rows]
    data = write_rows(tmp_path / "one", train=[*rows, *wide[::2]], val=wide)
    notes = make_plan(TrainConfig(data=data, runs=tmp_path / "runs")).notes
    assert "numbers: the training rows with it have one class only, 'a'; nothing can be learned from it" in notes
    (data / "dataset.json").unlink()
    for name in ("image.png", "train.jsonl", "val.jsonl"):
        (data / name).touch()
    Image.new("L", (8, 8)).save(data / "image.png")
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "val.jsonl").write_text(json.dumps({**rows[0], "image": "image.png"}) + "\n")
    with pytest.raises(ConfigError, match=r"modality image: no training row has it; add rows, or leave it out with"):
        make_plan(TrainConfig(data=data, runs=tmp_path / "runs"))


@pytest.mark.parametrize("file", ["best.pt", "last.pt", "metrics.jsonl"])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    config: TrainConfig, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(dataclasses.replace(config, name="whole"))
    save, count = torch.save, iter(range(100))

    def fail(state: object, path: Path) -> None:
        save(state, path)
        if file in path.name and next(count) == 1:
            (path.parent / "config.json").chmod(0o600)
            os.truncate(path, 10)
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 22")

    monkeypatch.setattr(torch, "save", fail)
    if file == "metrics.jsonl":
        (config.runs / "small").mkdir(parents=True)
        (config.runs / "small" / file).symlink_to("/dev/full")
        monkeypatch.setattr("mla_serve.train.run.move_to_backup", lambda *_: None)
        monkeypatch.setattr("mla_serve.train.plan.check_paths", lambda *_: [])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(ConfigError, match=rf"small/{file}: cannot be written.*--resume goes on"):
            train(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.undo()
    assert not list((config.runs / "small").glob(".*"))
    if file == "metrics.jsonl":
        (config.runs / "small" / file).unlink()
    resumed = train(dataclasses.replace(config, resume=True))
    assert (whole.path / "metrics.jsonl").read_text() == (resumed.path / "metrics.jsonl").read_text()


def test_a_graph_that_differs_from_torch_leaves_nothing_behind(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(config)
    monkeypatch.setattr("mla_serve.export.steps.TOLERANCE", 0.0)
    with pytest.raises(BundleError, match="differs from torch"):
        export_run(folder.path, tmp_path / "models" / "small")
    assert list((tmp_path / "models").iterdir()) == []


def test_images_and_recordings_are_trained_on_as_files(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 9)):
        lines = []
        for number in range(count):
            c = number % 3
            pixels = generator.integers(0, 60, (16, 16), dtype=np.uint8)
            pixels[:, 5 * c : 5 * c + 5] += 180
            Image.fromarray(pixels).save(folder / f"{split}{number}.png")
            tone = 0.3 * np.sin(2 * np.pi * (300 + 500 * c) * np.arange(4000) / 8000)
            soundfile.write(folder / f"{split}{number}.wav", tone, 8000)
            lines.append({"label": str(c), "image": f"{split}{number}.png", "audio": f"{split}{number}.wav"})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = TrainConfig(data=folder, runs=tmp_path / "runs", epochs=6, batch_size=8, width=16)
    planned = make_plan(config)
    assert any("validation" in note for note in planned.notes)
    run = train_as_planned(config, planned, lambda record: None)
    manifest = export_run(run.path, tmp_path / "media_bundle")
    assert set(manifest.metrics["conditions"]) >= {"full", "image", "audio", "image+audio", "missing50"}
    assert manifest.modalities["audio"].input["rate"] == 8000
    (copies,) = (note for note in planned.notes if note.startswith("data: "))  # each class has one tone
    known = copies[: copies.index(" (")]  # the places of the rows stay in the run
    assert known in (tmp_path / "media_bundle" / "MODEL_CARD.md").read_text()
    assert f'class="warning">{known}' in (tmp_path / "media_bundle" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "wishful"}, "--strategy wishful: expected one of"),
        ({"hgm": "often"}, "--hgm often"),
        ({"turns": "none"}, "--turns none"),
        ({"strategy": "joint_concat", "hgm": "off"}, "--hgm: joint_concat has no such option"),
        ({"strategy": "ensemble", "heads": "shared"}, "--heads: ensemble has no such option"),
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"modalities": ("smell",)}, "the table has text, numbers"),
        ({"encoders": ("text=resnet50",)}, "expected one of small for text"),
        ({"encoders": ("smell=small",)}, "NAME=ENCODER"),
        ({"device": "tpu9"}, "expected cpu, cuda or auto"),
        ({"name": "../elsewhere"}, "--name"),
        ({"about": Path("nowhere.md")}, "--about"),
    ],
)
def test_a_flag_that_does_not_fit_is_refused_before_anything_is_written(
    config: TrainConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(dataclasses.replace(config, **change))  # type: ignore[arg-type]
    assert not (config.runs / "small").exists()


def test_faulty_rows_are_listed_before_training_starts(tmp_path: Path) -> None:
    folder = tmp_path / "faulty"
    folder.mkdir()
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    for number in range(30):
        (folder / f"{number}.png").write_bytes(buffer.getvalue() if number % 5 else b"not an image")
    rows = [{"label": str(number % 2), "image": f"{number}.png"} for number in range(30)]
    for split in ("train", "val"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = TrainConfig(data=folder, runs=tmp_path / "runs")
    with pytest.raises(DataError, match="12 faults") as caught:
        train(config)
    assert str(caught.value).count("expected PNG") == 12
    assert [path.name for path in config.runs.glob("[!.]*")] == ["faulty.faults.csv"]


def test_a_modality_can_be_left_out(config: TrainConfig, tmp_path: Path) -> None:
    folder = train(dataclasses.replace(config, modalities=("numbers",), epochs=1))
    manifest = export_run(folder.path, tmp_path / "one")
    assert list(manifest.modalities) == ["numbers"]


def test_the_report_is_one_file_that_shows_rows_only_where_it_may(config: TrainConfig, tmp_path: Path) -> None:
    for samples in (True, False):
        folder = train(dataclasses.replace(config, epochs=1, lr=1e-6, samples=samples))
        export_run(folder.path, tmp_path / "bundle")
        page = (tmp_path / "bundle" / "report.html").read_text(encoding="utf-8")
        assert page.count("<svg") >= 4
        assert not re.search(r'(src|href)="(?!data:|#)', page.replace("xlink:", ""))
        assert ("Most confidently wrong" in page) == samples
        facts = json.loads((tmp_path / "bundle" / "report.json").read_text(encoding="utf-8"))
        assert {"missing_rates", "leave_one_out", "intervals", "corruptions", "metrics", "training"} <= set(facts)
        assert set(facts["corruptions"]["text"]) == {"typos", "dropped", "swapped", "letters", "foreign"}
        assert str(tmp_path) not in page


def test_a_bundle_gives_sets_of_the_coverage_that_is_asked_for(config: TrainConfig, tmp_path: Path) -> None:
    export_run(train(config).path, tmp_path / "bundle")
    predictor = Predictor(Bundle.load(tmp_path / "bundle"))
    likely, surely = (predictor.predict([{"text": "rot 1"}], coverage=c)[0] for c in (0.5, 0.999))
    assert likely.prediction_set
    assert likely.prediction_set.labels[0] == likely.label
    assert surely.prediction_set
    assert len(surely.prediction_set.labels) == 3
    assert likely.modalities["text"].unfamiliarity is not None
    measured = predictor.bundle.manifest.metrics["conditions"]["full"]["calibrated"]
    assert 1 <= measured["set_size"] <= 3
    with pytest.raises(InputError, match="coverage"):
        predictor.predict([{"text": "rot"}], coverage=1.5)


def test_a_run_of_an_older_version_is_exported_without_sets(config: TrainConfig, tmp_path: Path) -> None:
    folder = train(dataclasses.replace(config, epochs=1))
    (folder.path / "unfamiliar.npz").unlink()
    (folder.path / "intervals.npz").unlink()
    export_run(folder.path, tmp_path / "bundle")
    predictor = Predictor(Bundle.load(tmp_path / "bundle"))
    prediction = predictor.predict([{"text": "rot"}])[0]
    assert prediction.modalities["text"].unfamiliarity is None
    with pytest.raises(InputError, match="coverage"):
        predictor.predict([{"text": "rot"}], coverage=0.9)


def test_generated_samples_are_not_spoiled_twice(config: TrainConfig) -> None:
    recipe = make_plan(config).recipe
    for told, expected in (
        (config, {"text": "light", "numbers": "light"}),
        (dataclasses.replace(config, augment="none"), {}),
        (dataclasses.replace(config, data=None), {}),
        (dataclasses.replace(config, data=None, augment="light"), {"text": "light", "numbers": "light"}),
    ):
        assert choose_augmentation(told, [], recipe) == (expected, [])


def test_of_a_long_text_training_keeps_what_is_looked_at(tmp_path: Path) -> None:
    """Augmentation edits the text in every epoch: megabytes that are cut away afterwards would cost minutes."""
    text = "abc" * 1_000_000
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 1}, unk_token="?"))
    inputs = {"text": TextInput(tokenizer.to_str(), length=50, max_characters=50)}
    row = Row("1", "a", {"text": text}, {}, {})
    table = Table(tmp_path, {"text": "text"}, {"train": (row,)}, ("a",), "")
    decoded = decode_table(table, inputs, tmp_path / "cache")
    assert make_samples([row], decoded, inputs, Classes(("a",))).columns["text"].payloads == [text[:50]]


def test_training_from_an_existing_cache_gives_the_same_weights(config: TrainConfig, tmp_path: Path) -> None:
    weights = []
    for name in ("first", "second"):
        one = dataclasses.replace(config, name=name, epochs=1, runs=tmp_path, cache=tmp_path / "cache")
        folder = train_as_planned(one, make_plan(one), lambda record: None)
        weights.append(folder.load(BEST)["weights"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
