"""Compare an input, its front and the pooled features with the transformers processor, on real samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mla_serve.errors import ConfigError
from mla_serve.inputs import AudioInput, ImageInput, Input, Payload, TextInput
from mla_serve.train.pretrained.backbone import Backbone
from mla_serve.train.pretrained.source import quietly

TOLERANCE = {"image": 1e-4, "audio": 2e-2, "text": 0.0}
"""Largest allowed difference of the model's arguments. In fp32, a log-mel cell near its floor has two exact digits."""
FEATURE_TOLERANCE = 2e-3
"""Largest allowed difference of the features, relative to the largest feature of a sample."""


@torch.no_grad()
def check_preprocessing(
    source: str, spec: Input, backbone: Backbone, processor: Any, payloads: Sequence[Payload]
) -> float:
    """Compare the model's arguments and features with those of its processor, payload by payload.

    Returns: the largest relative difference of the features.
    Raises: ConfigError when a difference is too large, or the model rejects the arguments of its processor.
    """
    worst = 0.0
    for payload in payloads:
        for window in torch.from_numpy(spec.decode(payload, spec.kind)).split(1):
            try:
                given, real = backbone.prepare(window)
                with quietly():
                    expected = PROCESS[spec.kind](processor, spec, payload, window)
                _compare(source, spec.kind, given, expected)
                ours, theirs = backbone.run(given, real), backbone.run(expected, _real(expected, real))
            except (ValueError, RuntimeError, IndexError, TypeError, AttributeError) as error:
                raise ConfigError(f"hf:{source}: the model refuses what its processor gives ({error})") from error
            difference = float((ours - theirs).abs().max() / (1e-3 + theirs.abs().max()))
            if not difference <= FEATURE_TOLERANCE:
                raise _differs(source, f"the features differ by {difference:.2g}, allowed is {FEATURE_TOLERANCE:g}")
            worst = max(worst, difference)
    return worst


def _compare(source: str, kind: str, given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in given.items():
        theirs = expected.get(name)
        if theirs is None or theirs.shape != value.shape:
            shape = None if theirs is None else tuple(theirs.shape)
            raise _differs(source, f"{name} has the shape {tuple(value.shape)}, the processor's has {shape}")
        difference = float((value.double() - theirs.double()).abs().max())
        if not difference <= TOLERANCE[kind]:
            raise _differs(source, f"{name} differs by {difference:.2g}, allowed is {TOLERANCE[kind]:g}")
    if more := expected.keys() - given.keys():
        raise _differs(source, f"the processor gives {', '.join(sorted(more))} as well")


def _differs(source: str, how: str) -> ConfigError:
    return ConfigError(
        f"hf:{source}: its preprocessing cannot be carried over: on a sample of the data, {how}; choose another model"
    )


def _real(expected: dict[str, Tensor], ours: Tensor | None) -> Tensor | None:
    """Return which steps are real, by the processor's own mask if it has one for steps."""
    return expected["attention_mask"].bool() if "input_ids" in expected else ours


def _image(processor: Any, spec: ImageInput, payload: bytes, _: Tensor) -> dict[str, Tensor]:
    return dict(processor(spec.picture(payload), return_tensors="pt"))


def _audio(processor: Any, spec: AudioInput, _: Payload, window: Tensor) -> dict[str, Tensor]:
    recorded = window[0, : spec.recorded(window[0].numpy())].numpy()
    if type(processor).__name__ != "Wav2Vec2FeatureExtractor":
        return dict(processor(recorded, sampling_rate=spec.rate, return_tensors="pt"))
    options: dict[str, Any] = {"padding": "max_length", "max_length": spec.window, "return_attention_mask": True}
    given = dict(processor(recorded, sampling_rate=spec.rate, return_tensors="pt", **options))
    if not processor.return_attention_mask:  # "simply padded with 0 and no attention_mask", its documentation says
        del given["attention_mask"]
    return given


def _text(processor: Any, spec: TextInput, payload: str, _: Tensor) -> dict[str, Tensor]:
    options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": spec.length}
    given = dict(processor(payload, return_tensors="pt", **options))
    if not given.get("token_type_ids", torch.zeros(1)).any():
        given.pop("token_type_ids", None)  # zeros are what a model takes when it is given none
    return given


PROCESS: dict[str, Callable[..., dict[str, Tensor]]] = {"image": _image, "audio": _audio, "text": _text}
