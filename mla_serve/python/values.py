"""One value as a caller has it in Python: turned into the value of a row, or into the cell of a table."""

from __future__ import annotations

import datetime
import decimal
import os
from pathlib import Path
from typing import Any

import numpy as np

from mla_serve.inputs import AudioInput, ImageInput
from mla_serve.payloads import Modality, drop_missing, is_image, is_missing, is_rate, to_payload, unwrap


def to_value(name: str, value: Any, modality: Modality, folder: Path) -> Any:
    """Turn a value into what a row holds for a modality: a path stays a path, so that it is read when it is needed.

    Args: name, of the modality; folder, a relative path is relative to it.
    Raises: InputError for a value that cannot be used as this modality.
    """
    value = unwrap(value)
    if modality.sent_as == "file" and isinstance(value, str | os.PathLike):
        return folder / value
    return to_payload(name, drop_missing({name: value})[name], modality)


def to_cell(column: str, value: Any) -> Any:
    """Turn a value into the cell of a table, whose kind is not known yet: pictures and sounds become bytes.

    Raises: InputError for a picture or sound that cannot be encoded.
    """
    if is_missing(value):
        return (
            [] if isinstance(value, list) else None
        )  # as a label, an empty list says that the row has none of the labels
    value = unwrap(drop_missing({column: value})[column])
    if is_image(value) or getattr(value, "ndim", 0) in (2, 3):
        return to_payload(column, value, ImageInput)
    if isinstance(value, tuple) and len(value) == 2 and any(map(is_rate, value)) and not all(map(_is_scalar, value)):
        return to_payload(column, value, AudioInput)
    return to_plain(value)


def to_plain(value: Any) -> Any:
    """Turn scalars and vectors of other libraries into plain Python values; anything missing becomes None."""
    if is_missing(value):
        return None
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]").item()
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return datetime.datetime.combine(value, datetime.time())
    if isinstance(value, np.generic) or hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, set | frozenset):
        return sorted(map(to_plain, value), key=str)
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in value]
    return value


def _is_scalar(value: object) -> bool:
    return isinstance(value, int | float | np.number)
