"""Tiny models of ten architectures with random weights, each saved with its processor to a folder."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tokenizers
import torch
import transformers
from PIL import Image

from mla_serve.inputs import AudioInput, ImageInput
from mla_serve.train.pretrained.load import Loaded, load_pretrained
from mla_serve.train.pretrained.source import quietly

KINDS = {
    **dict.fromkeys(("resnet", "vit", "clip", "dinov2"), "image"),
    **dict.fromkeys(("ast", "wav2vec2", "wav2vec2_masked", "whisper"), "audio"),
    **dict.fromkeys(("bert", "distilbert", "mpnet"), "text"),
}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
CONVOLUTIONS = {
    "conv_dim": [16] * 3,
    "conv_stride": [5, 4, 4],
    "conv_kernel": [10, 8, 4],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LETTERS = [chr(97 + i) for i in range(26)]
TEXTS = ("One two", "drei VIER", "fünf", "sechs sieben acht " * 9)


def make_tokenizer(pad: int = 0) -> transformers.PreTrainedTokenizerFast:
    """Make a lower-casing WordPiece tokenizer of letters; [PAD] has the id that is asked for."""
    special = ["[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    special.insert(pad, "[PAD]")
    vocabulary = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), "one", "two"]
    model = tokenizers.models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    fast = tokenizers.Tokenizer(model)
    fast.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    ends = [(token, special.index(token)) for token in ("[CLS]", "[SEP]")]
    fast.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokens = {f"{key}_token": token for key, token in names.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=fast, model_max_length=32, **tokens)


def image_model(name: str) -> tuple[Any, Any]:
    t = transformers
    if name == "resnet":
        config = t.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
        return t.ResNetModel(config), t.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875)
    if name == "vit":
        model = t.ViTModel(t.ViTConfig(**SIZES, image_size=32, patch_size=8))
        return model, t.ViTImageProcessor(size={"height": 32, "width": 32})
    if name == "clip":
        model = t.CLIPVisionModel(t.CLIPVisionConfig(**SIZES, image_size=32, patch_size=8))
        crop = {"height": 32, "width": 32}
        return model, t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    model = t.Dinov2Model(t.Dinov2Config(**sizes, image_size=28, patch_size=7))
    return model, t.BitImageProcessor(size={"shortest_edge": 41}, crop_size={"height": 28, "width": 28})


def audio_model(name: str) -> tuple[Any, Any]:
    t = transformers
    if name == "ast":
        config = t.ASTConfig(**SIZES, max_length=64, num_mel_bins=32)
        return t.ASTModel(config), t.ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    if name == "wav2vec2":
        return t.Wav2Vec2Model(t.Wav2Vec2Config(**SIZES, **CONVOLUTIONS)), t.Wav2Vec2FeatureExtractor()
    if name == "wav2vec2_masked":
        config = t.Wav2Vec2Config(**SIZES, **CONVOLUTIONS, feat_extract_norm="layer", do_stable_layer_norm=True)
        return t.Wav2Vec2Model(config), t.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    layers = {"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    config = t.WhisperConfig(
        **ends, **heads, **layers, d_model=32, num_mel_bins=20, max_source_positions=50, vocab_size=60
    )
    return t.WhisperModel(config), t.WhisperFeatureExtractor(feature_size=20, chunk_length=1)


def text_model(name: str) -> tuple[Any, Any]:
    t, sizes = transformers, {"vocab_size": 70, "max_position_embeddings": 40}
    if name == "bert":
        return t.BertModel(t.BertConfig(**SIZES, **sizes)), make_tokenizer()
    if name == "distilbert":
        return t.DistilBertModel(
            t.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **sizes)
        ), make_tokenizer()
    return t.MPNetModel(t.MPNetConfig(**SIZES, **sizes, pad_token_id=1)), make_tokenizer(pad=1)


MAKE = {"image": image_model, "audio": audio_model, "text": text_model}


def make_image(width: int, height: int, seed: int, kind: str = "PNG") -> bytes:
    """Draw something smooth, so that filters matter."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def make_sound(samples: int, seed: int, rate: int = 16_000) -> bytes:
    """Play a tone in noise."""
    generator = np.random.default_rng(seed)
    tone = 0.3 * np.sin(2 * np.pi * generator.uniform(200, 2000) * np.arange(samples) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, tone + 0.01 * generator.standard_normal(samples), rate, format="WAV")
    return buffer.getvalue()


def make_constant(samples: int, level: float, rate: int = 16_000) -> bytes:
    """Record digital silence, or an offset alone."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(samples, level), rate, format="WAV")
    return buffer.getvalue()


PAYLOADS: dict[str, list[Any]] = {
    "image": [
        make_image(60, 44, 0),
        make_image(33, 90, 1),
        make_image(32, 32, 2, "JPEG"),
        make_image(301, 200, 3, "JPEG"),
        make_image(20, 17, 4),
    ],
    "audio": [
        make_sound(4000, 0),
        make_sound(9999, 1),
        make_sound(30_000, 2),
        make_sound(300, 3),
        make_sound(8000, 4, 8000),
    ],
    "text": [*TEXTS, "x"],
}


@dataclasses.dataclass(frozen=True)
class Zoo:
    """The folders, and what loads from them."""

    root: Path

    def folder(self, name: str) -> Path:
        return self.root / name

    def load(self, name: str, tune: str = "frozen", kind: str | None = None) -> Loaded:
        kind = kind or KINDS[name]
        drafts = {"image": ImageInput(24, 24), "audio": AudioInput(8000, 5000, 2500), "text": list(TEXTS)}
        return load_pretrained(str(self.folder(name)), tune, 4, kind, drafts[kind])  # type: ignore[arg-type]

    def edit(self, name: str, copy: Path, file: str, change: Callable[[dict[str, Any]], object]) -> Path:
        """Copy a folder with one of its JSON files changed."""
        copy.mkdir()
        for path in self.folder(name).iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        content = json.loads((copy / file).read_text())
        change(content)
        (copy / file).write_text(json.dumps(content))
        return copy


def save_all(root: Path) -> Zoo:
    """Save every model with its processor."""
    with torch.random.fork_rng(), quietly():
        torch.manual_seed(0)
        for name, kind in KINDS.items():
            for part in MAKE[kind](name):
                part.save_pretrained(root / name)
    return Zoo(root)
