"""What a caller has in hand to what the service reads: paths, bytes, images, arrays, texts, numbers.

numpy and Pillow are imported only where an array or an image is given, and are there then.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mla_serve.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Array = NDArray[Any]
    Value = str | bytes | os.PathLike[str] | Image | Array | tuple[Array, int] | Sequence[float]
else:
    Value = Any

Parts = list[tuple[str, Any]]
FLOAT_WAV = 3  # format code of IEEE floats


def needs_kind(value: object) -> bool:
    """Whether what a value means depends on the modality: a str may be a path or a text, an array an image or numbers."""
    return isinstance(value, str) or not (isinstance(value, bytes | bytearray | os.PathLike) or _is_image(value))


def to_part(name: str, value: Value, kind: str | None) -> tuple[str, Any]:
    """Make one part of a form, as httpx's `files` takes it.

    Args: kind, of the modality; None where it is not known, or makes no difference.
    Raises: InputError for a value that cannot be sent as this kind.
    """
    if kind in ("text", "vector"):
        return name, (None, _text(name, value, kind))
    return name, (name, _file(name, value, kind))


def _text(name: str, value: Any, kind: str) -> str:
    if isinstance(value, os.PathLike):
        value = _read(name, value)
    if isinstance(value, bytes | bytearray):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError as error:
            raise InputError(name, f"expected UTF-8, got other bytes (at {error.start}); decode the text") from None
    if isinstance(value, str):
        return value
    if kind == "vector" and not isinstance(value, Mapping) and hasattr(value, "__iter__"):
        try:
            return json.dumps([float(number) for number in value])
        except (TypeError, ValueError):
            raise InputError(name, f"expected numbers, got {_name(value)}; send a list such as [0.5, -1]") from None
    raise InputError(name, f"expected a {kind}, got {_name(value)}; send a {'str' if kind == 'text' else 'list'}")


def _file(name: str, value: Any, kind: str | None) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        return _read(name, value)
    if _is_image(value):
        return _png(value)
    if kind == "image" and hasattr(value, "__array__"):
        return _png(_image_of(name, value))
    if kind == "audio" and isinstance(value, tuple) and len(value) == 2:
        return _wav(name, *value)
    wanted = {"image": "a path, bytes, a PIL image or an array", "audio": "a path, bytes or (array, rate)"}
    raise InputError(name, f"got {_name(value)}; send {wanted.get(kind or '', 'a path or bytes')}")


def _read(name: str, path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(name, f"{os.fspath(path)}: cannot be read ({reason}); give a file that is there") from None


def _is_image(value: object) -> bool:
    """Whether this is an image of Pillow, without importing Pillow."""
    return any(cls.__module__ == "PIL.Image" for cls in type(value).__mro__)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        image = image.convert("RGB")
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _image_of(name: str, value: Any) -> Any:
    """Read (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 0-255 or floating point 0-1."""
    import numpy as np
    from PIL import Image

    array = np.asarray(value)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise InputError(name, f"got an array of shape {array.shape}; send (H, W), (H, W, 3) or (H, W, 4)")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError(name, "got floating-point pixels outside 0 to 1; scale them, or send uint8 0 to 255")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(name, f"got an array of {array.dtype}; send uint8 0 to 255, or floats 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array))


def _wav(name: str, samples: Any, rate: Any) -> bytes:
    """Write (T,) or (T, channels), floating point -1 to 1 or whole numbers of full scale, as 32-bit float WAV."""
    import numpy as np

    array = np.asarray(samples)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0 or not _is_rate(rate):
        raise InputError(
            name, f"got an array of shape {array.shape} at {rate} Hz; send (T,) or (T, channels) and a rate"
        )
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / -float(np.iinfo(array.dtype).min)
    elif not np.issubdtype(array.dtype, np.floating):
        raise InputError(name, f"got samples of {array.dtype}; send floats -1 to 1, or int16")
    data = array.astype("<f4").tobytes()
    channels = array.shape[1]
    layout = struct.pack("<HHIIHH", FLOAT_WAV, channels, int(rate), int(rate) * channels * 4, channels * 4, 32)
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE"),
            struct.pack("<4sI", b"fmt ", len(layout)),
            layout,
            struct.pack("<4sI", b"data", len(data)),
            data,
        )
    )


def _name(value: object) -> str:
    return f"a {type(value).__name__}"


def _is_rate(value: object) -> bool:
    """Whether this is a sampling rate: a whole number, of Python or numpy."""
    return hasattr(value, "__index__") and 0 < value.__index__() < 2**31
