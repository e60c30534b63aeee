"""Read from its AV1 streams what decoding an AVIF file will cost.

The size in the container is only what the picture is scaled to: a file of 2 kB that says 16x16 there can hold a stream
of 12000x12000. An AV1 stream tells its size in a sequence header, and can hold any number of frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # types of the units that a stream consists of
MOST_UNITS = 10_000  # boxes, places and units of streams that are looked through, each; a photo has a handful
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
    steps = iter(range(MOST_UNITS))  # of all streams together
    streams = [_read_stream(content, steps) for content in _av1_items(payload)]
    if not streams:
        raise ValueError("it holds no picture")
    return streams


def as_still(payload: bytes) -> bytes:
    """Make an animation open at its still picture, so that only what `read_streams` has checked is decoded."""
    return payload[:8] + b"avif" + payload[12:]


def _av1_items(payload: bytes) -> Iterator[bytes]:
    """Yield the content of each item of type av01; in total at most the bytes of the file."""
    meta = _box(payload, b"meta", 0, len(payload))
    if meta is None:
        return
    infos, locations, inline = (_box(payload, name, meta[0] + 4, meta[1]) for name in (b"iinf", b"iloc", b"idat"))
    if infos is None or locations is None:
        return
    places, left = _places(payload[slice(*locations)]), len(payload)
    for number in _av1_numbers(payload, *infos) & set(places):
        method, extents = places[number]
        if method > 1 or (method == 1 and inline is None):
            raise ValueError("a picture lies in an unusual place")
        left -= sum(size for _, size in extents)
        if left < 0 or not all(size for _, size in extents):
            raise ValueError("a picture is longer than the file, or has no length")
        base = inline[0] if method == 1 and inline else 0
        yield b"".join(payload[base + at : base + at + size] for at, size in extents)


def _box(payload: bytes, name: bytes, at: int, end: int) -> Span | None:
    """Return the position of the content of the only box of a name; None if there is none. Raises: ValueError."""
    found = [(start, stop) for called, start, stop in _boxes(payload, at, end) if called == name]
    if len(found) > 1:
        raise ValueError(f"it has several boxes {name.decode()}")
    return found[0] if found else None


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
    raise ValueError(f"it has more than {MOST_UNITS:,} boxes")


def _av1_numbers(payload: bytes, start: int, end: int) -> set[int]:
    """Return the numbers of the items of type av01."""
    numbers = set()
    for name, at, _ in _boxes(payload, start + (6 if payload[start] == 0 else 8), end):
        width = 2 if payload[at] < 3 else 4
        if name == b"infe" and payload[at + 6 + width : at + 10 + width] == b"av01":
            numbers.add(int.from_bytes(payload[at + 4 : at + 4 + width], "big"))
    return numbers


class _Numbers:
    """Reads big-endian numbers of any width in sequence."""

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
    """Read the box iloc: {number of an item: (0 in the file or 1 in the box idat, [(position, length)])}.

    The counts are checked before they are believed: numbers of no width cost a file nothing.
    """
    numbers = _Numbers(box)
    version = numbers.take(4) >> 24
    widths = numbers.take(2)
    offset, length, base, index = (widths >> shift & 15 for shift in (12, 8, 4, 0))
    places: dict[int, tuple[int, list[Span]]] = {}
    left = _take_from(MOST_UNITS, items := numbers.take(2 if version < 2 else 4))
    for _ in range(items):
        number = numbers.take(2 if version < 2 else 4)
        method = numbers.take(2) & 15 if version else 0
        numbers.take(2)
        start = numbers.take(base)
        extents = []
        left = _take_from(left, count := numbers.take(2))
        for _ in range(count):
            numbers.take(index if version else 0)
            extents.append((start + numbers.take(offset), numbers.take(length)))
        places[number] = (method, extents)
    return places


def _take_from(left: int, count: int) -> int:
    if count > left:
        raise ValueError(f"it has more than {MOST_UNITS:,} pieces")
    return left - count


def _read_stream(content: bytes, steps: Iterator[int]) -> Stream:
    """Iterate over the units of a stream; each uses up one of the allowed steps."""
    pixels = frames = at = 0
    for _ in steps:
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
    raise ValueError(f"its pictures consist of more than {MOST_UNITS:,} units")


def _variable(content: bytes, at: int) -> Span:
    """Read a number of up to 8 bytes of 7 bits each: its value and its end."""
    value = 0
    for step in range(8):
        value |= (content[at + step] & 0x7F) << 7 * step
        if content[at + step] < 0x80:
            return value, at + step + 1
    raise ValueError("a length that is no number")


class _Bits:
    """Reads the bits of a unit in sequence."""

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
