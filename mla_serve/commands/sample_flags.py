"""The flags that name one sample, for `predict` and `ask`: files, text, standard input."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from mla_serve.errors import ConfigError, InputError

STDIN = "-"


@dataclasses.dataclass(frozen=True)
class SampleFlags:
    """One sample and how to answer it."""

    image: Path | None = None
    """An image file; - reads standard input."""
    audio: Path | None = None
    """A sound file; - reads standard input."""
    text: str | None = None
    """The text itself; - reads standard input."""
    input: tuple[str, ...] = ()
    """Modalities of other names: NAME=VALUE, a file for images and sounds, else the text or the numbers themselves;
    NAME=- reads standard input."""
    fusion: str | None = None
    """Fusion rule. Default: calibrated."""
    top_k: int | None = None
    """List so many classes, the most probable first. Default: 20."""
    coverage: float | None = None
    """Also give a set of labels that holds the true one so often, such as 0.9."""
    json: bool = False
    """Print the reply of the service as JSON."""


def read_sample(flags: SampleFlags, sent_as: Mapping[str, str]) -> dict[str, bytes | str]:
    """Collect the payloads that the flags name: {modality: payload}.

    Args: sent_as, of the model's modalities: {name: "file", "text" or "numbers"}. A name that the model lacks is passed on
        as text; the model refuses it.
    Raises: ConfigError for flags that do not fit together; InputError for a file that cannot be read.
    """
    given = {
        name: str(value)
        for name, value in (("image", flags.image), ("audio", flags.audio), ("text", flags.text))
        if value is not None
    }
    for item in flags.input:
        name, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"--input {item}: expected NAME=VALUE")
        if name in given:
            raise ConfigError(f"--input {item}: {name} was given before; give it once")
        given[name] = value
    if [*given.values()].count(STDIN) > 1:
        names = ", ".join(name for name, value in given.items() if value == STDIN)
        raise ConfigError(f"{names}: only one of them can read standard input; give the others as files")
    return {name: _payload(name, value, sent_as.get(name) == "file") for name, value in given.items()}


def _payload(name: str, value: str, is_file: bool) -> bytes | str:
    if value == STDIN:
        return _standard_input(name, is_file)
    if not is_file:
        return value
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise InputError(name, f"{value}: cannot be read ({error.strerror}); give a file that is there") from None


def _standard_input(name: str, is_file: bool) -> bytes | str:
    content = sys.stdin.buffer.read()
    if not content:
        raise InputError(name, "standard input was empty; pipe something into it, or leave the modality out")
    if is_file:
        return content
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(name, f"standard input is not UTF-8 ({error.reason} at {error.start}); convert it") from None
