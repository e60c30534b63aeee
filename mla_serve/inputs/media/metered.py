"""A file in memory that limits the number of reads.

Pillow and soundfile walk through the structures of a file (markers, chunks, blocks, pages) in Python, some bytes at a
time: ten megabytes of empty chunks take them seconds, with the interpreter locked. An ordinary file takes some thousand
reads.
"""

from __future__ import annotations

import io
import os

MOST_CALLS = 100_000


class MeteredFile(io.BytesIO):
    """Bytes that can be read at most MOST_CALLS times; after that, reading fails."""

    calls = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read.

        Raises: OSError after too many calls.
        """
        self._count()
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move.

        Raises: OSError after too many calls.
        """
        self._count()
        return super().seek(offset, whence)

    def _count(self) -> None:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise OSError(f"it consists of more than {MOST_CALLS:,} pieces")


class QuietFile(MeteredFile):
    """The same for libsndfile, which calls it from C: it ends or stays where it is instead of raising.

    An exception in such a call would be printed with its traceback by the interpreter, once for every bad file.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Read; nothing after too many calls."""
        try:
            return super().read(size)
        except OSError:
            return b""

    def readinto(self, buffer: object, /) -> int:
        """Read into a buffer; nothing after too many calls."""
        try:
            self._count()
        except OSError:
            return 0
        return super().readinto(buffer)  # type: ignore[arg-type]

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; stay where it is if the position is invalid."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()
