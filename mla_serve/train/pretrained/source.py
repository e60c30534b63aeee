"""Find a pretrained model and load its weights, or refuse it with the reason."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from torch import nn

from mla_serve.console import require_extra
from mla_serve.errors import ConfigError

READS = {"pixel_values": "image", "input_values": "audio", "input_features": "audio", "input_ids": "text"}
"""The main input of a transformers model -> the kind of modality that it reads."""
TOWERS = {"image": "vision", "audio": "audio", "text": "text"}
"""Name of the part for one kind in a model of several kinds, as in vision_config and vision_model."""
RANDOMNESS_OFF = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}
"""Options of some audio models, switched off: their randomness follows no seed of ours, and we augment ourselves."""
T = TypeVar("T")


def load_model(source: str, kind: str) -> nn.Module:
    """Load the part of a transformers model that reads one kind of modality, its pretrained weights in fp32.

    Args: source, the name on the Hugging Face hub, or a folder; kind, image, audio or text.
    Raises: ConfigError when there is none, it reads something else, or the checkpoint lacks weights of it.
    """
    require_extra("hf")
    import transformers

    _check_exists(source)
    config = fetch(transformers.AutoConfig.from_pretrained, source)
    tower = TOWERS.get(kind, "")
    is_tower = hasattr(getattr(config, f"{tower}_config", None), "model_type")
    _check_kind(source, kind, getattr(config, f"{tower}_config") if is_tower else config)
    for option, value in RANDOMNESS_OFF.items():
        if hasattr(config, option):
            setattr(config, option, value)
    model, info = fetch(
        transformers.AutoModel.from_pretrained,
        source,
        config=config,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    if is_tower and not hasattr(model, f"{tower}_model"):
        raise ConfigError(f"hf:{source}: {type(model).__name__} has no part of its own for {kind}; choose another")
    prefix = f"{tower}_model." if is_tower else ""
    lacking = [key for key in info["missing_keys"] if key.startswith(prefix) and "pooler." not in key]
    if lacking or info["mismatched_keys"]:
        raise ConfigError(
            f"hf:{source}: the checkpoint lacks weights of {type(model).__name__}, such as "
            f"{[*lacking, *info['mismatched_keys']][0]}; is it one of another model, or damaged?"
        )
    part: nn.Module = getattr(model, f"{tower}_model") if is_tower else model
    if any("pooler." in key for key in info["missing_keys"]):
        part.pooler = None
    return _encoder_of(part).eval().requires_grad_(False)


def build_model(config: dict[str, Any]) -> nn.Module:
    """Make a model from its configuration alone; the weights are loaded later."""
    require_extra("hf")
    import transformers

    specific = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    return _encoder_of(transformers.AutoModel.from_config(specific, attn_implementation="eager"))


def _encoder_of(model: nn.Module) -> nn.Module:
    """Return the encoder of an encoder-decoder model; any other model as it is."""
    encoder: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
    return encoder


def fetch(call: Callable[..., T], source: str, **options: Any) -> T:
    """Call a loader of transformers. Raises: ConfigError with its reason."""
    from safetensors import SafetensorError

    kinds = (OSError, ValueError, KeyError, AttributeError, ImportError, RuntimeError, EOFError, UnpicklingError)
    try:
        with quietly():
            return call(source, **options)
    except (*kinds, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"hf:{source}: cannot be loaded ({type(error).__name__}: {reason}); expected a folder that "
            "save_pretrained wrote, or a name on the Hugging Face hub"
        ) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress the progress bars and warnings of transformers."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def hash_weights(model: nn.Module) -> str:
    """Return the sha256 of a model's weights and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_exists(source: str) -> None:
    """Refuse a path that is not a folder. A plain owner/name is looked up on the hub later. Raises: ConfigError."""
    if not source:
        raise ConfigError("hf: names no model; expected hf:FOLDER that save_pretrained wrote, or hf:NAME on the hub")
    path = Path(source)
    if not path.is_dir() and (source.startswith((".", "/")) or len(path.parts) > 2):
        raise ConfigError(f"hf:{source}: no such folder; expected one that save_pretrained wrote, or a name on the hub")


def _check_kind(source: str, kind: str, config: Any) -> None:
    """Refuse a model that reads another kind of input. Raises: ConfigError."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if type(config) not in MODEL_MAPPING:
        raise ConfigError(f"hf:{source}: transformers has no plain model of type {config.model_type}; choose another")
    found = MODEL_MAPPING[type(config)]
    cls: Any = found[0] if isinstance(found, tuple | list) else found
    reads = READS.get(cls.main_input_name, cls.main_input_name)
    if reads != kind:
        raise ConfigError(f"hf:{source}: {cls.__name__} reads {reads}, but the modality is of kind {kind}")
