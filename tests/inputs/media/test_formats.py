"""What a file is, told from its first bytes."""

from __future__ import annotations

import re

import pytest

from mla_serve.inputs.audio import FORMATS as SOUNDS
from mla_serve.inputs.image import FORMATS as IMAGES
from mla_serve.inputs.media.formats import BRANDS, MEDIA_TYPES, STARTS, describe, media_type, recognise
from tests.hostile.seeds import images, sounds

KNOWN = {
    b"\0\0\0\x1cftypM4A \0\0\2\0M4A isomiso2": "M4A (AAC or Apple Lossless)",
    b"\0\0\0\x1cftyp3gp4\0\0\2\x003gp4isom": "3GP",
    b"\0\0\0\x1cftypheic\0\0\0\0mif1heic": "HEIC",
    b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic": "HEIC",
    b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif": "AVIF",
    b"\0\0\0\x14ftypqt  \0\0\2\0qt  ": "QuickTime MOV",
    b"\0\0\0\x1cftypisom\0\0\2\0isomiso2": "MP4",
    b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm": "WebM (Opus or Vorbis)",
    b"#!AMR\n\4": "AMR",
    b"#!AMR-WB\n": "AMR-WB",
    b"\xff\xf1\x50\x80": "AAC (ADTS)",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "WMA or WMV",
    b"OggS\0\2" + bytes(22) + b"Speex   ": "Ogg Speex",
    b"\xff\x0a\xfa\x7f": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"8BPS\0\1": "Photoshop PSD",
    b"\0\0\1\0\1\0": "ICO icon",
    bytes(128) + b"DICM": "DICOM",
    b"%PDF-1.7": "PDF",
    b"PK\3\4": "ZIP, an archive",
    b"  \n<!doctype HTML><html>": "HTML, as a failed download leaves it",
    b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg xmlns=": "SVG",
    b"<!-- a --><!-- b -->\n<!DOCTYPE svg><svg>": "SVG",
    b"<!---->" * 140: "plain text",  # in exponentially many ways one comment or several
    b"<?xml version='1.0'?><feed>": "XML",
    b'{"error": "not found"}': "JSON",
    b"[ {}, 1]": "JSON",
    b"[build-system]\nrequires = []": "plain text",
    b"iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAA\nAAAAAA==": "base64 text",
    b"data:image/png;base64,iVBORw0KGgo": "a data: URL",
    b"version https://git-lfs.github.com/spec/v1\noid": "a Git LFS pointer",
    b"just words": "plain text",
    b"caf\xc3\xa9": "plain text",
    bytes(100): "zeros, as an interrupted download or copy leaves them",
}


@pytest.mark.parametrize("content", KNOWN, ids=list(KNOWN.values()))
def test_a_format_is_named(content: bytes) -> None:
    assert describe(content) == KNOWN[content]


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 50, b"\x81\x8d\x8f\x90\x9d" * 20], ids=repr)
def test_what_is_not_known_is_not_shown(content: bytes) -> None:
    assert recognise(content) is None
    assert describe(content) == f"a format that is not known ({len(content):,} bytes)"


@pytest.mark.parametrize("name", [*images(), *sounds()])
def test_every_format_that_is_read_has_a_name(name: str) -> None:
    """A damaged file is told from one of another format by it."""
    known = recognise((images() | sounds())[name])
    assert known is not None
    read = {*IMAGES, *SOUNDS, "HEIC"}
    assert {known.name.upper(), known.name.upper().split()[0]} & read


@pytest.mark.parametrize("known", {known.name: known for _, known in (*BRANDS, *STARTS)}.values(), ids=lambda k: k.name)
@pytest.mark.parametrize("wanted", ["image", "audio"])
def test_every_cure_is_one_line_that_says_what_to_do(known: object, wanted: object) -> None:
    cure = known.cure(wanted)  # type: ignore[attr-defined]
    assert re.fullmatch(
        r"(convert it|unpack it|decode it|fetch the file itself): \S.*|send (an image|a recording)", cure
    )
    assert ";" not in cure


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"RIFF0000WAVE", "audio/wav"),
        (b"RIFF0000WEBP", "image/webp"),
        (b"ID3\x03", "audio/mpeg"),
        (b"<svg onload='alert(1)'>", "application/octet-stream"),
        (b"<html>", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_a_media_type_follows_from_the_first_bytes(beginning: bytes, expected: str) -> None:
    assert media_type(beginning) == expected


def test_every_media_type_belongs_to_a_format() -> None:
    assert set(MEDIA_TYPES) <= {known.name for _, known in (*STARTS, *BRANDS)}
