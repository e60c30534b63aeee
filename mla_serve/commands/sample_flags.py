"""The flags that name one sample, for `predict` and `ask`: files, text, cells of columns, standard input."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mla_serve.errors import ConfigError, InputError
from mla_serve.inputs import Payload
from mla_serve.inputs.base import name_of_column

COLUMNS = "columns"  # the modality that a table's numbers, categories, dates and yes/no columns become
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
    columns: tuple[str, ...] = ()
    """Cells of the modality `columns`: COLUMN=VALUE ..., or one JSON object."""
    input: tuple[str, ...] = ()
    """Modalities of other names: NAME=VALUE, a file for images and sounds, else the text, the numbers or the JSON object
    itself; NAME.COLUMN=VALUE is one cell; NAME=- reads standard input. NAME may be the column that the modality was
    made of."""
    fusion: str | None = None
    """Fusion rule. Default: calibrated."""
    top_k: int | None = None
    """List so many classes or labels, the most probable first. Default: 20. Not for a number."""
    coverage: float | None = None
    """Also give a set of labels, or for a number an interval, that holds the truth so often, such as 0.9. This is true on
    average, for rows like those of validation, whose modalities are missing at random."""
    json: bool = False
    """Print the reply of the service as JSON."""


def read_sample(flags: SampleFlags, sent_as: Mapping[str, str], known: Collection[str] = ()) -> dict[str, Payload]:
    """Collect the payloads that the flags name: {modality: payload}.

    Args: sent_as, of the model's modalities: {name: "file", "text", "numbers" or "cells"}. A name that the model lacks is
        passed on as text; the model refuses it. known, the columns of the modality `columns`.
    Raises: ConfigError for flags that do not fit together; InputError for a file that cannot be read.
    """
    given: dict[str, str] = {}
    cells: dict[str, dict[str, str]] = {}
    for flag, given_name, value in _named_values(flags):
        name = _find_name(given_name, sent_as, known)
        modality, dot, column = name.partition(".")
        is_cell = bool(dot) and sent_as.get(modality) in ("cells", None)
        taken, key = (cells.setdefault(modality, {}), column) if is_cell else (given, name)
        if key in taken:
            raise ConfigError(f"{flag}: {name} was given before; give it once")
        taken[key] = value
    if both := sorted(cells.keys() & given.keys()):
        raise ConfigError(f"{both[0]}: was given as a whole and as single cells; give it in one of these ways")
    if [*given.values()].count(STDIN) > 1:
        names = ", ".join(name for name, value in given.items() if value == STDIN)
        raise ConfigError(f"{names}: only one of them can read standard input; give the others as files")
    payloads: dict[str, Payload] = {
        name: _payload(name, value, sent_as.get(name) == "file") for name, value in given.items()
    }
    return payloads | {name: each for name, each in cells.items() if any(map(str.strip, each.values()))}


def _find_name(name: str, sent_as: Mapping[str, str], known: Collection[str]) -> str:
    """Return the modality that a column of another name became, such as my_text for "my text"; other names as they are."""
    modality, dot, column = name.partition(".")
    if name in sent_as or (dot and modality in sent_as and (modality != COLUMNS or column in known)):
        return name
    became = name_of_column(column if modality == COLUMNS and dot else name)
    return became if sent_as.get(became, "cells") != "cells" else name


def _named_values(flags: SampleFlags) -> Iterator[tuple[str, str, str]]:
    """Yield every value: (the flag as it was given, MODALITY or MODALITY.COLUMN, the value).

    Raises: ConfigError for a value without a name.
    """
    for name in ("image", "audio", "text"):
        if (given := getattr(flags, name)) is not None:
            yield f"--{name}", name, str(given)
    for item in flags.columns:
        column, separator, value = item.partition("=")
        if item.lstrip().startswith("{") or item == STDIN:
            yield "--columns", COLUMNS, item
        elif not separator:
            raise ConfigError(f"--columns {item}: expected COLUMN=VALUE, or a JSON object")
        else:
            yield f"--columns {item}", f"{COLUMNS}.{column}", value
    for item in flags.input:
        name, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"--input {item}: expected NAME=VALUE")
        yield f"--input {item}", name, value


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
