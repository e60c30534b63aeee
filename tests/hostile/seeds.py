"""Sound files of every format that is read, small, made here: what the corpus damages."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import soundfile
from PIL import Image

from mla_serve.inputs import Array
from mla_serve.inputs.image import FORMATS

AUDIO_FORMATS = (
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("AIFF", "IMA_ADPCM"),
    ("WAV", "MS_ADPCM"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "ULAW"),
    ("WAV", "ALAW"),
    ("WAV", "GSM610"),
    ("WAV", "G721_32"),
    ("W64", "PCM_16"),
    ("AU", "PCM_16"),
    ("AU", "G723_24"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("NIST", "PCM_16"),
    ("VOC", "PCM_16"),
)


def png(width: int, height: int, data: bytes, depth: int = 8, color: int = 0, extra: bytes = b"") -> bytes:
    """Write a PNG whose header says whatever it is told to, with checksums that fit."""
    header = struct.pack(">IIBBBBB", width % 2**32, height % 2**32, depth, color, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    """Write one chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def wav(
    data: bytes, channels: int = 1, rate: int = 8000, bits: int = 16, tag: int = 1, length: int | None = None
) -> bytes:
    """Write a WAV whose header says whatever it is told to."""
    length = len(data) if length is None else length
    align = channels * bits // 8 % 65536
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", length % 2**32) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def floats(values: Array, dtype: str = "<f4") -> bytes:
    """Write a floating-point WAV."""
    return wav(np.asarray(values, dtype).tobytes(), bits=8 * np.dtype(dtype).itemsize, tag=3)


def sound(form: str, subtype: str, frames: int = 800, channels: int = 1, rate: int = 8000) -> bytes:
    """Encode a tone."""
    tone = 0.4 * np.sin(np.arange(frames) / 5)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(tone[:, None], channels, 1), rate, format=form, subtype=subtype)
    return buffer.getvalue()


def image(form: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    """Encode noise."""
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert("RGB").convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


@functools.cache
def images() -> dict[str, bytes]:
    """Return a good image of every format, by the end of a file name."""
    frame = Image.new("RGB", (40, 30), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    heic = {"rgb.heic": image("HEIF")} if "HEIF" in FORMATS else {}
    return {
        **heic,
        "rgb.png": image("PNG"),
        "rgba.png": image("PNG", "RGBA"),
        "palette.png": image("PNG", "P"),
        "bits.png": image("PNG", "1"),
        "baseline.jpg": image("JPEG"),
        "progressive.jpg": image("JPEG", progressive=True),
        "cmyk.jpg": image("JPEG", "CMYK"),
        "lossy.webp": image("WEBP"),
        "lossless.webp": image("WEBP", lossless=True),
        "moving.webp": image("WEBP", save_all=True, append_images=[frame]),
        "moving.gif": image("GIF", save_all=True, append_images=[frame]),
        "rgb.bmp": image("BMP"),
        "lzw.tiff": image("TIFF", compression="tiff_lzw"),
        "deflate.tiff": image("TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tiff": image("TIFF", compression="jpeg"),
        "plain.tiff": image("TIFF"),
        "packbits.tiff": image("TIFF", compression="packbits"),
        "lab.tiff": image("TIFF", "LAB", compression="tiff_lzw"),
        "group3.tiff": image("TIFF", "1", compression="group3"),
        "group4.tiff": image("TIFF", "1", compression="group4"),
        "rgb.avif": image("AVIF", exif=exif),
        "rgba.avif": image("AVIF", "RGBA"),
        "turned.jpg": image("JPEG", exif=exif),
        "interlaced.png": interlaced(),
    }


def interlaced() -> bytes:
    """Write a PNG of 3x3 pixels in Adam7's order, which Pillow reads and does not write."""
    passes = [b"\0\x10", b"\0\x20", b"\0\x30\x40", b"\0\x50\0\x60", b"\0\x70\x80\x90"]
    header = struct.pack(">IIBBBBB", 3, 3, 8, 0, 0, 0, 1)
    data = chunk(b"IDAT", zlib.compress(b"".join(passes)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@functools.cache
def sounds() -> dict[str, bytes]:
    """Return a good sound file of every format, by the end of a file name."""
    return {f"{subtype}.{form}".lower(): sound(form, subtype) for form, subtype in AUDIO_FORMATS}


def boundaries(content: bytes) -> Iterator[int]:
    """Yield where the structures of a file begin and end: chunks, markers, pages; else every sixth part."""
    if content.startswith(b"\x89PNG"):
        at = 8
        while at < len(content):
            yield from (at, at + 4, at + 8)
            at += 12 + int.from_bytes(content[at : at + 4], "big")
    elif content[:4] in (b"RIFF", b"RF64", b"FORM"):
        order = "big" if content[:4] == b"FORM" else "little"
        at = 12
        while at < len(content):
            yield from (at, at + 4, at + 8, at + 9)
            at += 8 + int.from_bytes(content[at + 4 : at + 8], order) % 2**20  # type: ignore[arg-type]
    elif content.startswith(b"\xff\xd8"):
        marks = [at for at in range(2, len(content) - 1) if content[at] == 0xFF and content[at + 1] not in (0, 0xFF)]
        yield from (at + step for at in marks[:16] for step in (0, 2))
    else:
        yield from (len(content) * part // 7 for part in range(1, 7))
        yield from (1, 4, 8, 16, len(content) - 1)
