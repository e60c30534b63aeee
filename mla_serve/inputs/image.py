"""Images: any common file format to a small array of bytes."""

from __future__ import annotations

import dataclasses
import io
import struct
from typing import ClassVar, Literal

import numpy as np
from PIL import Image, ImageOps

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.inputs.base import Array, Input, Payload, added_later
from mla_serve.inputs.metered import MeteredFile

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
START_OF_SCAN = b"\xff\xda"  # JPEG's marker; the compressed data itself cannot hold it
MAX_SCANS = 100  # cameras and encoders write 1 to 20
MAX_SCANNED = 500_000_000  # pixels, in all scans together
ROWS = 256
# What Pillow's readers raise on damaged files, beside OSError.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, MemoryError, KeyError, IndexError)


@dataclasses.dataclass(frozen=True)
class ImageInput(Input):
    """PNG, JPEG, WebP, GIF (first frame), BMP or TIFF, upright by its EXIF tag, brought to the target's size.

    Fields: width, height in pixels; channels 1 (grey) or 3 (RGB); background, the brightness (0-255) behind
    transparent pixels; max_pixels, refused from the header before anything is decoded.

    As it is, an image is cropped to the target's shape and resized in one go. A pretrained model's own way is one of:
    short_side, resized until its shorter side has so many pixels; stretch_width and stretch_height, resized to exactly
    that; either with the filter `resample`, and then its middle is cut out.

    What is decoded at full size may have half of max_pixels. A JPEG may have all of them, since it is decoded at a
    fraction of its size, which costs a tenth; not one that is too long and thin for that, and none where a pretrained
    model is to see every pixel.
    """

    width: int
    height: int
    channels: int = 3
    background: int = 255
    max_pixels: int = 50_000_000
    short_side: int = added_later(0)
    stretch_width: int = added_later(0)
    stretch_height: int = added_later(0)
    resample: str = added_later("bicubic")

    kind: ClassVar[str] = "image"
    tensor: ClassVar[str] = "pixels"
    dtype: ClassVar[type[np.generic]] = np.uint8
    sent_as: ClassVar[Literal["file", "text", "numbers"]] = "file"
    formats: ClassVar[tuple[str, ...]] = FORMATS

    def __post_init__(self) -> None:
        """Refuse a way of resizing that cannot be. Raises: ValueError."""
        between = (self.short_side, self.short_side) if self.short_side else (self.stretch_width, self.stretch_height)
        if self.resample.upper() not in Image.Resampling.__members__:
            raise ValueError(f"resample {self.resample!r}: expected one of {', '.join(Image.Resampling.__members__)}")
        if self._in_two_steps and (between[0] < self.width or between[1] < self.height):
            raise ValueError(f"resized to {between[0]}x{between[1]}, less than {self.width}x{self.height}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def decode(self, payload: Payload, field: str = "image") -> Array:
        """Decode a file into (1, C, H, W) uint8."""
        if not isinstance(payload, bytes) or not payload:
            raise InputError(field, f"expected the bytes of an image file, got {_describe(payload)}; leave it out")
        image = self._open(payload, field)
        self._check_scans(image, payload, field)
        try:
            pixels = self._fit(self._load(image, field), field)
        except Image.DecompressionBombError as error:
            raise TooLarge(field, f"the image declares too many pixels ({error}); send a smaller one") from None
        except DAMAGED as error:
            raise InputError(field, f"the {image.format} file is damaged ({error}); send it complete") from None
        return pixels[None]

    def picture(self, payload: bytes, field: str = "image") -> Image.Image:
        """Decode a file to what is resized: upright, 8 bits of grey or RGB, of its own size."""
        return self._load(self._open(payload, field), field)

    def generate(self, generator: np.random.Generator) -> bytes:
        """Make a PNG of random blocks."""
        blocks = generator.integers(0, 256, (7, 7, self.channels), dtype=np.uint8)
        image = Image.fromarray(blocks.squeeze()).resize((self.width, self.height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def _open(self, payload: bytes, field: str) -> Image.Image:
        """Read the header alone, and refuse what is too large or no image."""
        try:
            image = Image.open(MeteredFile(payload), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise TooLarge(field, f"the image declares too many pixels ({error}); send a smaller one") from None
        except DAMAGED:
            raise UnsupportedFormat(
                field, f"expected {', '.join(FORMATS)}, got {_describe(payload)}; save it as PNG or JPEG"
            ) from None
        self._check_pixels(image, self.max_pixels, field)
        return image

    def _check_pixels(self, image: Image.Image, most: int, field: str) -> None:
        if image.width * image.height > most:
            limit = f"at most {most:,} in all are read" + ("" if most == self.max_pixels else " at full size")
            is_jpeg = image.format in ("JPEG", "MPO")
            advice = (
                "send it as JPEG, or a smaller one" if self._shrinks(image) and not is_jpeg else "send a smaller one"
            )
            raise TooLarge(field, f"{image.width}x{image.height} pixels, {limit}; {advice}")

    def _shrinks(self, image: Image.Image) -> bool:
        """Whether an image of this size is decoded at a fraction of it where it is a JPEG, and small enough for that."""
        enough = min(image.size) >= 2 * self._drafted and image.width * image.height <= self.max_pixels
        return enough and not self._in_two_steps

    @property
    def _drafted(self) -> int:
        """The least width and height that a JPEG is decoded at."""
        return 2 * max(self.width, self.height)

    def _check_scans(self, image: Image.Image, payload: bytes, field: str) -> None:
        """Refuse a JPEG whose pixels would be gone over again and again: each scan costs as much as an image."""
        scans = payload.count(START_OF_SCAN) if image.format in ("JPEG", "MPO") else 0
        if scans > MAX_SCANS or scans * image.width * image.height > MAX_SCANNED:
            raise TooLarge(field, f"{scans} scans of {image.width}x{image.height} pixels; save it as a baseline JPEG")

    def _load(self, image: Image.Image, field: str) -> Image.Image:
        """Decode the pixels of an opened file, and bring them to 8 bits of grey or RGB."""
        if not self._in_two_steps:
            image.draft("L" if self.channels == 1 else "RGB", (self._drafted, self._drafted))
        self._check_pixels(image, self.max_pixels // 2, field)
        image.load()
        return self._flatten(ImageOps.exif_transpose(image))

    @property
    def _in_two_steps(self) -> bool:
        """Whether an image is resized first and cropped then, as pretrained models want it."""
        return bool(self.short_side or self.stretch_width)

    def _flatten(self, image: Image.Image) -> Image.Image:
        """Bring any mode to 8 bits of grey or RGB."""
        image = _to_eight_bit(image)
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            canvas = Image.new("RGBA", layer.size, (self.background,) * 3 + (255,))
            image = Image.alpha_composite(canvas, layer)
        return image.convert("L" if self.channels == 1 else "RGB")

    def _fit(self, image: Image.Image, field: str) -> Array:
        """Bring an image of any size to (C, H, W) uint8."""
        if self._in_two_steps:
            image = self._crop(image.resize(self._resized(image, field), Image.Resampling[self.resample.upper()]))
        elif image.size != (self.width, self.height):
            image = ImageOps.fit(image, (self.width, self.height), Image.Resampling.BICUBIC)
        pixels = np.array(image, dtype=np.uint8).reshape(self.height, self.width, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _resized(self, image: Image.Image, field: str) -> tuple[int, int]:
        """Return the width and height to resize to."""
        if not self.short_side:
            return self.stretch_width, self.stretch_height
        short, long = sorted(image.size)
        longer = int(self.short_side * long / short)
        if self.short_side * longer > self.max_pixels:
            raise TooLarge(
                field, f"{image.width}x{image.height} pixels, of which only the middle is looked at; crop it to that"
            )
        return (self.short_side, longer) if image.width <= image.height else (longer, self.short_side)

    def _crop(self, image: Image.Image) -> Image.Image:
        """Cut the middle out."""
        left, top = (image.width - self.width) // 2, (image.height - self.height) // 2
        return image.crop((left, top, left + self.width, top + self.height))


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey to 8 bits; leave every other mode alone."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    full = 65535.0 if image.mode != "F" else (1.0 if _largest(values) <= 1.0 else 255.0)
    pixels = np.empty(values.shape, dtype=np.uint8)
    for at in range(0, len(values), ROWS):  # some rows at a time: in float64 the whole would be gigabytes
        rows = np.nan_to_num(values[at : at + ROWS].astype(np.float64), posinf=0.0, neginf=0.0)
        pixels[at : at + ROWS] = np.clip(rows * (255.0 / full), 0, 255).round()
    return Image.fromarray(pixels)


def _largest(values: Array) -> float:
    """Return the largest finite value; 0 when there is none."""
    return float(values.max(initial=0.0, where=np.isfinite(values)))


def _describe(payload: Payload) -> str:
    if isinstance(payload, bytes):
        return f"{len(payload)} bytes starting {payload[:8]!r}" if payload else "an empty file"
    return type(payload).__name__
