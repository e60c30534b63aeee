"""`python -m mla_serve.predict`: one answer from a bundle, without a server."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from mla_serve.bundle import Bundle
from mla_serve.cli import console, main
from mla_serve.errors import ConfigError, InputError
from mla_serve.fusion import DEFAULT_RULE
from mla_serve.inputs import Payload
from mla_serve.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Classify one sample from whichever of its modalities are given."""

    model: Path = Path("models/digits")
    """Folder of the bundle."""
    image: Path | None = None
    """An image file."""
    audio: Path | None = None
    """A sound file."""
    text: str | None = None
    """The text itself."""
    input: tuple[str, ...] = ()
    """Modalities of other names: NAME=VALUE, a file for images and sounds, else the text or the numbers themselves."""
    fusion: str = DEFAULT_RULE
    """Fusion rule."""
    top_k: int | None = None
    """Show only so many classes."""
    json: bool = False
    """Print the reply of the service as JSON."""


def read_sample(config: PredictConfig, bundle: Bundle) -> dict[str, Payload]:
    """Collect the payloads that the flags name: {modality: payload}.

    Raises: ConfigError for a file that cannot be read; UnknownField, by the predictor, for a modality the model lacks.
    """
    given: dict[str, Any] = {"image": config.image, "audio": config.audio, "text": config.text}
    for item in config.input:
        name, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"--input {item}: expected NAME=VALUE")
        given[name] = value
    return {name: _payload(name, value, bundle) for name, value in given.items() if value is not None}


def _payload(name: str, value: Any, bundle: Bundle) -> Payload:
    modality = bundle.manifest.modalities.get(name)
    if not isinstance(value, Path) and (modality is None or modality.kind not in ("image", "audio")):
        return str(value)
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise InputError(name, f"{value}: cannot be read ({error.strerror}); give a file that is there") from None


def run(config: PredictConfig) -> None:
    """Predict and print."""
    bundle = Bundle.load(config.model)
    sample = read_sample(config, bundle)
    prediction = Predictor(bundle).predict([sample], config.fusion, config.top_k)[0]
    if config.json:
        model = {"name": bundle.manifest.name, "sha256": bundle.manifest.sha256}
        json.dump(prediction.to_dict() | {"model": model}, sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        console.print(prediction)


if __name__ == "__main__":
    main(run, PredictConfig)
