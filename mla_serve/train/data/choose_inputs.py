"""Choose each modality's input from the training data: size, rate, window, tokenizer."""

from __future__ import annotations

import contextlib
import io
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soundfile
import tokenizers
from PIL import Image

from mla_serve.errors import ConfigError, InputError
from mla_serve.inputs import AudioInput, ImageInput, Input, TextInput, VectorInput
from mla_serve.inputs.audio import UNKNOWN
from mla_serve.inputs.media.library import library_call
from mla_serve.inputs.media.sound_headers import complete_header
from mla_serve.inputs.text import PAD
from mla_serve.table import Row, payload
from mla_serve.train.config import TrainConfig

LOOK_AT = 500  # files opened to choose a size or rate
MAX_IMAGE, MAX_RATE, MAX_SECONDS, MAX_TOKENS = 96, 16_000, 10.0, 256


def choose_inputs(rows: Sequence[Row], kinds: dict[str, str], config: TrainConfig) -> dict[str, Input]:
    """Choose an input for every modality from the training rows: {name: kind} -> {name: input}."""
    texts = [
        str(row.values[name]) for row in rows for name, kind in kinds.items() if kind == "text" and name in row.values
    ]
    chosen: dict[str, Input] = {}
    for name, kind in kinds.items():
        values = [payload(row.values[name]) for row in rows if name in row.values][
            : None if kind == "text" else LOOK_AT
        ]
        if not values:
            raise ConfigError(f"modality {name}: no training row has it; leave it out with --modalities")
        chosen[name] = CHOOSE[kind](texts if kind == "text" else values, config)
    return chosen


def _image(values: Sequence[bytes], config: TrainConfig) -> ImageInput:
    images = [image for value in values if (image := _try_open(value))]
    if not images:
        raise ConfigError(f"none of the first training images can be read; expected {', '.join(ImageInput.formats)}")
    sides = [min(image.size) for image in images]
    side = config.image_size or min(int(np.median(sides)), MAX_IMAGE)
    grey = all(image.mode in ("1", "L", "I", "I;16") for image in images)
    borders = [np.asarray(image.convert("L"))[[0, -1]].mean() for image in images[:50]]
    return ImageInput(side, side, 1 if grey else 3, background=255 if np.mean(borders) > 127 else 0)


def _try_open(value: bytes) -> Image.Image | None:
    """Open an image if it can be; the faulty ones are reported, all at once, when the rows are checked."""
    try:
        with library_call("image", "it cannot be opened", "save it as PNG"):
            image = Image.open(io.BytesIO(value), formats=ImageInput.formats)
            image.load()
    except InputError:
        return None
    return image


def _audio(values: Sequence[bytes], config: TrainConfig) -> AudioInput:
    infos = []
    for value in values:
        with contextlib.suppress(InputError), library_call("audio", "it cannot be opened", "re-encode it"):
            infos.append(soundfile.info(io.BytesIO(complete_header(value))))
    if not infos:
        raise ConfigError(
            f"none of the first training recordings can be read; expected {', '.join(AudioInput.formats)}"
        )
    rate = config.audio_rate or min(int(np.median([info.samplerate for info in infos])), MAX_RATE)
    durations = [info.duration for info in infos if info.frames < UNKNOWN] or [MAX_SECONDS]
    longest = float(np.quantile(durations, 0.98))
    seconds = config.audio_seconds or float(np.clip(np.ceil(longest * 4) / 4, 0.5, MAX_SECONDS))
    window = round(seconds * rate)
    return AudioInput(rate, window, hop=window // 2)


def _text(values: Sequence[str], config: TrainConfig) -> TextInput:
    transliterate = _mixes_scripts(values) if config.transliterate is None else config.transliterate
    draft = TextInput(tokenizer="", length=1, transliterate=transliterate)
    texts = [draft.normalise(text) for text in values]
    tokenizer = train_tokenizer(texts)
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    length = int(np.clip(8 * np.ceil((np.quantile(lengths, 0.99) + 4) / 8), 16, MAX_TOKENS))
    return TextInput(tokenizer.to_str(), length, transliterate)


def train_tokenizer(texts: Sequence[str]) -> tokenizers.Tokenizer:
    """Train a byte-level BPE tokenizer; about one entry per 50 characters, so that little text keeps to single bytes."""
    size = int(np.clip(sum(map(len, texts)) // 50, 258, 8000))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=3,
        special_tokens=["<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.token_to_id("<pad>") != PAD:
        raise AssertionError("the padding token must have the id that inputs fill up with")
    return tokenizer


def _mixes_scripts(texts: Sequence[str]) -> bool:
    """Whether a good part of the texts is in Latin letters and another is not."""
    share = np.mean(
        [any(c.isalpha() and not unicodedata.name(c, "").startswith("LATIN") for c in text) for text in texts]
    )
    return bool(0.02 < share < 0.98)


def _vector(values: Sequence[Sequence[float]], config: TrainConfig) -> VectorInput:  # noqa: ARG001
    return VectorInput(len(values[0]))


CHOOSE: dict[str, Callable[[Any, TrainConfig], Input]] = {
    "image": _image,
    "audio": _audio,
    "text": _text,
    "vector": _vector,
}
