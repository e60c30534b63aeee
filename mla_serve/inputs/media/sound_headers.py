"""Repair the headers of sound files that were written to a pipe or start with a tag, so that libsndfile reads them.

A program that writes to a pipe cannot go back to fill in the length of the data. It leaves 0 or the largest number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mla_serve.inputs.media.mp3 import with_frame_count

W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
MOST_CHUNKS = 1000  # that are searched; ordinary files have less than twenty
CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ -]{3}[A-Za-z0-9_ ]")


def complete_header(payload: bytes) -> bytes:
    """Fill in the length if the header lacks it, and remove a tag and the zeros after it.

    Returns: the payload itself if its header is complete.
    """
    if payload.startswith(b"ID3"):
        payload = _without_tag(payload)
    for start, complete in COMPLETE.items():
        if payload.startswith(start):
            return complete(payload)
    return with_frame_count(payload)


def _without_tag(payload: bytes) -> bytes:
    """Remove ID3v2 tags and zeros before the sound.

    libsndfile skips one tag, but counts its bytes as sound when it estimates the length of an MP3.
    """
    end = 0
    for _ in range(MOST_CHUNKS):
        if payload[end : end + 3] != b"ID3" or len(payload) < end + 10:
            break
        flags, size = payload[end + 5], 0
        for byte in payload[end + 6 : end + 10]:
            size = size << 7 | byte & 0x7F
        end += 10 + size + 10 * bool(flags & 0x10)
    return payload[end:].lstrip(b"\0") or payload


def _complete_wav(payload: bytes) -> bytes:
    """Replace a length of 0 before data. A recording that is empty has no data, or another chunk, behind it."""
    for name, at, size in _chunks(payload):
        start = at + 8
        if name == b"data" and size == 0 and start < len(payload) and not _is_chunk(payload, start):
            return payload[: at + 4] + (len(payload) - start).to_bytes(4, "little") + payload[start:]
        if name == b"data":
            break
    return payload


def _complete_rf64(payload: bytes) -> bytes:
    """Replace a length of 0 in the chunk ds64, which holds the long numbers of RF64."""
    if payload[12:16] != b"ds64" or any(payload[28:36]):
        return payload
    data = next((at for name, at, _ in _chunks(payload) if name == b"data"), None)
    if data is None:
        return payload
    lengths = (len(payload) - 8).to_bytes(8, "little") + (len(payload) - data - 8).to_bytes(8, "little")
    return payload[:20] + lengths + payload[36:]


def _complete_w64(payload: bytes) -> bytes:
    """Replace the lengths of the file and of the data; in Wave64 they include the chunk's head of 24 bytes."""
    at = payload.find(W64_DATA, 0, 2**16)
    if at < 0 or 0 < int.from_bytes(payload[at + 16 : at + 24], "little") < 2**62:
        return payload
    whole, data = len(payload).to_bytes(8, "little"), (len(payload) - at).to_bytes(8, "little")
    return payload[:16] + whole + payload[24 : at + 16] + data + payload[at + 24 :]


def _complete_caf(payload: bytes) -> bytes:
    """Replace a length of -1, which Core Audio allows in the last chunk."""
    at = payload.find(b"data\xff\xff\xff\xff\xff\xff\xff\xff", 0, 2**16)
    if at < 0:
        return payload
    return payload[: at + 4] + (len(payload) - at - 12).to_bytes(8, "big") + payload[at + 12 :]


def _chunks(payload: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks of a RIFF file: name, position, and length according to the header."""
    at = 12
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(payload):
            return
        size = int.from_bytes(payload[at + 4 : at + 8], "little")
        yield payload[at : at + 4], at, size
        at += 8 + size + size % 2


def _is_chunk(payload: bytes, at: int) -> bool:
    """Return whether a chunk begins here and ends within the file."""
    size = int.from_bytes(payload[at + 4 : at + 8], "little")
    return bool(CHUNK_NAME.fullmatch(payload[at : at + 4])) and at + 8 + size <= len(payload)


COMPLETE = {b"RIFF": _complete_wav, b"RF64": _complete_rf64, b"riff": _complete_w64, b"caff": _complete_caf}
"""The repair for each format, by the first bytes of the file."""
