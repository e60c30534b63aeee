"""What decoding an AVIF file will cost, read from its AV1 streams.

The size in the container is only what the picture is scaled to: a file of 2 kB that says 16x16 there can hold a stream
of 12000x12000. An AV1 stream tells its size in a sequence header, and can hold any number of frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # types of the units that a stream consists of
MOST_UNITS = 10_000  # looked through; a photo has a handful
Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Stream:
    """One AV1 stream: the pixels of a frame, and how many frames."""

    pixels: int
    frames: int


def read_streams(payload: bytes) -> list[Stream]:
    """Read the streams of all pictures in a file: colour, transparency, tiles, thumbnails.

    Raises: ValueError or IndexError where the file's structure is not understood.
    """
    streams = [_read_stream(content) for content in _av1_items(payload)]
    if not streams:
        raise ValueError("it holds no picture")
    return streams


def as_still(payload: bytes) -> bytes:
    """Make an animation open at its still picture, so that what is decoded is what `read_streams` has seen."""
    return payload[:8] + b"avif" + payload[12:]


def _av1_items(payload: bytes) -> Iterator[bytes]:
    """Yield the content of each item of type av01."""
    wanted: set[int] = set()
    places: dict[int, tuple[int, list[Span]]] = {}
    inline: Span | None = None
    for name, start, end in _boxes(payload, 0, len(payload)):
        if name != b"meta":
            continue
        for inner, at, stop in _boxes(payload, start + 4, end):
            if inner == b"iinf":
                wanted |= _av1_numbers(payload, at, stop)
            elif inner == b"iloc":
                places |= _places(payload[at:stop])
            elif inner == b"idat":
                inline = (at, stop)
    for number in wanted & set(places):
        method, extents = places[number]
        if method > 1 or (method == 1 and inline is None):
            raise ValueError("a picture lies in an unusual place")
        base = inline[0] if method == 1 and inline else 0
        yield b"".join(payload[base + at : base + at + size if size else None] for at, size in extents)


def _boxes(payload: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes between two positions: name, where the content starts, where it ends."""
    for _ in range(MOST_UNITS):
        if at + 8 > end:
            return
        size, head = int.from_bytes(payload[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(payload[at + 8 : at + 16], "big"), 16
        stop = at + size if size else end
        if stop < at + head or stop > end:
            raise ValueError("a box reaches beyond the file")
        yield payload[at + 4 : at + 8], at + head, stop
        at = stop


def _av1_numbers(payload: bytes, start: int, end: int) -> set[int]:
    """Return the numbers of the items of type av01."""
    numbers = set()
    for name, at, _ in _boxes(payload, start + (6 if payload[start] == 0 else 8), end):
        width = 2 if payload[at] < 3 else 4
        if name == b"infe" and payload[at + 6 + width : at + 10 + width] == b"av01":
            numbers.add(int.from_bytes(payload[at + 4 : at + 4 + width], "big"))
    return numbers


class _Numbers:
    """Big-endian numbers of any width, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, width: int) -> int:
        end = self._at + width
        if end > len(self._content):
            raise ValueError("a table of places ends early")
        value = int.from_bytes(self._content[self._at : end], "big")
        self._at = end
        return value


def _places(box: bytes) -> dict[int, tuple[int, list[Span]]]:
    """Read the box iloc: {number of an item: (0 in the file or 1 in the box idat, [(position, length)])}."""
    numbers = _Numbers(box)
    version = numbers.take(4) >> 24
    widths = numbers.take(2)
    offset, length, base, index = (widths >> shift & 15 for shift in (12, 8, 4, 0))
    places = {}
    for _ in range(min(numbers.take(2 if version < 2 else 4), MOST_UNITS)):
        number = numbers.take(2 if version < 2 else 4)
        method = numbers.take(2) & 15 if version else 0
        numbers.take(2)
        start = numbers.take(base)
        extents = []
        for _ in range(min(numbers.take(2), MOST_UNITS)):
            numbers.take(index if version else 0)
            extents.append((start + numbers.take(offset), numbers.take(length)))
        places[number] = (method, extents)
    return places


def _read_stream(content: bytes) -> Stream:
    """Walk through the units of a stream."""
    pixels = frames = at = 0
    for _ in range(MOST_UNITS):
        if at >= len(content):
            return Stream(pixels, frames)
        head = content[at]
        at += 2 if head & 4 else 1
        size = len(content) - at
        if head & 2:
            size, at = _variable(content, at)
        kind = head >> 3 & 15
        if kind == SEQUENCE_HEADER:
            pixels = max(pixels, _sequence_pixels(content[at : at + size]))
        frames += kind in (FRAME_HEADER, FRAME)
        at += size
    raise ValueError(f"a picture consists of more than {MOST_UNITS:,} pieces")


def _variable(content: bytes, at: int) -> Span:
    """Read a number of up to 8 bytes of 7 bits: its value, and where it ends."""
    value = 0
    for step in range(8):
        value |= (content[at + step] & 0x7F) << 7 * step
        if content[at + step] < 0x80:
            return value, at + step + 1
    raise ValueError("a length that is no number")


class _Bits:
    """Bits of a unit, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content[:64], "big"), 8 * len(content[:64])

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header ends early")
        return self._value >> self._left & ((1 << count) - 1)


def _sequence_pixels(unit: bytes) -> int:
    """Read the largest frame's pixels from a sequence header (AV1 specification, 5.5.1)."""
    bits = _Bits(unit)
    bits.take(4)
    if bits.take(1):  # the short form of still pictures
        bits.take(5)
    else:
        if bits.take(1):
            raise ValueError("a picture with a clock")
        delayed = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delayed and bits.take(1):
                bits.take(4)
    width, height = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width) + 1) * (bits.take(height) + 1)
