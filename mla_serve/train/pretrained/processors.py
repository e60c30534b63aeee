"""Read a model's own processor: the input that decodes for the model, and the settings of its front.

A processor that cannot be reproduced exactly is refused with the reason. One function for each kind of modality.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from mla_serve.errors import ConfigError
from mla_serve.inputs import AudioInput, ImageInput, Input, TextInput
from mla_serve.train.pretrained.source import fetch

Read = tuple[Any, Input, dict[str, Any]]
"""The processor, the input, the settings of the front."""
IMAGE_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
IMAGE_FACTS = {
    *("size", "crop_size", "crop_pct", "resample", "rescale_factor", "image_mean", "image_std"),
    *("image_processor_type", "feature_extractor_type", "processor_class", "default_to_square", "data_format"),
    *("input_data_format", "return_tensors", "device", "disable_grouping", "auto_map"),
}
WARPED_FROM = 384  # pixels; for sides of at least this length ConvNeXT's processor does not crop
SHORTEST_TEXT = 16  # tokens
NEARLY_ALL = 0.99  # of the training texts are not cut, if the model reads that many tokens
POSITIONS_FROM_2 = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "roberta-prelayernorm")
"""Text models whose first two positions are not for tokens."""
NO_LIMIT = 100_000  # tokenizers without a length of their own say 10 ** 30


def read_image(source: str, model: nn.Module, draft: ImageInput) -> Read:
    """Read an image processor: resize, crop, filter, rescale, normalise."""
    from transformers import AutoImageProcessor

    processor = fetch(AutoImageProcessor.from_pretrained, source)
    facts = processor.to_dict()
    unknown = sorted(key for key, value in facts.items() if value and key not in IMAGE_STEPS | IMAGE_FACTS)
    if unknown:
        raise _refused(source, f"its processor sets {', '.join(unknown)}")
    if getattr(model.config, "num_channels", 3) != 3:
        raise _refused(source, f"it reads {model.config.num_channels} channels, not red, green and blue")
    if not facts.get("do_resize"):
        raise _refused(source, "its processor does not resize, so that images keep different shapes")
    geometry = _geometry(source, facts)
    spec = dataclasses.replace(
        draft, channels=3, resample=Image.Resampling(facts.get("resample", 2)).name.lower(), **geometry
    )
    normalises = facts.get("do_normalize")
    front = {
        "type": "pixels",
        "factor": facts["rescale_factor"] if facts.get("do_rescale") else 1.0,
        "mean": _per_channel(facts["image_mean"]) if normalises else [0.0] * 3,
        "std": _per_channel(facts["image_std"]) if normalises else [1.0] * 3,
    }
    return processor, spec, front


def _geometry(source: str, facts: Mapping[str, Any]) -> dict[str, int]:
    """Return how images are resized and cropped, as fields of an ImageInput."""
    size, crop = dict(facts["size"]), dict(facts["crop_size"]) if facts.get("do_center_crop") else {}
    if facts.get("crop_pct") and facts["image_processor_type"].startswith("ConvNext") and "shortest_edge" in size:
        side = int(size["shortest_edge"])
        crop = crop or {"height": side, "width": side}
        warped = {"height": side, "width": side}
        size = {"shortest_edge": int(side / facts["crop_pct"])} if side < WARPED_FROM else warped
    elif facts.get("crop_pct"):
        raise _refused(source, "its processor sets crop_pct")
    if set(size) == {"height", "width"}:
        crop = crop or size
        fields = {"stretch_width": int(size["width"]), "stretch_height": int(size["height"])}
    elif set(size) == {"shortest_edge"} and crop:
        fields = {"short_side": int(size["shortest_edge"])}
    else:
        raise _refused(source, f"its processor resizes to {size} and does not crop, so that images keep their shapes")
    target = {"width": int(crop["width"]), "height": int(crop["height"])}
    least = fields.get("short_side", 0)
    between = least or fields["stretch_width"], least or fields["stretch_height"]
    if between[0] < target["width"] or between[1] < target["height"]:
        raise _refused(source, f"its processor crops {target} out of less ({size}), which would be padded")
    return fields | target


def _per_channel(value: float | Sequence[float]) -> list[float]:
    return [float(value)] * 3 if isinstance(value, int | float) else [float(one) for one in value]


def read_audio(source: str, model: nn.Module, draft: AudioInput) -> Read:
    """Read a feature extractor like that of wav2vec 2.0, AST or Whisper."""
    from transformers import AutoFeatureExtractor

    processor = fetch(AutoFeatureExtractor.from_pretrained, source)
    name = type(processor).__name__
    if name not in AUDIO:
        raise _refused(source, f"its preprocessing is {name}; known are {', '.join(AUDIO)}")
    if processor.padding_side != "right" or processor.padding_value != 0:
        raise _refused(source, f"it pads with {processor.padding_value} on the {processor.padding_side}")
    front, most = AUDIO[name](source, processor, model.config)
    rate = int(processor.sampling_rate)
    window = min(round(draft.window / draft.rate * rate), most or 10**9)
    spec = dataclasses.replace(draft, rate=rate, window=window, hop=window // 2, trim_db=0.0, mark_padding=True)
    return processor, spec, front


def _wave(source: str, processor: Any, config: Any) -> tuple[dict[str, Any], int | None]:
    if getattr(config, "add_adapter", False) or not hasattr(config, "conv_kernel"):
        raise _refused(source, f"how many steps {config.model_type} makes of a recording is not known")
    front = {
        "type": "waveform",
        "normalise": bool(processor.do_normalize),
        "mask": bool(processor.return_attention_mask),
        "kernels": list(config.conv_kernel),
        "strides": list(config.conv_stride),
    }
    return front, None


def _fbank(source: str, processor: Any, config: Any) -> tuple[dict[str, Any], int | None]:  # noqa: ARG001
    if processor.sampling_rate != 16_000:
        raise _refused(source, f"filter banks at {processor.sampling_rate} Hz are defined in two ways")
    front = {
        "type": "fbank",
        "bands": processor.num_mel_bins,
        "rate": processor.sampling_rate,
        "frames": processor.max_length,
        "normalise": bool(processor.do_normalize),
        "mean": processor.mean,
        "std": processor.std,
    }
    return front, (processor.max_length - 1) * 160 + 400


def _whisper(source: str, processor: Any, config: Any) -> tuple[dict[str, Any], int | None]:
    if processor.dither or getattr(processor, "do_normalize", False):
        raise _refused(source, "its feature extractor dithers or normalises")
    front = {
        "type": "whisper",
        "bands": processor.feature_size,
        "rate": processor.sampling_rate,
        "size": processor.n_fft,
        "hop": processor.hop_length,
        "samples": processor.n_samples,
        "stride": processor.n_samples // processor.hop_length // config.max_source_positions,
    }
    return front, processor.n_samples


AUDIO = {"Wav2Vec2FeatureExtractor": _wave, "ASTFeatureExtractor": _fbank, "WhisperFeatureExtractor": _whisper}


def read_text(source: str, model: nn.Module, texts: Sequence[str]) -> Read:
    """Read a tokenizer. Its length is what nearly all training texts need, or the limit of the model if that is less."""
    from transformers import AutoTokenizer

    tokenizer = fetch(AutoTokenizer.from_pretrained, source)
    if not getattr(tokenizer, "is_fast", False):
        raise _refused(source, f"its tokenizer, {type(tokenizer).__name__}, has no tokenizer.json")
    if tokenizer.pad_token_id is None or tokenizer.pad_token in (tokenizer.eos_token, tokenizer.sep_token):
        raise _refused(source, f"its tokenizer pads with {tokenizer.pad_token}, which ends texts as well, if at all")
    if tokenizer.padding_side != "right":
        raise _refused(source, f"its tokenizer pads on the {tokenizer.padding_side}")
    fast = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    fast.no_padding()
    fast.no_truncation()
    needed = np.quantile([len(one.ids) for one in fast.encode_batch(list(texts))], NEARLY_ALL)
    length = int(min(max(8 * np.ceil(needed / 8), SHORTEST_TEXT), _most_tokens(tokenizer, model.config)))
    fast.enable_truncation(length, direction=tokenizer.truncation_side)
    pad = int(tokenizer.pad_token_id)
    spec = TextInput(fast.to_str(), length, transliterate=False, lowercase=False, pad=pad, compose=False)
    return tokenizer, spec, {"type": "tokens", "pad": pad}


def _most_tokens(tokenizer: Any, config: Any) -> int:
    """Return how many tokens a model reads at most."""
    positions = getattr(config, "max_position_embeddings", None) or NO_LIMIT
    positions -= 2 if config.model_type in POSITIONS_FROM_2 else 0
    return int(min(tokenizer.model_max_length, positions, NO_LIMIT))


def _refused(source: str, reason: str) -> ConfigError:
    return ConfigError(f"hf:{source}: its preprocessing cannot be carried over: {reason}; choose another model")
