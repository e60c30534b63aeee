"""Hundreds of files that no honest client sends, made by script, the same ones every time.

python -m tests.hostile.corpus FOLDER     writes them out
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.hostile import bombs
from tests.hostile.seeds import boundaries, floats, image, images, png, sound, sounds, wav
from tests.hostile.words import CELLS, TEXTS, VECTORS

FLIPS = 6


@dataclasses.dataclass(frozen=True)
class Case:
    """One hostile payload: what is wrong with it, the kind of modality it is sent as, the file's name, the content."""

    what: str
    kind: str
    filename: str
    content: bytes

    @property
    def name(self) -> str:
        """A name that is its own."""
        return f"{self.kind}-{self.what}"


def build() -> list[Case]:
    """Make all of them. Names do not repeat."""
    cases = [*_cut(), *_flipped(), *_image_headers(), *_sound_headers(), *_numbers(), *_wrong_types(), *_polyglots()]
    cases += [Case(f"bomb-{what}", "image", what, content) for what, content in bombs.images()]
    cases += [Case(f"bomb-{what}", "audio", what, content) for what, content in bombs.sounds()]
    cases += [Case(f"text-{what}", "text", "text.txt", content) for what, content in TEXTS.items()]
    cases += [Case(f"vector-{what}", "vector", "v.json", content) for what, content in VECTORS.items()]
    cases += [Case(f"columns-{what}", "columns", "c.json", content) for what, content in CELLS.items()]
    return cases


def _seeds() -> Iterator[tuple[str, str, bytes]]:
    yield from (("image", name, content) for name, content in images().items())
    yield from (("audio", name, content) for name, content in sounds().items())


def _cut() -> Iterator[Case]:
    """End the file at every boundary of its structure."""
    for kind, name, content in _seeds():
        for at in sorted(set(boundaries(content))):
            if 0 < at < len(content):
                yield Case(f"cut-{at}-{name}", kind, name, content[:at])


def _flipped() -> Iterator[Case]:
    """Change bytes: in the head, where structures are, and anywhere."""
    generator = np.random.default_rng(11)
    for kind, name, content in _seeds():
        for flip in range(FLIPS):
            damaged = bytearray(content)
            reach = min(64, len(content)) if flip % 2 else len(content)
            for at in generator.integers(4, reach, 3):
                damaged[at] ^= int(generator.integers(1, 256))
            yield Case(f"flip-{flip}-{name}", kind, name, bytes(damaged))


def _image_headers() -> Iterator[Case]:
    """Say another size, depth or kind than there is."""
    for width, height in ((0, 0), (0, 9), (1, 2**31 - 1), (2**31, 1), (2**32 - 1,) * 2, (65535,) * 2, (9, 90_000)):
        yield Case(f"png-{width}x{height}", "image", "x.png", png(width, height, b"\0" * 100))
    for depth, color in ((0, 0), (3, 0), (16, 3), (8, 7), (255, 255), (1, 6)):
        yield Case(f"png-depth-{depth}-{color}", "image", "x.png", png(9, 9, b"\0" * 99, depth, color))
    bitmap = image("BMP")
    for field, value in ((18, 2**31 - 1), (18, 2**32 - 9), (22, 0), (22, 2**31), (28, 65535), (46, 2**31), (14, 4)):
        changed = bitmap[:field] + struct.pack("<I", value) + bitmap[field + 4 :]
        yield Case(f"bmp-{field}-{value}", "image", "x.bmp", changed)
    for index, size in enumerate((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\xff\xff")):
        yield Case(f"gif-{index}", "image", "x.gif", image("GIF")[:6] + size + image("GIF")[10:])
    for index in range(12):
        tiff = bytearray(image("TIFF"))
        at = int.from_bytes(tiff[4:8], "little") + 2 + 12 * (index % 10) + (4 if index % 2 else 8)
        tiff[at : at + 4] = b"\xff\xff\xff\x7f"
        yield Case(f"tiff-{index}", "image", "x.tiff", bytes(tiff))


def _sound_headers() -> Iterator[Case]:
    """Say another rate, channel count, depth, format or length than there is; and nothing at all."""
    data = b"\1\2" * 500
    for rate in (0, 1, 7, 999, 384_000, 384_001, 2**31 - 1, 2**32 - 1):
        yield Case(f"rate-{rate}", "audio", "x.wav", wav(data, rate=rate))
    for channels in (0, 2, 3, 32, 33, 255, 1024, 65535):
        yield Case(f"channels-{channels}", "audio", "x.wav", wav(data, channels))
    for bits in (0, 1, 7, 12, 24, 64, 65528):
        yield Case(f"bits-{bits}", "audio", "x.wav", wav(data, bits=bits))
    for tag in (0, 2, 3, 6, 7, 0x11, 0x31, 0x50, 0x55, 0x1234, 0xFFFE, 0xFFFF):
        yield Case(f"tag-{tag}", "audio", "x.wav", wav(data, tag=tag))
    for length in (0, 1, 7, 2**31, 2**32 - 1):
        yield Case(f"length-{length}", "audio", "x.wav", wav(data, length=length))
    flac = sound("FLAC", "PCM_16")
    for at in range(8, 42, 2):
        yield Case(f"flac-{at}", "audio", "x.flac", flac[:at] + b"\xff\xff" + flac[at + 2 :])
    for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("WAV", "FLOAT")):
        yield Case(f"no-frames-{form}-{subtype}", "audio", f"x.{form}", sound(form, subtype, frames=0))
    yield Case("empty", "audio", "x.wav", b"")
    yield Case("empty", "image", "x.png", b"")


def _numbers() -> Iterator[Case]:
    """Float samples that are no sound."""
    tone = np.sin(np.arange(800) / 5)
    for name, value in {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "1e38": 1e38, "1e-45": 1e-45}.items():
        for at in (0, 400, 799):
            values = tone.copy()
            values[at] = value
            yield Case(f"float-{name}-{at}", "audio", "x.wav", floats(values))
        yield Case(f"float-all-{name}", "audio", "x.wav", floats(np.full(800, value)))
    yield Case("double-1e308", "audio", "x.wav", floats(np.full(800, 1e308), "<f8"))
    yield Case("double-tiny", "audio", "x.wav", floats(np.full(800, 5e-324), "<f8"))


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("../../escape.txt"), "x")
    return buffer.getvalue()


def _others() -> dict[str, bytes]:
    """Return files of other types."""
    box = b"\0\0\0\x18ftyp"
    return {
        "video.mp4": box + b"isom\0\0\2\0isomiso2" + b"\0\0\0\x08mdat" * 9,
        "sound.m4a": box + b"M4A \0\0\0\0M4A mp42" + b"\0" * 99,
        "photo.heic": box + b"heic\0\0\0\0mif1heic" + b"\0" * 99,
        "photo.avif": box + b"avif\0\0\0\0avifmif1" + b"\0" * 99,
        "film.mkv": b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm" + b"\0" * 99,
        "film.avi": b"RIFF\xff\0\0\0AVI LIST" + b"\0" * 99,
        "tune.mid": b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
        "page.html": b"<html><script>alert(1)</script></html>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>',
        "entities.xml": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        "paper.pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
        "archive.zip": _archive(),
        "archive.gz": b"\x1f\x8b\x08\0\0\0\0\0\0\3",
        "program": b"\x7fELF\2\1\1" + b"\0" * 99,
        "program.exe": b"MZ" + b"\0" * 99,
        "object.pickle": pickle.dumps({"a": 1}),
        "array.npy": b"\x93NUMPY\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n",
        "drawing.psd": b"8BPS\0\1" + b"\0" * 99,
        "icon.ico": b"\0\0\1\0\1\0" + b"\xff" * 99,
        "plain.txt": b"just words",
        "path": b"/etc/passwd",
        "address": b"http://169.254.169.254/latest/meta-data/",
        "nul": b"\0" * 1000,
        "ones": b"\xff" * 1000,
        "sync.mp3": b"\xff\xfb\x90\x64" * 500,
        "pages.ogg": b"OggS\0\2" + b"\0" * 20 + b"\1\xff" + b"OggS" * 99,
    }


def _wrong_types() -> Iterator[Case]:
    for name, content in _others().items():
        yield Case(f"type-{name}", "image", name, content)
        yield Case(f"type-{name}", "audio", "voice.wav", content)
    for name, content in images().items():
        yield Case(f"type-{name}", "audio", name, content)
    for name, content in sounds().items():
        yield Case(f"type-{name}", "image", name, content)


def _polyglots() -> Iterator[Case]:
    """Files that are two things at once."""
    picture, tone = image("PNG"), sound("WAV", "PCM_16")
    both = {
        "png-wav": picture + tone,
        "wav-png": tone + picture,
        "png-zip": picture + _archive(),
        "gif-script": b"GIF89a/*" + image("GIF")[8:] + b"*/=1;alert(1)//",
        "jpeg-html": image("JPEG", comment=b"<script>alert(1)</script>"),
        "id3-png": b"ID3\4\0\0\0\0\0\x7f" + picture,
        "wav-list-png": tone[:12] + b"LIST" + struct.pack("<I", len(picture)) + picture + tone[12:],
        "pdf-jpeg": b"%PDF-1.4\n" + image("JPEG"),
        "png-png": picture + picture,
        "json-png": json.dumps({"a": 1}).encode() + picture,
    }
    for name, content in both.items():
        yield Case(f"polyglot-{name}", "image", name, content)
        yield Case(f"polyglot-{name}", "audio", name, content)


def write(folder: Path) -> int:
    """Write the corpus into a folder; returns how many files."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = build()
    for number, case in enumerate(cases):
        (folder / f"{number:04}-{case.kind}").write_bytes(case.content)
    return len(cases)


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} files in {sys.argv[1]}")
