"""Preprocessing is the processor's own, and the graph computes what torch computes: ten architectures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from PIL import Image

from mla_serve.export.graphs import export_graph, largest_difference
from mla_serve.inputs import INPUTS, TextInput
from mla_serve.inputs.audio import PADDING
from mla_serve.train.pretrained.encoders import FrozenEncoder
from tests.train.pretrained.zoo import KINDS, PAYLOADS, TEXTS, Zoo, make_constant, make_image, make_sound

QUICK = ("resnet", "vit", "ast", "wav2vec2_masked", "whisper", "bert")  # each way to decode and each front, once
EXPORTED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
IMAGES, AUDIO, TEXT = ([name for name, its in KINDS.items() if its == kind] for kind in ("image", "audio", "text"))


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_those_of_the_processor(name: str, zoo: Zoo) -> None:
    loaded = zoo.load(name)
    processor = transformers.AutoImageProcessor.from_pretrained(zoo.folder(name))
    for payload in PAYLOADS["image"]:
        expected = processor(Image.open(io.BytesIO(payload)).convert("RGB"), return_tensors="np")["pixel_values"]
        given, _ = loaded.backbone.front(torch.from_numpy(loaded.spec.decode(payload, "image")))
        np.testing.assert_allclose(given["pixel_values"].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("name", AUDIO)
def test_sounds_are_given_as_the_feature_extractor_gives_them(name: str, zoo: Zoo) -> None:
    loaded = zoo.load(name)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(zoo.folder(name))
    for payload in (make_sound(4000, 0), make_sound(7000, 1), make_sound(9999, 2)):
        samples, rate = soundfile.read(io.BytesIO(payload), dtype="float32")
        expected = extractor(samples, sampling_rate=rate, return_tensors="np")
        given, _ = loaded.backbone.front(torch.from_numpy(loaded.spec.decode(payload, "audio")))
        key = next(iter(given))
        there = np.asarray(expected[key])[0]
        np.testing.assert_allclose(given[key][0, : len(there)].numpy(), there, atol=5e-3)
        if name.startswith("wav2vec2"):
            assert not given[key][0, len(there) :].any()


@pytest.mark.parametrize("name", TEXT)
def test_tokens_and_mask_are_those_of_the_tokenizer(name: str, zoo: Zoo) -> None:
    loaded = zoo.load(name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(zoo.folder(name))
    assert loaded.spec.shape == (32,)  # the tokenizer's model_max_length, for one of the texts is longer
    for text in PAYLOADS["text"]:
        expected = tokenizer(text, truncation=True, padding="max_length", return_tensors="pt")
        given, real = loaded.backbone.front(torch.from_numpy(loaded.spec.decode(text, "text")))
        assert torch.equal(given["input_ids"], expected["input_ids"])
        assert real is not None
        assert torch.equal(real.long(), expected["attention_mask"])


@pytest.mark.parametrize("name", KINDS)
def test_features_do_not_depend_on_the_padding_or_the_neighbours(name: str, zoo: Zoo) -> None:
    """Except for wav2vec2 of the first kind, whose normalisation spans the padding, as transformers documents."""
    loaded = zoo.load(name)
    windows = [loaded.spec.decode(payload, KINDS[name])[:1] for payload in PAYLOADS[KINDS[name]]]
    together = loaded.backbone(torch.from_numpy(np.concatenate(windows)))
    for row, window in zip(together, windows, strict=True):
        assert torch.allclose(row, loaded.backbone(torch.from_numpy(window))[0], atol=1e-5)
    if name in ("bert", "distilbert", "mpnet", "wav2vec2_masked"):
        short = windows[0]
        real = int((short != (PADDING if KINDS[name] == "audio" else loaded.spec.pad)).sum())  # type: ignore[attr-defined]
        assert real < short.shape[1]
        alone = loaded.backbone(torch.from_numpy(short[:, :real].copy()))
        assert torch.allclose(alone[0], together[0], atol=1e-4)


SILENT: dict[str, list[bytes]] = {
    "image": [],
    "text": [],
    "audio": [make_constant(8000, 0.0), make_constant(8000, 0.5)],
}


@pytest.mark.parametrize("name", EXPORTED)
def test_the_graph_computes_what_torch_computes(name: str, zoo: Zoo, tmp_path: Path) -> None:
    loaded, kind = zoo.load(name), KINDS[name]
    assert "features differ from those of transformers" in loaded.check(PAYLOADS[kind])
    encoder = FrozenEncoder(loaded.spec, 6, loaded.settings)
    encoder.set_backbone(loaded.backbone, None, torch.device("cpu"))
    windows = np.concatenate([loaded.spec.decode(payload, kind) for payload in (*PAYLOADS[kind], *SILENT[kind])])
    encoder.measure(encoder.precompute(torch.from_numpy(windows)))
    features = encoder.eval()(encoder.precompute(torch.from_numpy(windows)))
    whole = encoder.finished(loaded.backbone.state_dict)
    assert torch.allclose(whole(torch.from_numpy(windows)), features, atol=1e-5)
    assert features.std(0).mean() > 0.01  # it does see the windows
    path = tmp_path / "encoder.onnx"
    export_graph(whole, torch.from_numpy(windows[:2]), loaded.spec.tensor, "features", path)
    assert largest_difference(whole, path, windows, 1e-4) < 1e-4  # at batch 1, 2 and 7


@pytest.mark.parametrize("name", KINDS)
def test_the_input_travels_in_a_manifest(name: str, zoo: Zoo) -> None:
    spec = zoo.load(name).spec
    fields, files = spec.to_fields()
    assert INPUTS[spec.kind].from_fields(fields, files.__getitem__) == spec


def test_a_model_of_several_kinds_gives_the_part_that_is_asked_for(zoo: Zoo, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    both = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": 70}, vision_config={**sizes, "image_size": 32, "patch_size": 8}
    )
    folder = zoo.edit("clip", tmp_path / "both", "preprocessor_config.json", lambda facts: None)
    model = transformers.CLIPModel(both)
    model.save_pretrained(folder)
    loaded = Zoo(tmp_path).load("both", kind="image")
    loaded.check(PAYLOADS["image"])
    pixels = torch.from_numpy(loaded.spec.decode(PAYLOADS["image"][0], "image"))
    given, _ = loaded.backbone.front(pixels)
    expected = model.eval().get_image_features(**given)
    ours = model.visual_projection(loaded.backbone(pixels))
    assert torch.allclose(ours, getattr(expected, "pooler_output", expected), atol=1e-5)


def test_a_picture_too_long_for_its_height_is_refused_before_it_is_resized(zoo: Zoo) -> None:
    from mla_serve.errors import TooLarge

    with pytest.raises(TooLarge, match="crop it"):
        zoo.load("clip").spec.decode(make_image(60_000, 1, 0), "image")


def test_texts_are_left_to_the_tokenizer(zoo: Zoo) -> None:
    spec = zoo.load("bert").spec
    assert isinstance(spec, TextInput)
    assert (spec.lowercase, spec.transliterate, spec.compose) == (False, False, False)
    decomposed = "u\N{COMBINING DIAERESIS}"
    assert spec.normalise(TEXTS[1] + decomposed) == TEXTS[1] + decomposed
