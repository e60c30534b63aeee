"""FrozenEncoder, by LoRA and whole: what moves and what does not, what is computed once, and bundles at the end."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mla_serve.bundle.manifest import Bundle, Manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.export.export_run import export_run
from mla_serve.table import read_payload, read_table
from mla_serve.train.config import TrainConfig
from mla_serve.train.cross_validation import cross_validate
from mla_serve.train.data.batches import training_batches
from mla_serve.train.extend.plan import plan_extension
from mla_serve.train.plan import make_plan
from mla_serve.train.pretrained.backbone import Backbone
from mla_serve.train.pretrained.encoders import SPEED, CompleteEncoder
from mla_serve.train.run import train_as_planned
from mla_serve.train.run_folder import BEST, LAST, RunFolder
from mla_serve.train.strategies import STRATEGIES
from tests.train.pretrained.zoo import KINDS, PAYLOADS, Zoo

CPU = torch.device("cpu")


class Interrupted(Exception):
    """What stops a run in these tests."""


@pytest.fixture(scope="session")
def config(zoo: Zoo, table: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """All three kinds pretrained and frozen."""
    chosen = {"image": "dinov2", "audio": "wav2vec2_masked", "text": "bert"}
    encoders = tuple(f"{name}=hf:{zoo.folder(model)}" for name, model in chosen.items())
    runs = tmp_path_factory.mktemp("runs")
    return TrainConfig(
        data=table, name="frozen", runs=runs, encoders=encoders, epochs=5, lr=0.02, batch_size=12, width=8, device="cpu"
    )


def train(config: TrainConfig, stop_after: int | None = None) -> RunFolder:
    def report(record: dict[str, object]) -> None:
        if record["epoch"] == stop_after:
            raise Interrupted

    return train_as_planned(config, make_plan(config), report)


@pytest.fixture(scope="session")
def finished(config: TrainConfig) -> RunFolder:
    return train(config)


@pytest.fixture(scope="session")
def bundle(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Export the frozen run after the folders of its models are out of reach: the run alone has to do."""
    target = tmp_path_factory.mktemp("models") / "frozen"
    return target, export_run(finished.path, target)


def weights(folder: RunFolder, name: str = BEST) -> Mapping[str, Tensor]:
    return folder.load(name)["weights"]  # type: ignore[no-any-return]


def test_a_bundle_with_frozen_encoders_answers_from_raw_payloads(
    bundle: tuple[Path, Manifest], config: TrainConfig, zoo: Zoo
) -> None:
    folder, manifest = bundle
    predictor = Predictor(Bundle.load(folder))
    assert predictor.verify() < 1e-5
    assert max(manifest.parity["largest_difference"].values()) < 1e-4
    assert manifest.metrics["conditions"]["image"]["calibrated"]["accuracy"] > 0.8
    rows = read_table(config.data).splits["test"][:3]  # type: ignore[arg-type]
    for row in rows:
        for name, value in row.values.items():
            assert set(predictor.predict([{name: read_payload(value)}])[0].by_label()) == set("rgb")
    assert str(zoo.root) not in (folder / "manifest.json").read_text()
    assert manifest.training["config"]["encoders"] == ["image=hf:dinov2", "audio=hf:wav2vec2_masked", "text=hf:bert"]


def test_the_bundle_says_what_the_transformers_model_says(
    bundle: tuple[Path, Manifest], finished: RunFolder, zoo: Zoo
) -> None:
    """Features through the graph are the projection of what the original model and its processor make of a text."""
    import transformers

    predictor = Predictor(Bundle.load(bundle[0]))
    text = PAYLOADS["text"][1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(zoo.folder("bert"))
    model = transformers.AutoModel.from_pretrained(zoo.folder("bert")).eval()
    given = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        pooled = model(**given).last_hidden_state.mean(1).numpy()
    end = {
        key.removeprefix("encoders.text.end."): value.numpy()
        for key, value in weights(finished).items()
        if "text" in key
    }
    expected = (pooled - end["mean"]) / end["std"] @ end["end.1.weight"].T + end["end.1.bias"]
    features = predictor.encode("text", [predictor.decode_one("text", text)])
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_checkpoints_hold_projections_alone_and_the_backbone_lies_beside_them(finished: RunFolder, zoo: Zoo) -> None:
    assert not any("backbone" in key or "model" in key for key in weights(finished))
    original = zoo.load("bert").backbone.state_dict()
    kept = finished.load("text.backbone.pt")
    assert kept.keys() == original.keys()
    assert all(torch.equal(kept[key], original[key]) for key in kept)


def test_a_frozen_backbone_is_bitwise_unchanged_and_always_in_evaluation_mode(
    zoo: Zoo, table: Path, tmp_path: Path
) -> None:
    """A ResNet has batch statistics, which training mode would move."""
    config = TrainConfig(
        data=table,
        runs=tmp_path,
        modalities=("image",),
        encoders=(f"image=hf:{zoo.folder('resnet')}",),
        epochs=2,
        width=8,
    )
    planned = make_plan(config)
    backbone = planned.pretrained["image"].backbone
    before = copy.deepcopy(backbone.state_dict())
    modes: list[bool] = []
    backbone.register_forward_pre_hook(lambda module, _: modes.append(any(m.training for m in module.modules())))
    train_as_planned(config, planned, lambda record: None)
    assert modes
    assert not any(modes)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    encoder = planned.build(0).encoders["image"]
    assert not encoder.normalises_over_batch
    assert all("backbone" not in name for name, _ in encoder.named_parameters())


def test_a_second_run_does_not_ask_the_backbone_again(
    config: TrainConfig, finished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = make_plan(dataclasses.replace(config, name="again"))
    for loaded in planned.pretrained.values():
        loaded.backbone.register_forward_pre_hook(lambda *_: pytest.fail("the backbone was asked"))
    again = train_as_planned(dataclasses.replace(config, name="again"), planned, lambda record: None)
    assert all(torch.equal(value, weights(finished)[key]) for key, value in weights(again).items())


def test_another_preprocessing_or_other_weights_have_another_cache(zoo: Zoo, tmp_path: Path) -> None:
    def folders() -> set[str]:
        return {path.name for path in (tmp_path / "cache" / "features").iterdir()}

    for name in ("bert", "distilbert"):
        use(zoo, name, tmp_path / "cache")
    assert len(folders()) == 2
    use(zoo, "bert", tmp_path / "cache")
    assert len(folders()) == 2
    zoo.edit("vit", tmp_path / "other", "preprocessor_config.json", lambda facts: facts.update(image_mean=[0.4] * 3))
    use(zoo, "vit", tmp_path / "cache")
    use(Zoo(tmp_path), "other", tmp_path / "cache", "image")
    assert len(folders()) == 4


def use(zoo: Zoo, name: str, cache: Path, kind: str | None = None) -> Any:
    """Ask a frozen encoder about every payload of its kind."""
    from mla_serve.train.pretrained.encoders import FrozenEncoder

    loaded = zoo.load(name, kind=kind)
    encoder = FrozenEncoder(loaded.spec, 4, loaded.settings)
    encoder.set_backbone(loaded.backbone, cache, CPU)
    windows = [loaded.spec.decode(one, "field") for one in PAYLOADS[loaded.spec.kind]]
    encoder.precompute(torch.from_numpy(np.concatenate(windows)))
    return encoder


def test_equal_content_is_computed_once_even_without_a_cache(zoo: Zoo) -> None:
    loaded = zoo.load("bert")
    seen: list[int] = []
    loaded.backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    from mla_serve.train.pretrained.encoders import FeatureExtractor

    windows = torch.from_numpy(loaded.spec.decode("one", "text")).repeat(50, 1)
    features = FeatureExtractor(loaded.backbone, loaded.settings, None, CPU)(windows)
    assert seen == [1]
    assert features.shape == (50, 32)


def test_damaged_features_are_computed_anew(zoo: Zoo, tmp_path: Path) -> None:
    loaded = zoo.load("bert")
    from mla_serve.train.pretrained.encoders import FeatureExtractor

    windows = torch.cat([torch.from_numpy(loaded.spec.decode(text, "text")) for text in ("one", "two", "one two")])
    expected = FeatureExtractor(loaded.backbone, loaded.settings, tmp_path, CPU)(windows)
    (records,) = tmp_path.glob("features/*/records")
    content = bytearray(records.read_bytes())
    content[len(content) // 2] ^= 16
    records.write_bytes(content)
    seen: list[int] = []
    loaded.backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    again = FeatureExtractor(loaded.backbone, loaded.settings, tmp_path, CPU)(windows)
    assert seen == [1]
    assert torch.allclose(again, expected, atol=1e-6)


def test_features_are_those_of_their_windows_after_the_cache_was_deleted_by_hand(zoo: Zoo, tmp_path: Path) -> None:
    loaded = zoo.load("bert")
    from mla_serve.train.pretrained.encoders import FeatureExtractor

    windows = torch.cat([torch.from_numpy(loaded.spec.decode(text, "text")) for text in ("one", "two", "one two")])
    extractor = FeatureExtractor(loaded.backbone, loaded.settings, tmp_path, CPU)
    expected = extractor(windows)
    shutil.rmtree(tmp_path / "features")
    FeatureExtractor(loaded.backbone, loaded.settings, tmp_path, CPU)(windows[2:])
    assert torch.allclose(extractor(windows[:2]), expected[:2], atol=1e-6)
    assert torch.allclose(extractor(windows), expected, atol=1e-6)


def test_memory_holds_features_and_not_windows(config: TrainConfig, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mla_serve.train.data.samples.BATCH", 5)
    planned = make_plan(config)
    strategy = planned.build(0)
    planned.load_backbones(strategy, None, CPU)
    largest: list[int] = []
    for loaded in planned.pretrained.values():
        loaded.backbone.register_forward_pre_hook(lambda _, given: largest.append(len(given[0])))
    rows, samples = planned.rows["train"], planned.samples("train", dict(strategy.encoders.items()))
    assert max(largest) <= 5
    for name, column in samples.columns.items():
        assert column.precomputed
        assert column.windows.shape == (int(column.count.sum()), 32)
        assert [int(there) for there in column.present] == [int(name in row.values) for row in rows]


def test_augmentation_leaves_frozen_modalities_alone(config: TrainConfig) -> None:
    planned = make_plan(config)
    strategy = planned.build(0)
    planned.load_backbones(strategy, config.runs / ".cache", CPU)
    samples = planned.samples("train", dict(strategy.encoders.items()))
    batch = next(training_batches(samples, 12, torch.Generator().manual_seed(0), CPU, planned.choices.augment))
    column = samples.columns["text"]
    rows = batch.rows[column.present[batch.rows]]
    assert torch.equal(batch.inputs("text"), column.windows[column.start[rows]])
    assert sum("not augmented" in note for note in planned.notes) == 3


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(config: TrainConfig, finished: RunFolder) -> None:
    parts = dataclasses.replace(config, name="parts")
    with pytest.raises(Interrupted):
        train(parts, stop_after=2)
    resumed = train(dataclasses.replace(parts, resume=True))
    for name in (BEST, LAST):
        first, second = weights(finished, name), weights(resumed, name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert finished.read_fusion() == resumed.read_fusion()


def test_resuming_with_other_weights_is_refused(config: TrainConfig, zoo: Zoo, tmp_path: Path) -> None:
    folder = zoo.edit("bert", tmp_path / "bert", "config.json", lambda facts: None)
    one = dataclasses.replace(config, name="one", modalities=("text",), encoders=(f"text=hf:{folder}",))
    with pytest.raises(Interrupted):
        train(one, stop_after=1)
    import transformers

    transformers.BertModel(transformers.BertConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(Exception, match="weights of text changed"):
        train(dataclasses.replace(one, resume=True))


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"mla"}))
def test_every_strategy_trains_a_frozen_a_tuned_and_an_ordinary_encoder(
    strategy: str, zoo: Zoo, table: Path, tmp_path: Path, config: TrainConfig
) -> None:
    encoders = (f"text=hf:{zoo.folder('bert')}", f"audio=hf:{zoo.folder('ast')}")
    options: dict[str, Any] = {"encoders": encoders, "tune": ("audio=lora",), "strategy": strategy, "epochs": 1}
    folder = train(dataclasses.replace(config, runs=tmp_path, cache=config.runs / ".cache", **options))
    original = zoo.load("ast").backbone.state_dict()
    encoder = folder.restore(folder.read_recipe().build()).encoders["audio"]
    trained = getattr(encoder, "encoder", encoder).backbone.state_dict()  # mib puts a bottleneck behind it
    assert trained.keys() == original.keys()
    moved = {key for key in original if not torch.equal(trained[key], original[key])}
    assert moved
    assert all(key.endswith(".weight") for key in moved)  # LoRA adds to the matrices of linear layers alone


@pytest.mark.parametrize("name", ["bert", "vit", "whisper"])
def test_merged_low_rank_matrices_say_what_they_said_beside_the_layers(name: str, zoo: Zoo) -> None:
    loaded = zoo.load(name, tune="lora")
    encoder = CompleteEncoder(loaded.spec, 6, loaded.settings)
    encoder.set_backbone(loaded.backbone, None, CPU)
    windows = torch.from_numpy(loaded.spec.decode(PAYLOADS[KINDS[name]][0], "field")).repeat(
        2, *[1] * len(loaded.spec.shape)
    )
    with torch.no_grad():
        encoder.eval()
        torch.testing.assert_close(
            encoder.backbone(windows), loaded.backbone(windows)
        )  # nothing learned, nothing changed
        matrices = [p for n, p in encoder.named_parameters() if "lora_B" in n]
        assert matrices
        for matrix in matrices:
            matrix.normal_(0, 0.1)
        beside = encoder(windows)
        merged = encoder.finished(dict)
        assert not any("lora" in name for name in merged.state_dict())
        assert (merged(windows) - beside).abs().max() < 1e-5
        assert (merged.backbone(windows) - loaded.backbone(windows)).abs().max() > 1e-3


def test_low_rank_matrices_and_whole_weights_learn_at_rates_of_their_own(zoo: Zoo) -> None:
    from mla_serve.train.strategies.base import Options, Schedule

    for tune in ("lora", "full"):
        loaded = zoo.load("bert", tune=tune)
        encoder = CompleteEncoder(loaded.spec, 6, loaded.settings)
        groups = {
            group["speed"]: group["params"] for group in Schedule(encoder, Options(lr=0.1), 100).optimizer.param_groups
        }
        assert set(groups) == {SPEED[tune], 1.0}
        assert {id(p) for p in groups[1.0]} == {id(p) for p in encoder.end.parameters()}
        own = {id(p) for n, p in encoder.backbone.named_parameters() if tune == "full" or "lora_" in n}
        assert {id(p) for p in groups[SPEED[tune]]} == own
    assert Schedule(encoder, Options(lr=0.1), 100).optimizer.param_groups[0]["max_lr"] == pytest.approx(
        0.1 * SPEED["full"]
    )


def test_with_lora_batch_statistics_stand_still() -> None:
    """No model of the zoo has both linear layers and batch norms, so one is put in."""
    from mla_serve.train.pretrained.settings import Pretrained

    whole = CompleteEncoder.__new__(CompleteEncoder)
    nn.Module.__init__(whole)
    whole.settings = Pretrained("", "lora", 4, {}, {}, "mean", 4, "")
    whole.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))  # type: ignore[assignment]
    whole.train()
    assert whole.backbone[0].training
    assert not whole.backbone[1].training
    assert not whole.normalises_over_batch


def test_fine_tuned_encoders_become_a_bundle(zoo: Zoo, table: Path, tmp_path: Path, config: TrainConfig) -> None:
    encoders = (
        f"text=hf:{zoo.folder('mpnet')}",
        f"image=hf:{zoo.folder('resnet')}",
        f"audio=hf:{zoo.folder('wav2vec2')}",
    )
    tuned = dataclasses.replace(
        config, name="tuned", runs=tmp_path, encoders=encoders, tune=("text=lora", "image=full", "audio=full"), epochs=2
    )
    manifest = export_run(train(tuned).path, tmp_path / "models" / "tuned")
    assert Predictor(Bundle.load(tmp_path / "models" / "tuned")).verify() < 1e-4
    assert max(manifest.parity["largest_difference"].values()) < 1e-4
    assert not (tmp_path / "tuned" / "text.backbone.pt").exists()


def test_folds_load_encoders_from_their_folders(config: TrainConfig, zoo: Zoo, table: Path, tmp_path: Path) -> None:
    """The recipe of a run names an encoder without its folder, from which each fold loads it anew."""
    only_texts = tmp_path / "data"
    only_texts.mkdir()
    for path in table.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{"label": row["label"], "text": row["text"]} for row in rows if "text" in row]
        (only_texts / path.name).write_text("\n".join(map(json.dumps, kept)))
    encoders = (f"text=hf:{zoo.folder('bert')}",)
    few = dataclasses.replace(config, data=only_texts, runs=tmp_path, encoders=encoders, epochs=1, folds=2)
    lines: list[str] = []
    cross_validate(few, make_plan(few), lines.append)
    assert [line.partition(":")[0] for line in lines] == ["fold 1 of 2", "fold 2 of 2"]


def test_two_texts_with_tokenizers_of_their_own_share_a_bundle(
    zoo: Zoo, table: Path, tmp_path: Path, config: TrainConfig
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in table.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [
            {"label": row["label"], "text": row["text"], "title": row["text"][::-1]} for row in rows if "text" in row
        ]
        (data / path.name).write_text("\n".join(map(json.dumps, kept)))
    (data / "dataset.json").write_text('{"modalities": {"text": "text", "title": "text"}}')
    both = dataclasses.replace(config, data=data, runs=tmp_path, encoders=(f"text=hf:{zoo.folder('bert')}",), epochs=1)
    folder = train(both)
    inputs = folder.read_recipe().inputs
    assert inputs["text"].tokenizer != inputs["title"].tokenizer  # type: ignore[attr-defined]
    export_run(folder.path, tmp_path / "models" / "two")
    assert Bundle.load(tmp_path / "models" / "two").inputs == inputs


def test_a_pretrained_encoder_is_added_to_a_bundle(
    bundle: tuple[Path, Manifest], zoo: Zoo, table: Path, tmp_path: Path, config: TrainConfig
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in table.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    for path in data.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "\n".join(json.dumps({**row, "title": f"{row['label'] * 4} {n}"}) for n, row in enumerate(rows))
        )
    kinds = {"image": "image", "audio": "audio", "text": "text", "title": "text"}
    (data / "dataset.json").write_text(json.dumps({"modalities": kinds}))
    more = TrainConfig(
        extend=bundle[0], data=data, runs=tmp_path, name="more", epochs=3, batch_size=12, device="cpu",
        encoders=(f"title=hf:{zoo.folder('mpnet')}",), out=tmp_path / "more_bundle",
    )  # fmt: skip
    folder = train_as_planned(more, plan_extension(more), lambda record: None)
    manifest = export_run(folder.path, tmp_path / "more_bundle")
    assert "title" in manifest.modalities
    text = {"text": "rrrrr 3"}
    old, new = (Predictor(Bundle.load(path)).predict([text])[0] for path in (bundle[0], tmp_path / "more_bundle"))
    assert old.probabilities == new.probabilities


def test_a_backbone_is_rebuilt_from_settings_alone(zoo: Zoo) -> None:
    for name, kind in KINDS.items():
        loaded = zoo.load(name)
        settings = dataclasses.replace(loaded.settings, **json.loads(json.dumps(dataclasses.asdict(loaded.settings))))
        rebuilt = Backbone.build(settings).eval()
        rebuilt.load_state_dict(loaded.backbone.state_dict())
        windows = torch.from_numpy(loaded.spec.decode(PAYLOADS[kind][0], "field"))
        assert torch.equal(rebuilt(windows), loaded.backbone(windows))
        assert str(zoo.root) not in json.dumps(dataclasses.asdict(settings))
