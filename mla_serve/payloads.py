"""Turn the values of a caller into payloads: paths, bytes, open files, images, arrays, texts, numbers, cells.

The client of the service and the Python interface take the same values by this code. numpy and Pillow are imported only for
an array or an image.
"""

from __future__ import annotations

import datetime
import io
import math
import operator
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from mla_serve.errors import InputError, UnknownField

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Array = NDArray[Any]
    File = str | bytes | os.PathLike[str] | IO[bytes]
    Value = File | Image | Array | tuple[Array, int] | Sequence[float] | float | Mapping[str, Any]
else:
    Value = Any

Cells = dict[str, bool | float | str | None]
FLOAT_WAV = 3  # format code of IEEE floats
MAX_WAV = 2**32 - 100  # bytes of samples; the header has 32 bits for the size
MAX_CHANNELS = 1000
MAX_RATE = 2**20
LONGEST = 100  # characters of a path that an error quotes
COLOURS = (1, 3, 4)  # values of a pixel: grey, RGB, RGBA
ROUNDING = 1e-6  # how far beyond 0 and 1 floating-point pixels may lie
AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
AS_TIFF = ("I", "F", "LAB")  # PNG cannot hold them, and the service scales them
WITH_ALPHA = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, EOFError, SystemError, KeyError, IndexError, struct.error)
EXPECTED = {
    "image": ("an image", "send a path, bytes, a file opened in binary mode, a PIL image or an array"),
    "audio": ("a sound", "send a path, bytes, a file opened in binary mode or (array, rate)"),
    "file": ("a file", "send a path, bytes or a file opened in binary mode"),
    "text": ("a text", "send a str"),
    "numbers": ("numbers", "send a list such as [0.5, -1]"),
    "cells": ("cells by the name of their column", "send a dict such as {'price': 12.5}"),
}
"""By kind, or else by how the kind is sent: what a message calls the value, and what to send."""


class Modality(Protocol):
    """What is known of a modality: its kind, and how it is sent. Inputs have both, and what GET /model lists has them."""

    @property
    def kind(self) -> str: ...

    @property
    def sent_as(self) -> str: ...


def check_sample(sample: Mapping[str, Value | None]) -> dict[str, Value | None]:
    """Return a sample as a dict. Raises: InputError for another type, or a name that no modality can have."""
    if not hasattr(sample, "items"):
        raise InputError(
            "sample",
            f"expected a dict such as {{'text': 'seven'}}, got {_type_name(sample)}; give one dict, or a list of them to "
            "predict_many: frame.to_dict('records') of a DataFrame",
        )
    checked = dict(sample.items())  # a row of a DataFrame has items, too
    for name in checked:
        if not isinstance(name, str) or not name.isprintable():
            raise UnknownField(repr(name)[:LONGEST], "no modality has such a name; give a name that /model lists")
    return checked


def drop_missing(sample: Mapping[str, Value | None]) -> dict[str, Value]:
    """Drop the missing values of a sample, and read open files to their end.

    Raises: InputError for a file that cannot be read.
    """
    return {name: _read_open_file(name, value) for name, value in sample.items() if not is_missing(value)}


def is_missing(value: object) -> bool:
    """Return whether a value means "missing": None, blank text, an empty list, NaN, NaT and NA of pandas, cells that all are."""
    if value is None or type(value).__name__ == "NAType":
        return True
    if isinstance(value, Mapping):
        return all(map(is_missing, value.values()))
    if isinstance(value, str | list):
        return value == [] or (isinstance(value, str) and not value.strip())
    if hasattr(value, "__len__") or hasattr(value, "read") or is_image(value):
        return False
    return bool(value != value)  # NaN and NaT alone do not equal themselves


def unwrap(value: Any) -> Any:
    """Take a picture or sound out of what a Hugging Face dataset holds for it; return any other value as it is.

    {"bytes", "path"} gives the bytes, or else the path; {"array", "sampling_rate"} and a decoder of torchcodec give
    (array, rate).
    """
    if isinstance(value, Mapping):
        if value.keys() == {"bytes", "path"}:
            return value.get("bytes") or value.get("path")
        if value.keys() >= {"array", "sampling_rate"}:
            return value["array"], value["sampling_rate"]
    elif callable(getattr(value, "get_all_samples", None)):
        sound = value.get_all_samples()
        return sound.data, sound.sample_rate
    return value


def _read_open_file(name: str, value: Any) -> Any:
    """Read an open file, or return the value as it is."""
    if not callable(getattr(value, "read", None)) or isinstance(value, os.PathLike):
        return value
    try:
        content = value.read()
    except (OSError, ValueError) as error:
        raise InputError(name, f"the file cannot be read ({error}); open it with open(path, 'rb')") from None
    if not isinstance(content, str | bytes | bytearray):
        raise InputError(
            name, f"expected bytes from read() of {_type_name(value)}, got {_type_name(content)}; send bytes"
        )
    if not content:
        raise InputError(name, "the file is empty, or was read to its end before; seek(0), or open it again")
    return content if isinstance(content, str) else bytes(content)


def needs_model(value: object) -> bool:
    """Return whether a value can only be sent once the model is known: a str may be a path or a text."""
    return isinstance(value, str) or not (
        isinstance(value, bytes | bytearray | memoryview | os.PathLike) or is_image(value)
    )


def to_payload(name: str, value: Value, modality: Modality | None) -> bytes | str | list[float] | Cells:
    """Turn one value into the payload of its modality: the bytes of a file, a text, numbers, or cells that JSON can hold.

    A picture or sound of a Hugging Face dataset is taken, too: see `unwrap`.

    Args: modality, None where it is not known and the value does not depend on it (see `needs_model`).
    Raises: InputError for a value that cannot be sent as this modality.
    """
    if modality is None or modality.sent_as != "cells":
        value = unwrap(value)
    if modality is not None and modality.sent_as != "file":
        return _no_file(name, value, modality)
    return _file(name, value, modality)


def _no_file(name: str, value: Any, modality: Modality) -> str | list[float] | Cells:
    if isinstance(value, os.PathLike):
        value = _read(name, value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError as error:
            raise InputError(name, f"expected UTF-8, got other bytes (at {error.start}); decode the text") from None
    if isinstance(value, str):
        return _checked_text(name, value)
    if modality.sent_as == "numbers":
        return _numbers(name, value, modality)
    if modality.sent_as == "cells":
        return _cells(name, value, modality)
    raise _wrong_type(name, value, modality)


def _checked_text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(name, "the text holds a lone surrogate, which is no character; send UTF-8") from None
    return text


def _numbers(name: str, value: Any, modality: Modality) -> list[float]:
    """Read a number, or numbers in a row: a list, an array (N,), (1, N) or (N, 1)."""
    if isinstance(value, Mapping | set | frozenset):  # their order is not that of the training
        raise _wrong_type(name, value, modality)
    if hasattr(value, "detach") or getattr(value, "ndim", 0) > 1:
        value = _array(name, value)
        if value.size != max(value.shape, default=1):
            raise InputError(name, f"expected numbers in a row, got an array of shape {value.shape}; send one row")
        value = value.ravel()
    single = getattr(value, "ndim", 1) == 0 or not hasattr(value, "__iter__")
    try:
        return [float(number) for number in ([value] if single else value)]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise _wrong_type(name, value, modality) from None


def _cells(name: str, value: Any, modality: Modality) -> Cells:
    """Read a dict, or a row of a DataFrame, as cells that JSON can hold."""
    if not hasattr(value, "items"):
        raise _wrong_type(name, value, modality)
    return {str(column): _cell(f"{name}.{column}", cell) for column, cell in value.items()}


def _cell(field: str, cell: Any) -> bool | float | str | None:
    """Return one cell as JSON can hold it: a date as ISO 8601, a number of numpy or decimal as Python's own."""
    if is_missing(cell):
        return None
    if getattr(cell, "ndim", None) == 0 and hasattr(cell, "item"):
        is_date = getattr(getattr(cell, "dtype", None), "kind", "") == "M"
        cell = str(cell) if is_date else cell.item()  # datetime64[ns] would become a whole number
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    if isinstance(cell, str):
        return _checked_text(field, cell)
    if isinstance(cell, bool | int):
        return cell
    try:
        number = float(cell)  # also a Decimal
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            field, f"expected a number, a text, a date, True or False, got {_type_name(cell)}; send one"
        ) from None
    if not math.isfinite(number):
        raise InputError(field, f"expected a finite number, got {number}; send None if it is not known")
    return number


def _file(name: str, value: Any, modality: Modality | None) -> bytes:
    kind = modality.kind if modality else None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        return _read(name, value)
    if is_image(value) and kind in ("image", None):
        return _encode_image(name, value)
    if kind == "image" and (hasattr(value, "__array__") or isinstance(value, list | tuple)):
        return _encode_image(name, _image_of_array(name, value))
    if kind == "audio" and isinstance(value, tuple) and len(value) == 2:
        return _wav(name, *(reversed(value) if is_rate(value[0]) else value))  # scipy gives (rate, array)
    raise _wrong_type(name, value, modality)


def _wrong_type(name: str, value: object, modality: Modality | None) -> InputError:
    kind, sent_as = (modality.kind, modality.sent_as) if modality else ("", "file")
    expected, advice = EXPECTED.get(kind) or EXPECTED[sent_as]
    return InputError(name, f"expected {expected}, got {_type_name(value)}; {advice}")


def _read(name: str, path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        shown = str(path) if len(str(path)) <= LONGEST else f"{str(path)[:LONGEST]}…"
        raise InputError(
            name, f"{shown!r}: cannot be read as a file ({reason}); give the path of a file that is there, or bytes"
        ) from None


def is_image(value: object) -> bool:
    """Return whether this is an image of Pillow, without importing Pillow."""
    return any(cls.__module__ == "PIL.Image" for cls in type(value).__mro__)


def _encode_image(name: str, image: Any) -> bytes:
    """Encode an image without loss and upright, so that it decodes like the file it was read from."""
    from PIL import ImageOps

    buffer = io.BytesIO()
    try:
        image = ImageOps.exif_transpose(image)  # the PNG does not keep the orientation tag
        if image.mode not in AS_PNG + AS_TIFF:
            image = image.convert(_mode_for_png(image.mode))
        image.save(buffer, "TIFF" if image.mode in AS_TIFF else "PNG")
    except UNREADABLE as error:
        reason = f"{error}" or type(error).__name__
        raise InputError(name, f"the image of mode {image.mode} cannot be used ({reason}); convert it to RGB") from None
    return buffer.getvalue()


def _mode_for_png(mode: str) -> str:
    """Return the mode to convert to, so that nothing visible is lost."""
    if mode.startswith("I;16"):
        return "I"
    return WITH_ALPHA.get(mode, "RGB")


def _image_of_array(name: str, value: Any) -> Any:
    """Read (H, W), (H, W, C) or (C, H, W) with C of 1, 3 or 4: whole numbers 0-255, uint16, bool, or floats 0-1."""
    import numpy as np
    from PIL import Image

    array = _array(name, value)
    if array.ndim == 3 and array.shape[2] not in COLOURS and array.shape[0] in COLOURS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in COLOURS) or 0 in array.shape:
        raise InputError(
            name,
            f"got an array of shape {array.shape}; send (H, W), (H, W, 3), (H, W, 4) or (3, H, W), or bytes of a file",
        )
    grey16 = array.dtype == np.uint16 and array.ndim == 2
    return Image.fromarray(np.ascontiguousarray(array if grey16 else _eight_bit(name, array)))


def _eight_bit(name: str, array: Array) -> Array:
    """Convert pixels to uint8."""
    import numpy as np

    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return (array / 257).round().astype(np.uint8)
    least, most = (array.min(), array.max()) if array.dtype.kind in "iuf" else (0, 0)
    if array.dtype.kind == "f":
        if not (least >= -ROUNDING and most <= 1 + ROUNDING):  # false for NaN, too
            raise InputError(name, "got floating-point pixels outside 0 to 1; scale them, or send uint8 0 to 255")
        return (array.astype(np.float64).clip(0, 1) * 255).round().astype(np.uint8)
    if array.dtype.kind not in "iu" or least < 0 or most > 255:
        span = f", from {least} to {most}" if array.dtype.kind in "iu" else ""
        raise InputError(name, f"got an array of {array.dtype}{span}; send uint8 0 to 255, or floats 0 to 1")
    return array.astype(np.uint8)


def _array(name: str, value: Any) -> Array:
    """Convert to a numpy array; a torch tensor may be on a GPU or need gradients."""
    import numpy as np

    try:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(name, f"got {_type_name(value)} that is no array ({error}); send a numpy array") from None


def _wav(name: str, samples: Any, rate: Any) -> bytes:
    """Write (T,), (T, channels) or (channels, T), floats -1 to 1 or int8, int16 or int32, as 32-bit float WAV."""
    import numpy as np

    array = _array(name, samples)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0 or not is_rate(rate):
        raise InputError(
            name,
            f"got an array of shape {_array(name, samples).shape} at a rate of {rate!r:.40}; send (array, rate): (T,), "
            "(T, channels) or (channels, T), and a whole number of Hz",
        )
    if array.shape[1] > array.shape[0]:  # there are more samples than channels
        array = array.T
    if array.dtype.kind == "i" and array.dtype.itemsize <= 4:
        array = array / -float(np.iinfo(array.dtype).min)
    elif array.dtype.kind != "f":
        raise InputError(name, f"got samples of {array.dtype}; send floats -1 to 1, int16 or int32")
    return _float_wav(name, array, int(rate))


def _float_wav(name: str, array: Array, rate: int) -> bytes:
    """Write (T, channels) as 32-bit float WAV."""
    data = array.astype("<f4").tobytes()
    channels = array.shape[1]
    if len(data) > MAX_WAV or channels > MAX_CHANNELS:
        raise InputError(name, f"got an array of shape {array.shape}; send the part that matters, or a FLAC file")
    layout = struct.pack("<HHIIHH", FLOAT_WAV, channels, rate, rate * channels * 4, channels * 4, 32)
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE"),
            struct.pack("<4sI", b"fmt ", len(layout)),
            layout,
            struct.pack("<4sI", b"data", len(data)),
            data,
        )
    )


def _type_name(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def is_rate(value: object) -> bool:
    """Return whether this is a sampling rate: a whole number of any type, also a float such as 8000.0 from a table."""
    try:
        rate = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool) and 0 < rate < MAX_RATE
