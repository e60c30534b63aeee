"""Recognise the format of a file from its first bytes, so that a message can name it and say how to convert it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Literal

Wanted = Literal["image", "audio"]


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format: its name, and the commands that convert it into an image or a recording, if there are any."""

    name: str
    to_image: str = ""
    to_sound: str = ""
    step: str = "convert it"

    def cure(self, wanted: Wanted) -> str:
        """Return what to do if an image or a recording was expected."""
        command = self.to_image if wanted == "image" else self.to_sound
        return f"{self.step}: {command}" if command else f"send {'an image' if wanted == 'image' else 'a recording'}"


def _image(name: str, ending: str, command: str = "magick in.{0} out.png") -> Format:
    return Format(name, command.format(ending))


def _sound(name: str, ending: str) -> Format:
    return Format(name, "", f"ffmpeg -i in.{ending} out.wav")


def _video(name: str, ending: str) -> Format:
    return Format(name, f"ffmpeg -i in.{ending} -frames:v 1 out.png", f"ffmpeg -i in.{ending} -vn out.wav")


def _packed(name: str, command: str, step: str = "unpack it") -> Format:
    return Format(name, command, command.replace("png", "wav"), step)


HEIC = _image("HEIC", "heic", "heif-convert in.{0} out.jpg")
AVIF = _image("AVIF", "avif", "avifdec in.{0} out.png")
MP4 = _video("MP4", "mp4")
PDF = Format("PDF", "pdftoppm -png -r 150 in.pdf out")
SVG = Format("SVG", "rsvg-convert in.svg -o out.png")
HTML = _packed("HTML, as a failed download leaves it", "curl -fL -o out.png ADDRESS", "fetch the file itself")
BASE64 = _packed("base64 text", "base64 -d in.txt > out.png", "decode it")
ZIP = _packed("ZIP, an archive", "unzip in.zip")

BRANDS: tuple[tuple[bytes, Format], ...] = (
    (b"avif|avis", AVIF),
    (b"hei[csxm]|hev[cxms]", HEIC),
    (b"M4[AB] ", _sound("M4A (AAC or Apple Lossless)", "m4a")),
    (b"M4V ", _video("M4V", "m4v")),
    (b"3g[2gp].", _video("3GP", "3gp")),
    (b"qt  ", _video("QuickTime MOV", "mov")),
    (b"crx ", _image("Canon CR3 raw", "cr3")),
    (b"jp2 |jpx |jpm ", _image("JPEG 2000", "jp2")),
    (b"mif1|msf1", _image("HEIF", "heif", "heif-convert in.{0} out.jpg")),
    (b"....", MP4),
)
"""Formats of the ISO base media file by brand. The first entry that matches any brand of the file counts."""

STARTS: tuple[tuple[bytes, Format], ...] = (
    (rb"\x89PNG\r\n\x1a\n", _image("PNG", "png")),
    (rb"\xff\xd8\xff", _image("JPEG", "jpg")),
    (rb"GIF8[79]a", _image("GIF", "gif")),
    (rb"BM....\0\0\0\0", _image("BMP", "bmp")),
    (rb"RIFF....WEBP", _image("WebP", "webp", "dwebp in.{0} -o out.png")),
    (rb"II\x2a\0....\x43\x52", _image("Canon CR2 raw", "cr2")),
    (rb"II\xbc", _image("JPEG XR", "jxr")),
    (rb"IIU\0|IIR[OS]", _image("a camera's raw file", "raw")),
    (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", _image("TIFF", "tiff")),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", _image("JPEG XL", "jxl", "djxl in.{0} out.png")),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _image("JPEG 2000", "jp2")),
    (rb"P[1-7Ff][\s#]", _image("PPM", "ppm")),
    (rb"8BPS\0", _image("Photoshop PSD", "psd", "magick in.{0}[0] out.png")),
    (rb"\0\0[\x01\x02]\0[^\0]\0", _image("ICO icon", "ico", "magick in.{0}[0] out.png")),
    (rb"icns", _image("ICNS icon", "icns", "magick in.{0}[0] out.png")),
    (rb"FUJIFILMCCD-RAW", _image("Fujifilm RAF raw", "raf")),
    (rb"\x76\x2f\x31\x01", _image("OpenEXR", "exr")),
    (rb"#\?R(ADIANC|GB)E", _image("Radiance HDR", "hdr")),
    (rb"SIMPLE  =", _image("FITS", "fits")),
    (rb"(.{128})DICM", _image("DICOM", "dcm", "dcmj2pnm --write-png in.{0} out.png")),
    (rb"DDS \x7c", _image("DDS", "dds")),
    (rb"qoif", _image("QOI", "qoi")),
    (rb"gimp xcf", _image("GIMP XCF", "xcf")),
    (rb"\x0a[\0\x02\x03\x04\x05]\x01[\x01\x02\x04\x08]", _image("PCX", "pcx")),
    (rb"\x01\xda[\0\x01][\x01\x02]", _image("SGI", "sgi")),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", _image("Windows Metafile", "wmf")),
    (rb"AT&TFORM", Format("DjVu", "ddjvu -format=tiff in.djvu out.tiff")),
    (rb"RIFF....WAVE", _sound("WAV", "wav")),
    (rb"RF64....WAVE|BW64", _sound("RF64", "wav")),
    (rb"riff\x2e\x91\xcf\x11", _sound("W64", "w64")),
    (rb"fLaC", _sound("FLAC", "flac")),
    (rb"FORM....AIF[FC]", _sound("AIFF", "aiff")),
    (rb"\.snd|dns\.", _sound("AU", "au")),
    (rb"caff", _sound("CAF", "caf")),
    (rb"NIST_1A", _sound("NIST SPHERE", "sph")),
    (rb"Creative Voice File", _sound("VOC", "voc")),
    (rb"OggS(.{24,60}?)OpusHead", _sound("Ogg Opus", "opus")),
    (rb"OggS(.{24,60}?)\x01vorbis", _sound("Ogg Vorbis", "ogg")),
    (rb"OggS(.{24,60}?)\x7fFLAC", _sound("Ogg FLAC", "oga")),
    (rb"OggS(.{24,60}?)Speex", _sound("Ogg Speex", "spx")),
    (rb"OggS(.{24,60}?)\x80theora", _video("Ogg Theora", "ogv")),
    (rb"OggS", _sound("Ogg", "ogg")),
    (rb"ID3[\x02\x03\x04]", _sound("MP3", "mp3")),
    (rb"\xff[\xf0\xf1\xf8\xf9]", _sound("AAC (ADTS)", "aac")),
    (rb"\xff[\xe2-\xe7\xea-\xef\xf2-\xf7\xfa-\xff][^\xf0-\xff]", _sound("MP3", "mp3")),
    (rb"#!AMR-WB", _sound("AMR-WB", "awb")),
    (rb"#!AMR", _sound("AMR", "amr")),
    (rb"\x02?#!SILK", _sound("SILK", "silk")),
    (rb"\x0b\x77", _sound("AC-3", "ac3")),
    (rb"ADIF", _sound("AAC (ADIF)", "aac")),
    (rb"\.ra\xfd|\.RMF", _sound("RealAudio", "ra")),
    (rb"MAC ", _sound("Monkey's Audio", "ape")),
    (rb"wvpk", _sound("WavPack", "wv")),
    (rb"MP\+|MPCK", _sound("Musepack", "mpc")),
    (rb"TTA[12]", _sound("True Audio", "tta")),
    (rb"DSD |FRM8", _sound("DSD", "dsf")),
    (rb"MThd", Format("MIDI (notes without sound)", "", "fluidsynth -F out.wav SOUNDFONT.sf2 in.mid")),
    (rb"\x1a\x45\xdf\xa3(.{0,60}?)webm", _video("WebM (Opus or Vorbis)", "webm")),
    (rb"\x1a\x45\xdf\xa3", _video("Matroska", "mkv")),
    (rb"RIFF....AVI ", _video("AVI", "avi")),
    (rb"FLV\x01", _video("FLV", "flv")),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _video("WMA or WMV", "wma")),
    (rb"\0\0\x01[\xba\xb3]", _video("MPEG", "mpg")),
    (rb"\x47(.{187})\x47", _video("MPEG transport stream", "ts")),
    (rb"%PDF-", PDF),
    (rb"%!PS|\xc5\xd0\xd3\xc6", Format("PostScript", "gs -sDEVICE=png16m -r150 -o out.png in.eps")),
    (rb"PK[\x03\x05]", ZIP),
    (rb"\x1f\x8b", _packed("gzip", "gunzip in.gz")),
    (rb"BZh[1-9]", _packed("bzip2", "bunzip2 in.bz2")),
    (rb"\xfd7zXZ\0", _packed("xz", "unxz in.xz")),
    (rb"\x28\xb5\x2f\xfd", _packed("Zstandard", "unzstd in.zst")),
    (rb"7z\xbc\xaf\x27\x1c", _packed("7z, an archive", "7z x in.7z")),
    (rb"Rar!\x1a\x07", _packed("RAR, an archive", "unrar x in.rar")),
    (rb"(.{257})ustar", _packed("tar, an archive", "tar xf in.tar")),
    (rb"\x93NUMPY", Format("a NumPy array")),
    (rb"\x80[\x02-\x05]", Format("a Python pickle, which is never read")),
    (rb"PAR1", Format("Parquet, a table")),
    (rb"\x89HDF", Format("HDF5")),
    (rb"MATLAB 5\.0", Format("a MATLAB file")),
    (rb"\x7fELF|MZ(.{58})", Format("a program")),
    (rb"version https://git-lfs", _packed("a Git LFS pointer", "git lfs pull", "fetch the file itself")),
    (
        rb"data:[a-z]+/[a-z0-9.+-]+;base64,",
        _packed("a data: URL", "cut -d, -f2 in.txt | base64 -d > out.png", "decode it"),
    ),
    (rb"\0{16}", Format("zeros, as an interrupted download or copy leaves them")),
)
"""Formats by the pattern that a file begins with. The first match counts, so narrower patterns come first."""

MARKUP: tuple[tuple[bytes, Format], ...] = (
    (rb"<!doctype html|<html|<head|<body", HTML),
    # (?>...) and *+ never try another way to split the comments, of which there are exponentially many.
    (rb"(<\?xml[^>]*>\s*)?(?>(?><!--.*?-->)\s*|<!DOCTYPE svg[^>]*>\s*)*+<svg", SVG),
    (rb"<\?xml|<!DOCTYPE|<[a-z]+[ >/]", Format("XML")),
    (rb"\{\s*[\"}]|\[\s*(?:[\"\[{\]\d-]|true|false|null)", Format("JSON")),
)
"""Formats of text, by what follows leading blanks."""

MEDIA_TYPES: dict[str, str] = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "WebP": "image/webp",
    "AVIF": "image/avif",
    "TIFF": "image/tiff",
    "WAV": "audio/wav",
    "FLAC": "audio/flac",
    "AIFF": "audio/aiff",
    "MP3": "audio/mpeg",
    **dict.fromkeys(("Ogg", "Ogg Opus", "Ogg Vorbis", "Ogg FLAC", "Ogg Speex"), "audio/ogg"),
}
"""Of the formats that browsers show or play, by name."""

_COMPILED = [(re.compile(pattern, re.DOTALL), known) for pattern, known in STARTS]
_MARKUP = [(re.compile(pattern, re.DOTALL | re.IGNORECASE), known) for pattern, known in MARKUP]
_BRANDS = [(re.compile(pattern, re.DOTALL), known) for pattern, known in BRANDS]
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{40}[A-Za-z0-9+/_=\s-]*")
HEAD = 1024  # bytes that are compared


def recognise(content: bytes) -> Format | None:
    """Return the format of a file by its first bytes; None if it is unknown."""
    head = content[:HEAD]
    rules: Sequence[Callable[[bytes], Format | None]] = (_by_brand, _by_start, _by_text)
    return next((known for rule in rules if (known := rule(head))), None)


def describe(content: bytes) -> str:
    """Name the format of a file, or say that it is unknown."""
    known = recognise(content)
    return known.name if known else f"a format that is not known ({len(content):,} bytes)"


def media_type(content: bytes) -> str:
    """Return the media type of a picture or a recording; application/octet-stream for every other file."""
    known = recognise(content)
    return MEDIA_TYPES.get(known.name if known else "", "application/octet-stream")


def _by_brand(head: bytes) -> Format | None:
    if head[4:8] != b"ftyp":
        return None
    end = max(16, min(int.from_bytes(head[:4], "big"), 128))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]
    return next((known for pattern, known in _BRANDS for brand in brands if pattern.fullmatch(brand)), None)


def _by_start(head: bytes) -> Format | None:
    return next((known for pattern, known in _COMPILED if pattern.match(head)), None)


def _by_text(head: bytes) -> Format | None:
    try:
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        text.decode("utf-8" if len(head) < HEAD else "latin-1")
    except UnicodeDecodeError:
        return None
    for pattern, known in _MARKUP:
        if pattern.match(text):
            return known
    if _BASE64.fullmatch(text):
        return BASE64
    printable = text and all(byte >= 32 or byte in b"\t\r\n\f" for byte in text)
    return Format("plain text") if printable else None
