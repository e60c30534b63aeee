"""Small files that ask for much: pixels, scans, samples, metadata."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import soundfile
from PIL import Image

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
