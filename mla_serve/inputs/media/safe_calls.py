"""Call the libraries that decode files: turn their exceptions into InputError, and suppress what they print."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

from mla_serve.errors import InputError


@contextlib.contextmanager
def library_call(field: str, what: str, advice: str) -> Iterator[None]:
    """Turn any exception of a library into an InputError. The block must contain calls of the library only.

    Pillow and soundfile raise every kind of exception there is, TypeError and MemoryError included.

    Args: field, the name for the error; what, what is wrong with the file; advice, what to do.
    """
    try:
        with no_output:
            yield
    except Exception as error:
        raise InputError(field, f"{what} ({short_reason(error)}); {advice}") from None


def short_reason(error: Exception) -> str:
    """Shorten the message of an exception to one line."""
    text = getattr(error, "error_string", "") or str(error)  # str() of soundfile's errors names the file object
    words = " ".join(text.split()).replace(";", ",").removeprefix("Error : ").rstrip(" .")
    return (words if len(words) <= 100 else words[:97] + "...") or type(error).__name__


class _NoOutput:
    """Suppress what C libraries print while any thread is in the block.

    libtiff prints a line per damaged row and mpg123 several per damaged frame: 60 MB for a file of 1 MB. Neither can be
    told not to. In the GNU C library, stdout and stderr are variables that a program may set; the descriptors 1 and 2,
    which Python writes to, stay as they are. With another C library nothing is silenced.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._streams: list[tuple[ctypes.c_void_p, int | None]] = []
        if "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {}) and os.confstr("CS_GNU_LIBC_VERSION"):
            program = ctypes.CDLL(None)
            program.fopen.restype = ctypes.c_void_p
            self._nowhere = program.fopen(b"/dev/null", b"w")
            streams = [ctypes.c_void_p.in_dll(program, name) for name in ("stdout", "stderr")]
            self._streams = [(stream, stream.value) for stream in streams if self._nowhere]

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            for stream, _ in self._streams:
                stream.value = self._nowhere

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            for stream, own in self._streams if not self._within else ():
                stream.value = own


no_output = _NoOutput()
"""One for the whole process: it counts the threads inside."""
