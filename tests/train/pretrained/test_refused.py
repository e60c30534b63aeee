"""What cannot be used, or cannot be carried over exactly, is refused with the reason before anything is trained."""

from __future__ import annotations

import builtins
import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from mla_serve.errors import BundleError, ConfigError
from mla_serve.export.graphs import export_graph
from mla_serve.train.config import TrainConfig
from mla_serve.train.plan import make_plan
from mla_serve.train.pretrained import fronts
from tests.train.pretrained.zoo import KINDS, PAYLOADS, Zoo

PROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("vit", PROCESSOR, {"do_resize": False}, "does not resize"),
        ("vit", PROCESSOR, {"do_pad": True}, "sets do_pad"),
        ("vit", PROCESSOR, {"size": {"shortest_edge": 32}}, "does not crop"),
        ("clip", PROCESSOR, {"size": {"shortest_edge": 24}}, "which would be padded"),
        ("vit", PROCESSOR, {"crop_pct": 0.9, "image_processor_type": "PoolFormerImageProcessor"}, "sets crop_pct"),
        ("vit", PROCESSOR, {"size": {"height": 24, "width": 24}}, "does not give one vector"),
        ("whisper", PROCESSOR, {"dither": 0.1}, "dithers"),
        ("ast", PROCESSOR, {"sampling_rate": 8000}, "two ways"),
        ("ast", PROCESSOR, {"feature_extractor_type": "ClapFeatureExtractor"}, "known are Wav2Vec2FeatureExtractor"),
        ("wav2vec2", PROCESSOR, {"padding_side": "left"}, "on the left"),
        ("wav2vec2", "config.json", {"add_adapter": True, "num_adapter_layers": 1}, "lacks weights|how many steps"),
        ("bert", "tokenizer_config.json", {"padding_side": "left"}, "pads on the left"),
        ("bert", "tokenizer_config.json", {"pad_token": "[SEP]"}, "ends texts as well"),
        ("bert", "config.json", {"model_type": "nothing"}, "cannot be loaded"),
        ("bert", "config.json", {"num_hidden_layers": 3}, "lacks weights of BertModel"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(
    name: str, file: str, change: dict[str, Any], message: str, zoo: Zoo, tmp_path: Path
) -> None:
    zoo.edit(name, tmp_path / "edited", file, lambda content: content.update(change))
    with pytest.raises(ConfigError, match=message):
        Zoo(tmp_path).load("edited", kind=KINDS[name])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vit", {"mean": [0.4, 0.5, 0.5]}),
        ("resnet", {"factor": 1 / 256}),
        ("ast", {"mean": -4.0}),
        ("wav2vec2", {"normalise": False}),
        ("bert", {"pad": 1}),
    ],
)
def test_a_front_that_differs_from_the_processor_is_found_out(name: str, change: dict[str, Any], zoo: Zoo) -> None:
    loaded = zoo.load(name)
    loaded.backbone.front = fronts.make_front({**loaded.settings.front, **change})
    with pytest.raises(ConfigError, match="cannot be carried over: on a sample of the data"):
        loaded.check(PAYLOADS[KINDS[name]])


def test_an_input_that_differs_from_the_processor_is_found_out(zoo: Zoo) -> None:
    loaded = zoo.load("vit")
    nearest = dataclasses.replace(loaded, spec=dataclasses.replace(loaded.spec, resample="nearest"))  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="pixel_values differs by"):
        nearest.check(PAYLOADS["image"])


@pytest.mark.parametrize(("name", "kind"), [("wav2vec2", "image"), ("vit", "text"), ("bert", "audio")])
def test_a_model_of_another_kind_is_refused(name: str, kind: str, zoo: Zoo) -> None:
    with pytest.raises(ConfigError, match=f"reads {KINDS[name]}, but the modality is of kind {kind}"):
        zoo.load(name, kind=kind)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Zoo(tmp_path).load("nothing", kind="text")


def test_a_folder_in_the_home_folder_is_found(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(zoo.root))
    assert Zoo(Path("~")).load("bert").settings.source == "bert"
    with pytest.raises(ConfigError, match="no such folder"):
        Zoo(Path("~")).load("nothing", kind="text")


@pytest.mark.parametrize("content", [None, b"", b"cut short"])
def test_a_folder_without_whole_weights_is_refused(content: bytes | None, zoo: Zoo, tmp_path: Path) -> None:
    weights = zoo.edit("bert", tmp_path / "bert", "config.json", lambda facts: None) / "model.safetensors"
    weights.unlink() if content is None else weights.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be loaded .* expected a folder"):
        Zoo(tmp_path).load("bert")


def test_a_name_that_cannot_be_fetched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="hf:nobody/nothing: cannot be loaded"):
        Zoo(Path("nobody")).load("nothing", kind="text")


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_folder_needs_no_network(name: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **_: asked.append(args) or [])
    zoo.load(name)
    assert asked == []


def test_a_missing_extra_is_named(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(ConfigError, match=r"peft not installed; run: pip install .*\[cpu,hf\]"):
        zoo.load("bert")


def test_training_without_pretrained_encoders_imports_no_transformers(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def forbid(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name.partition(".")[0] not in ("transformers", "peft")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", forbid)
    make_plan(TrainConfig(data=table, runs=tmp_path, width=8))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"tune": ("text=frozen",)}, "text has no pretrained encoder"),
        ({"encoders": ("text=hf:x",), "tune": ("text=some",)}, "one of frozen, lora, full"),
        ({"encoders": ("text=hf:x",), "lora_rank": 0}, "--lora-rank 0"),
        ({"encoders": ("text=hf:",)}, "hf: names no model"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: dict[str, Any], message: str, table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(TrainConfig(data=table, runs=tmp_path, **flags))


def test_lora_without_linear_layers_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ConfigError, match="no linear layers"):
        zoo.load("resnet", tune="lora")


def test_a_model_beyond_one_graph_is_refused_before_and_at_export(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = zoo.load("bert")
    monkeypatch.setattr("mla_serve.export.graphs.LARGEST", 1000)
    monkeypatch.setattr("mla_serve.train.pretrained.load.LARGEST", 1000)
    with pytest.raises(ConfigError, match="GB of weights, but one ONNX graph holds"):
        zoo.load("bert")
    example = loaded.backbone.front.forward  # never run: the size is looked at first
    with pytest.raises(BundleError, match=r"text.onnx: .* GB of weights"):
        export_graph(loaded.backbone, example, "ids", "features", tmp_path / "text.onnx")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_vector_has_no_pretrained_encoder(write_table: Callable[..., Path], zoo: Zoo, tmp_path: Path) -> None:
    config = TrainConfig(data=write_table(), runs=tmp_path / "runs", encoders=(f"numbers=hf:{zoo.folder('bert')}",))
    with pytest.raises(ConfigError, match="read image, audio, text, not vector"):
        make_plan(config)
