"""Load the pretrained encoders of --encoders: settings, inputs and weights, checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mla_serve.bundle.graphs import LARGEST
from mla_serve.errors import ConfigError
from mla_serve.inputs import Input, Payload, TextInput
from mla_serve.train.config import TrainConfig
from mla_serve.train.pretrained import PREFIX, TUNES
from mla_serve.train.pretrained.backbone import Backbone, pick_pooling
from mla_serve.train.pretrained.check import check_preprocessing
from mla_serve.train.pretrained.encoders import linear_layers
from mla_serve.train.pretrained.processors import read_audio, read_image, read_text
from mla_serve.train.pretrained.settings import Pretrained, shown
from mla_serve.train.pretrained.source import hash_weights, load_model

CHECKED = 8  # real samples, and as many generated ones
READERS: dict[str, Callable[..., Any]] = {"image": read_image, "audio": read_audio, "text": read_text}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """One loaded encoder: the settings that rebuild it, its input, its weights, and the processor to compare with."""

    settings: Pretrained
    spec: Input
    backbone: Backbone
    processor: Any
    source: str

    def check(self, payloads: Sequence[Payload]) -> str:
        """Compare it with its processor on samples of the data, on a text that is too long, and on generated samples.

        Returns: a note. Raises: ConfigError where they differ.
        """
        generator = np.random.default_rng(0)
        generated = [self.spec.generate(generator) for _ in range(CHECKED)]
        long, cut = [], ""
        if isinstance(self.spec, TextInput):
            long = [(" ".join(map(str, payloads)) * self.spec.length)[: self.spec.max_characters]]
            cut = f", texts cut at {self.spec.length} tokens"
        compared = [*payloads[:CHECKED], *long, *generated]
        worst = check_preprocessing(self.source, self.spec, self.backbone, self.processor, compared)
        return f"{self.settings.note}{cut}; features differ from those of transformers by at most {worst:.1g}, relative"


def load_pretrained(source: str, tune: str, rank: int, kind: str, draft: Input | Sequence[str]) -> Loaded:
    """Load one encoder.

    Args: draft, the input that was chosen from the data; for a text the training texts.
    Raises: ConfigError when it cannot be used, with the reason.
    """
    if kind not in READERS:
        raise ConfigError(f"{PREFIX}{source}: pretrained encoders read {', '.join(READERS)}, not {kind}")
    if source.startswith("~"):  # the shell does not expand it after text=hf:
        source = str(Path(source).expanduser())
    model = load_model(source, kind)
    weights = hash_weights(model)
    processor, spec, front = READERS[kind](source, model, draft)
    if tune == "lora" and not list(linear_layers(model)):
        raise ConfigError(f"--tune lora: hf:{source} has no linear layers; use frozen or full")
    backbone = Backbone(model, front, pick_pooling(kind, model)).eval()
    _check_size(source, backbone)
    size = _measure_size(source, backbone, spec)
    settings = Pretrained(shown(source), tune, rank, _plain(model.config), front, backbone.pooling, size, weights)
    return Loaded(settings, spec, backbone, processor, source)


def _plain(config: Any) -> dict[str, Any]:
    """Return a transformers configuration as JSON fields, without its origin."""
    fields: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in fields.items() if key not in ("_name_or_path", "transformers_version")}


def _check_size(source: str, backbone: Backbone) -> None:
    """Refuse, before training, a model that does not fit into one ONNX graph. Raises: ConfigError."""
    size = sum(value.numel() * value.element_size() for value in backbone.state_dict().values())
    if size > LARGEST:
        raise ConfigError(
            f"hf:{source}: {size / 1e9:.1f} GB of weights, but one ONNX graph holds {LARGEST / 1e9:.1f} GB at most; "
            "choose a smaller model"
        )


@torch.no_grad()
def _measure_size(source: str, backbone: Backbone, spec: Input) -> int:
    """Return the number of features of a backbone. Raises: ConfigError if it does not give one vector."""
    window = torch.from_numpy(spec.decode(spec.generate(np.random.default_rng(0)), spec.kind))
    try:
        return int(backbone(window).shape[1])
    except (ValueError, RuntimeError, IndexError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"hf:{source}: {type(backbone.model).__name__} does not give one vector of features for what its own "
            f"processor describes ({reason}); choose another model"
        ) from error


def pick_tunes(config: TrainConfig, chosen: Mapping[str, str]) -> dict[str, str]:
    """Return how each pretrained encoder is trained: as in --tune, or frozen.

    Raises: ConfigError.
    """
    tunes = {name: TUNES[0] for name, encoder in chosen.items() if encoder.startswith(PREFIX)}
    for item in config.tune:
        name, _, tune = item.partition("=")
        if tune not in TUNES:
            raise ConfigError(f"--tune {item}: expected NAME=TUNE, where TUNE is one of {', '.join(TUNES)}")
        if name not in tunes:
            raise ConfigError(f"--tune {item}: {name} has no pretrained encoder; --encoders {name}=hf:... names one")
        tunes[name] = tune
    if config.lora_rank < 1:
        raise ConfigError(f"--lora-rank {config.lora_rank}: expected a whole number of at least 1")
    return tunes
