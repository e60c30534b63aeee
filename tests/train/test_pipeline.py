"""From a table to a bundle: bit-exact resuming, export, evaluation, and what is refused before training."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from export.bundle import export_run
from mla_serve.bundle import Bundle
from mla_serve.errors import BundleError, ConfigError, DataError, InputError
from mla_serve.evaluate import evaluate_bundle
from mla_serve.predictor import Predictor
from mla_serve.train import pipeline
from mla_serve.train.config import TrainConfig
from mla_serve.train.run import BEST, LAST, RunFolder


class Interrupted(Exception):
    """What stops a run in these tests."""


@pytest.fixture
def config(write_table: Callable[..., Path], tmp_path: Path) -> TrainConfig:
    return TrainConfig(data=write_table(), name="small", runs=tmp_path / "runs", epochs=4, batch_size=16, width=16)


def train(config: TrainConfig, stop_after: int | None = None) -> RunFolder:
    def report(record: dict[str, object]) -> None:
        if record["epoch"] == stop_after:
            raise Interrupted

    return pipeline.train(config, pipeline.plan(config), report)


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
    again = evaluate_bundle(predictor, config.data, "test", draws=20)  # type: ignore[arg-type]
    assert again["conditions"] == manifest.metrics["conditions"]
    assert str(tmp_path) not in (tmp_path / "models" / "small" / "manifest.json").read_text()


def test_no_samples_puts_generated_payloads_into_the_bundle(config: TrainConfig, tmp_path: Path) -> None:
    folder = train(dataclasses.replace(config, samples=False))
    manifest = export_run(folder.path, tmp_path / "bundle")
    assert manifest.golden_source == "generated"
    words = [golden.payloads["text"] for golden in manifest.golden]
    assert not any(word in str(words) for word in ("rot", "gruen", "blau"))


def test_a_graph_that_differs_from_torch_leaves_nothing_behind(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(config)
    monkeypatch.setattr("export.bundle.TOLERANCE", 0.0)
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
    planned = pipeline.plan(config)
    assert any("validation" in note for note in planned.notes)
    run = pipeline.train(config, planned, lambda record: None)
    manifest = export_run(run.path, tmp_path / "media_bundle")
    assert set(manifest.metrics["conditions"]) >= {"full", "image", "audio", "image+audio", "missing50"}
    assert manifest.modalities["audio"].input["rate"] == 8000
    (copies,) = (note for note in planned.notes if note.startswith("data: "))  # each class has one tone
    assert copies in (tmp_path / "media_bundle" / "MODEL_CARD.md").read_text()
    assert f'class="warning">{copies[:40]}' in (tmp_path / "media_bundle" / "report.html").read_text()


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
    with pytest.raises(DataError, match="12 values") as caught:
        train(config)
    assert str(caught.value).count("expected PNG") == 12
    assert not config.runs.exists()


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
        assert set(facts["corruptions"]["text"]) == {"typos", "dropped", "swapped"}
        assert str(tmp_path) not in page


def test_a_bundle_gives_sets_of_the_coverage_that_is_asked_for(config: TrainConfig, tmp_path: Path) -> None:
    export_run(train(config).path, tmp_path / "bundle")
    predictor = Predictor(Bundle.load(tmp_path / "bundle"))
    likely, surely = (predictor.predict([{"text": "rot 1"}], coverage=c)[0] for c in (0.5, 0.999))
    assert likely.prediction_set
    assert likely.prediction_set[0] == likely.label
    assert surely.prediction_set
    assert len(surely.prediction_set) == 3
    assert likely.modalities["text"].unfamiliarity is not None
    measured = predictor.bundle.manifest.metrics["conditions"]["full"]["calibrated"]
    assert 1 <= measured["set_size"] <= 3
    with pytest.raises(InputError, match="coverage"):
        predictor.predict([{"text": "rot"}], coverage=1.5)


def test_a_run_of_an_older_version_is_exported_without_sets(config: TrainConfig, tmp_path: Path) -> None:
    folder = train(dataclasses.replace(config, epochs=1))
    (folder.path / "unfamiliar.npz").unlink()
    facts = folder.read_json()
    del facts["conformal"]
    folder.write_json("run.json", facts)
    export_run(folder.path, tmp_path / "bundle")
    predictor = Predictor(Bundle.load(tmp_path / "bundle"))
    prediction = predictor.predict([{"text": "rot"}])[0]
    assert prediction.modalities["text"].unfamiliarity is None
    with pytest.raises(InputError, match="coverage"):
        predictor.predict([{"text": "rot"}], coverage=0.9)


def test_generated_samples_are_not_spoiled_twice(config: TrainConfig) -> None:
    assert config.augments
    assert not TrainConfig().augments
    assert TrainConfig(augment=True).augments
    assert (config.passes, TrainConfig().passes, TrainConfig(data=config.data).passes) == (4, 12, 30)
