"""Decode image files that end early, if they hold most of their pixels.

Each file is decoded twice, with different bytes in place of the missing ones. Pixels that are equal both times come from the
file. The rest of the picture is filled with the last complete row.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from PIL import Image

from mla_serve.inputs.base import Array

Load = Callable[[bytes, int | None], Image.Image]
"""Decodes the content of a file. A number is the value of missing pixels; with None, missing pixels are an error."""

LEAST = 0.9  # of the pixels; a classifier should not guess from the sky at the top of a picture
READ_IN_PART = ("JPEG", "WebP", "PNG", "GIF", "TIFF")
"""By their names in `mla_serve.inputs.media.formats`. All but the first two are decoded row by row into a given picture."""
NOISE = bytes(np.random.default_rng(0).integers(0, 255, 4096, dtype=np.uint8))  # no 0xff, a marker in JPEG
SHORT = 16
MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
RESTARTS = [b"\xff%c" % code for code in range(0xD0, 0xD8)]
END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN, FRAMES = 0xDA, (0xC0, 0xC1, 0xC2)
COEFFICIENTS = 64
BLOCK = 16  # the largest width of what is coded at once, in pixels
SAME_AT_ONCE = 256  # rows that are compared


class TooLittle(ValueError):
    """Too many pixels are missing."""


def load_cut(image_format: str, payload: bytes, load: Load) -> Image.Image:
    """Decode a file that could not be decoded as it is; image_format is its name in `mla_serve.inputs.media.formats`.

    Raises: TooLittle, which says how much the file holds; whatever Pillow raises where the file is damaged otherwise.
    """
    if image_format == "JPEG":
        content, sharper = _complete_scans(payload)
        first = load(content + END_OF_IMAGE, None)
        if sharper:
            return first
        noise = NOISE * (len(payload) // len(NOISE) + 1)
        other = load(content + noise + _next_restart(content) + noise + END_OF_IMAGE, None)
        return _filled(first, other, in_order=True)
    if image_format == "WebP":
        missing = int.from_bytes(payload[4:8], "little") + 8 - len(payload)
        if not 0 < missing < len(payload):
            raise TooLittle(f"{len(payload):,} of {len(payload) + missing:,} bytes are there")
        noise = NOISE[: min(missing, SHORT)]  # more of it, and the decoder would run out of data
        whole, other = (load(payload + tail.ljust(missing, b"\0"), None) for tail in (b"", noise))
        return _filled(whole, other, in_order=True)
    return _filled(load(payload, 0), load(payload, 255))


def _filled(first: Image.Image, second: Image.Image, *, in_order: bool = False) -> Image.Image:
    """Fill the first picture where it differs from the second, with the last complete row.

    Args: in_order, whether rows are stored from the top down, so that nothing is there below the first difference.
    Raises: TooLittle.
    """
    there = _count_equal_pixels(first, second)
    if in_order and there.min() < first.width:
        there[_end_of_blocks(there, first.width) :] = 0  # further down both may be the same grey
    share = int(100 * there.sum() / (first.width * first.height))
    if share < 100 * LEAST:
        raise TooLittle(f"{share} % of its pixels can be read, {100 * LEAST:.0f} % are needed")
    row = int(np.argmax(there < first.width))
    if there[row] < first.width and row:
        last = first.crop((0, row - 1, first.width, row))
        missing = (np.arange(first.width) >= there[row:, None]).astype(np.uint8) * 255
        below = last.resize((first.width, first.height - row), Image.Resampling.NEAREST)
        first.paste(below, (0, row), Image.fromarray(missing))
    return first


def _end_of_blocks(there: Array, width: int) -> int:
    """Return the row after the first incomplete row of blocks. The rows of a block end at the same column."""
    row = int(np.argmax(there < width))
    below = there[row + 1 :]
    elsewhere = (np.abs(below - there[row]) > BLOCK) | (below == width)
    return row + 1 + int(np.argmax(elsewhere)) if elsewhere.any() else len(there)


def _count_equal_pixels(first: Image.Image, second: Image.Image) -> Array:
    """Count the pixels of each row before the first that differs: (H,)."""
    one, other = np.asarray(first), np.asarray(second)
    counts = []
    for at in range(0, len(one), SAME_AT_ONCE):
        differs = one[at : at + SAME_AT_ONCE] != other[at : at + SAME_AT_ONCE]
        differs = differs.reshape(len(differs), first.width, -1).any(axis=2)
        counts.append(np.where(differs.any(axis=1), differs.argmax(axis=1), first.width))
    return np.concatenate(counts)


def _next_restart(content: bytes) -> bytes:
    """Return the restart marker that would come next in the last scan of a JPEG.

    A file may be parted by such markers. The decoder leaves a part empty when the marker before it does not come, so what
    is put in the place of the missing data has to begin with it.
    """
    scan = content.rfind(b"\xff%c" % START_OF_SCAN)
    last = max(range(len(RESTARTS)), key=lambda number: content.rfind(RESTARTS[number], scan))
    none_yet = content.rfind(RESTARTS[last], scan) < 0
    return RESTARTS[0 if none_yet else (last + 1) % len(RESTARTS)]


def _complete_scans(payload: bytes) -> tuple[bytes, bool]:
    """Find the part of a cut JPEG to decode, and whether it lacks sharpness only.

    A progressive file holds the whole picture first, and refines it in further scans; one without an end in a scan that
    refines what was there is only less sharp.

    Raises: TooLittle where whole coefficients or colours were never sent.
    """
    at, components, sent, refines = 2, 0, set[tuple[int, int]](), False
    while mark := MARKER.search(payload, at):
        at = mark.start()
        length = int.from_bytes(payload[at + 2 : at + 4], "big")
        segment = payload[at + 4 : at + 2 + length]
        if payload[at + 1] == END_OF_IMAGE[1] or len(payload) < at + 2 + length or length < 2:
            break
        if payload[at + 1] in FRAMES:
            components = segment[5]
        elif payload[at + 1] == START_OF_SCAN:
            names, (low, high, precision) = segment[1:-3:2], segment[-3:]
            sent |= {(name, number) for name in names for number in range(low, high + 1)}
            refines = precision > 0x0F
        at += 2 + length
    else:
        at = len(payload)
    if len(sent) < components * COEFFICIENTS:
        raise TooLittle(f"{len(sent)} of {components * COEFFICIENTS} parts that make it sharp and coloured are there")
    return payload[:at].rstrip(b"\xff"), refines
