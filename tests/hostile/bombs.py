"""Small files that ask for much: pixels, scans, samples, metadata."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import soundfile
from PIL import Image

from mla_serve.inputs.image import FORMATS
from mla_serve.inputs.media.avif import _places
from tests.hostile.seeds import chunk, image, png, sound, wav


def images() -> Iterator[tuple[str, bytes]]:
    """Yield images that unfold."""
    yield "wide.png", png(1_000_000, 1, b"\0" * 1_000_001)
    yield "high.png", png(1, 1_000_000, b"\0\0" * 1_000_000)
    yield "20000x20000.png", png(20_000, 20_000, b"\0" * 1_000_000, 1)
    yield "16-bit.png", png(1000, 1000, b"\0" * 2_001_000, 16)
    yield "more-data.png", png(10, 10, b"\0" * 30_000_000)
    texts = b"".join(chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(b"\0" * 900_000, 9)) for n in range(40))
    yield "texts.png", png(10, 10, b"\0" * 110, extra=texts)
    yield "profile.png", png(10, 10, b"\0" * 110, extra=chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 60_000_000, 9)))
    yield "chunks.png", png(10, 10, b"\0" * 110, extra=chunk(b"tEXt", b"k\0v") * 200_000)
    yield "frames.png", png(10, 10, b"\0" * 110, extra=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))
    yield "scans.jpg", scans(20_000)
    yield "scans-below-the-limit.jpg", scans(90)
    yield "large.jpg", image("JPEG", "L", (4, 4)).replace(b"\0\4\0\4", b"\xff\xff\xff\xff", 1)
    yield "restarts.jpg", image("JPEG") + b"\xff\xd0" * 500_000
    yield "fills.jpg", image("JPEG")[:2] + b"\xff" * 5_000_000 + image("JPEG")[2:]
    yield "comments.jpg", image("JPEG")[:2] + (b"\xff\xfe\0\4ab" * 200_000) + image("JPEG")[2:]
    yield "large.webp", _canvas(16_384, 16_384)
    yield "large.gif", image("GIF")[:6] + b"\xff\xff\xff\xff" + image("GIF")[10:]
    yield "blocks.gif", image("GIF")[:-1] + b"\x21\xfe\1a\0" * 200_000 + b";"
    yield "blocks-first.gif", image("GIF")[:13] + b"\x21\xfe\1a\0" * 400_000 + image("GIF")[13:]
    yield "large.bmp", image("BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + image("BMP")[26:]
    yield "strips.tiff", _strips()
    yield "loop.tiff", _loop()
    yield "rows.group3.tiff", fax(3)
    yield "rows.group4.tiff", fax(4)
    yield "larger-within.avif", larger_within("AVIF", 3000)
    yield "frames.avif", frames(200)
    yield "places.avif", avif_of_places(300, 2**16 - 1)
    yield "whole-file.avif", avif_of_places(1, 2000) + bytes(200_000)
    if "HEIF" in FORMATS:
        yield "larger-within.heic", larger_within("HEIF", 500)


def sounds() -> Iterator[tuple[str, bytes]]:
    """Yield sounds that unfold."""
    yield "long.flac", _silence("FLAC", "PCM_16", 8000 * 600)
    yield "as-long-as-allowed.flac", _silence("FLAC", "PCM_16", 9_990)
    yield "channels.flac", sound("FLAC", "PCM_16", 20_000, 8)
    yield "slow.wav", wav(b"\0\0" * 1000, rate=1000)
    yield "fast.wav", wav(b"\0\1" * 3_000_000, rate=384_000)
    yield "chunks.wav", wav(b"")[:12] + b"LIST\0\0\0\0" * 200_000 + wav(b"\0\1" * 500)[12:]
    yield "cues.wav", wav(b"\0\1" * 500) + b"cue " + struct.pack("<II", 4 + 24, 2**31)
    yield "adpcm.wav", wav(b"\xff" * 100_000, bits=4, tag=2)
    yield "tags.mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + sound("MP3", "MPEG_LAYER_III")
    yield "many-tags.mp3", b"ID3\4\0\0\0\0\0\0" * 200_000 + sound("MP3", "MPEG_LAYER_III")
    yield "frames.mp3", broken_frames()
    yield "open-chunks.rf64", _open_chunks()
    yield "sync.mp3", b"\xff\xfb\x90\0" * 250_000
    yield "chain.ogg", sound("OGG", "VORBIS") * 200
    yield "pages.ogg", (b"OggS" + b"\0" * 22 + b"\1\0") * 30_000
    yield "zeros.ogg", sound("OGG", "VORBIS") + b"\0" * 1_000_000


def scans(count: int, size: int = 4000) -> bytes:
    """Write a progressive JPEG that goes over the same pixels again and again."""
    buffer = io.BytesIO()
    Image.new("L", (size, size)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


def fax(compression: int, size: int = 100_000) -> bytes:
    """Write a TIFF in fax compression (3 or 4) of random bytes: libtiff had a line to say of every row."""
    data = random.Random(0).randbytes(size)
    rows = size // 2
    tags = {256: 20, 257: rows, 258: 1, 259: compression, 262: 0, 273: 134, 277: 1, 278: rows, 279: size}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    return head.ljust(134, b"\0") + data


def broken_frames(seconds: int = 110) -> bytes:
    """Write an MP3 whose frames are random behind their heads: mpg123 had several lines to say of each."""
    chance = random.Random(0)
    head, size, frames = b"\xff\xe3\x48\xc4", 288, int(seconds / 0.072)  # MPEG 2.5, 8 kHz, 32 kbit/s
    return b"".join(head + chance.randbytes(size - len(head)) for _ in range(frames))


def frames(count: int) -> bytes:
    """Write an AVIF whose stream goes over the same 4 million pixels again and again."""
    content = _plain("AVIF", 2000)
    _, [(at, size)] = _places(content[content.index(b"iloc") + 4 :])[1]
    head = content[:at].replace(size.to_bytes(4, "big"), (count * size).to_bytes(4, "big"))
    head = head.replace((size + 8).to_bytes(4, "big") + b"mdat", (count * size + 8).to_bytes(4, "big") + b"mdat")
    return head + content[at : at + size] * count


def larger_within(form: str, side: int) -> bytes:
    """Write a file whose container says 16x16 and whose stream holds more."""
    content = bytearray(_plain(form, side))
    at = content.index(b"ispe") + 8
    content[at : at + 8] = (16).to_bytes(4, "big") * 2
    return bytes(content)


def avif_of_places(items: int, extents: int) -> bytes:
    """Write an AVIF whose items each consist of so many pieces, all of the whole file: the numbers have no width."""
    info = _box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"av01\0")
    infos = _box(b"iinf", bytes(4) + struct.pack(">H", 1) + info)
    listed = b"".join(struct.pack(">HHH", number, 0, extents) for number in range(1, items + 1))
    locations = _box(b"iloc", bytes(6) + struct.pack(">H", items) + listed)
    return _box(b"ftyp", b"avif" + bytes(4) + b"avifmif1") + _box(b"meta", bytes(4) + infos + locations)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _plain(form: str, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, form, **({"speed": 10} if form == "AVIF" else {}))
    return buffer.getvalue()


def _open_chunks() -> bytes:
    """Write an RF64 of a hundred thousand chunks before its data, with its lengths left open."""
    plain = sound("RF64", "PCM_16")
    return plain[:20] + b"\0" * 24 + plain[44:48] + b"JUNK\0\0\0\0" * 100_000 + plain[48:]


def _canvas(width: int, height: int) -> bytes:
    """Write a WebP whose canvas is larger than its picture."""
    plain = image("WEBP")
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + plain[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _strips() -> bytes:
    """Write a TIFF with a hundred thousand strips, all of them the same bytes."""
    tiff = io.BytesIO()
    Image.new("L", (64, 100_000)).save(tiff, "TIFF", compression="tiff_adobe_deflate", strip_size=64)
    return tiff.getvalue()


def _loop() -> bytes:
    """Write a TIFF whose list of pages comes back to its beginning."""
    tiff = bytearray(image("TIFF"))
    at = int.from_bytes(tiff[4:8], "little")
    count = int.from_bytes(tiff[at : at + 2], "little")
    end = at + 2 + 12 * count
    tiff[end : end + 4] = tiff[4:8]
    return bytes(tiff)


def _silence(form: str, subtype: str, frames: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(frames, np.int16), 1000, format=form, subtype=subtype)
    return buffer.getvalue()
