"""Images: decode any common file format into a small array of bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from typing import ClassVar

import numpy as np
from PIL import AvifImagePlugin, Image, ImageOps

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.inputs.base import LARGER, Array, Corruptions, Input, Payload, SentAs, added_later
from mla_serve.inputs.corruptions import (
    blur,
    image_noise,
    jpeg_compression,
    occlusion,
    plain_colour,
    random_pixels,
    random_shapes,
)
from mla_serve.inputs.media.avif import as_still, read_streams
from mla_serve.inputs.media.cut import READ_IN_PART, TooLittle, load_cut
from mla_serve.inputs.media.formats import AVIF, HEIC, describe, recognise
from mla_serve.inputs.media.metered import MeteredFile
from mla_serve.inputs.media.safe_calls import library_call, no_output


def _read_heif_too() -> tuple[str, ...]:
    """Register HEIC with Pillow if pillow-heif is installed; return the names of the formats added."""
    try:
        import pillow_heif
    except ImportError:
        return ()
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener()
    return ("HEIF",)


AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one thread per request, so that requests do not slow each other down
# Pillow puts numbers from the file into its warnings, so each would be printed and kept in memory as a new one.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", *_read_heif_too())
START_OF_SCAN = b"\xff\xda"  # JPEG's marker; the compressed data itself cannot hold it
MAX_SCANS = 100  # cameras and encoders write 1 to 20
MAX_SCANNED = 500_000_000  # pixels, the sum over all scans
ROWS = 256
LEAST_CONTRAST = 8  # levels of brightness; an image with a smaller range shows nothing


@dataclasses.dataclass(frozen=True)
class ImageInput(Input):
    """PNG, JPEG, WebP, AVIF, GIF (first frame), BMP or TIFF, upright by its EXIF tag, brought to the target's size.

    Fields: width, height in pixels; channels 1 (grey) or 3 (RGB); background, the brightness (0-255) behind
    transparent pixels; max_pixels, of which more are refused from the header before anything is decoded. A service may have
    another limit on them: MLA_MAX_PIXELS.

    By default an image is cropped to the target's aspect ratio and resized in one step. Pretrained models resize first and
    crop the middle then: with short_side, to so many pixels on the shorter side; with stretch_width and stretch_height, to
    exactly that size; both with the filter `resample`.

    A JPEG is decoded at a fraction of its size, which costs a tenth, so it may have max_pixels. Images that are decoded at
    full size may have half as many: other formats, JPEGs too long and thin to be reduced, and all images if a pretrained
    model resizes them.
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
    sent_as: ClassVar[SentAs] = "file"
    formats: ClassVar[tuple[str, ...]] = FORMATS
    corruptions: ClassVar[Corruptions] = {
        "noise": image_noise,
        "blur": blur,
        "occlusion": occlusion,
        "jpeg": jpeg_compression,
        "random_pixels": random_pixels,
        "plain": plain_colour,
        "shapes": random_shapes,
    }

    def __post_init__(self) -> None:
        """Refuse an unknown filter, or a size to resize to that is smaller than the crop. Raises: ValueError."""
        between = (self.short_side, self.short_side) if self.short_side else (self.stretch_width, self.stretch_height)
        if self.resample.upper() not in Image.Resampling.__members__:
            raise ValueError(f"resample {self.resample!r}: expected one of {', '.join(Image.Resampling.__members__)}")
        if self._resizes_then_crops and (between[0] < self.width or between[1] < self.height):
            raise ValueError(f"resized to {between[0]}x{between[1]}, less than {self.width}x{self.height}")

    @classmethod
    def trial(cls) -> ImageInput:
        """Make a small input that refuses the files that any refuses."""
        return cls(32, 32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def decode(self, payload: Payload, field: str = "image") -> Array:
        """Decode a file into (1, C, H, W) uint8."""
        if not isinstance(payload, bytes) or not payload:
            given = "an empty file" if payload == b"" else type(payload).__name__
            raise InputError(field, f"expected the bytes of an image file, got {given}; leave it out")
        return self._fit(self.picture(payload, field), field)[None]

    def picture(self, payload: bytes, field: str = "image") -> Image.Image:
        """Decode a file into an upright image of 8-bit grey or RGB, not yet resized."""
        return self._flatten(self._load(payload, field), field)

    def generate(self, generator: np.random.Generator) -> bytes:
        """Make a PNG of random blocks."""
        blocks = generator.integers(0, 256, (7, 7, self.channels), dtype=np.uint8)
        image = Image.fromarray(blocks.squeeze()).resize((self.width, self.height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def generate_large(self, generator: np.random.Generator) -> bytes:
        """Make a PNG that is larger in both directions."""
        width, height = round(LARGER * self.width), 2 * self.height
        larger = dataclasses.replace(self, width=width, height=height, short_side=0, stretch_width=0, stretch_height=0)
        return larger.generate(generator)

    def _open(self, payload: bytes, field: str) -> Image.Image:
        """Read the header only, and refuse files that are too large or no images."""
        known = recognise(payload)
        if known is HEIC and "HEIF" not in FORMATS:
            raise UnsupportedFormat(
                field,
                f"this is HEIC, which is read where pillow-heif is installed beside the model "
                f"(pip install 'mla_serve[heif]'); {known.cure('image')}",
            )
        if known is AVIF:
            payload = self._check_avif(payload, field)
        try:
            with no_output:
                image = Image.open(MeteredFile(payload), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise TooLarge(field, f"the image declares too many pixels ({error}); send a smaller one") from None
        except Exception:  # Pillow raises every kind on damaged files
            raise _unreadable(field, payload) from None
        self._check_pixels(image, self.max_pixels, field)
        self._check_scans(image, payload, field)
        return image

    def _check_avif(self, payload: bytes, field: str) -> bytes:
        """Refuse an AVIF whose streams hold more than its header says; return it without its animation."""
        with library_call(field, "the AVIF file is damaged", "send it complete"):
            streams = read_streams(payload)
        pixels = sum(stream.pixels for stream in streams)
        if pixels > self.max_pixels or sum(stream.pixels * stream.frames for stream in streams) > MAX_SCANNED:
            frames = sum(stream.frames for stream in streams)
            raise TooLarge(field, f"an AVIF of {pixels:,} pixels in {frames:,} frames; send a smaller one")
        return as_still(payload)

    def _check_pixels(self, image: Image.Image, most: int, field: str) -> None:
        if image.width * image.height > most:
            limit = f"at most {most:,} in all are read" + ("" if most == self.max_pixels else " at full size")
            is_jpeg = image.format in ("JPEG", "MPO")
            advice = (
                "send it as JPEG, or a smaller one" if self._shrinks(image) and not is_jpeg else "send a smaller one"
            )
            raise TooLarge(field, f"{image.width}x{image.height} pixels, {limit}; {advice}")

    def _shrinks(self, image: Image.Image) -> bool:
        """Return whether an image of this size would be accepted as a JPEG, because it would be decoded at a fraction."""
        enough = min(image.size) >= 2 * self._draft_size and image.width * image.height <= self.max_pixels
        return enough and not self._resizes_then_crops

    @property
    def _draft_size(self) -> int:
        """The smallest width and height that a JPEG is decoded at."""
        return 2 * max(self.width, self.height)

    def _check_scans(self, image: Image.Image, payload: bytes, field: str) -> None:
        """Refuse a JPEG with too many scans: decoding each of them costs as much as an image."""
        scans = payload.count(START_OF_SCAN) if image.format in ("JPEG", "MPO") else 0
        if scans > MAX_SCANS or scans * image.width * image.height > MAX_SCANNED:
            raise TooLarge(field, f"{scans} scans of {image.width}x{image.height} pixels; save it as a baseline JPEG")

    def _load(self, payload: bytes, field: str) -> Image.Image:
        """Decode the pixels and turn them upright. Of a file that lacks its last rows, use the rows that it has."""
        try:
            image = self._decode(self._open(payload, field), field)
        except (TooLarge, UnsupportedFormat):
            raise
        except InputError as error:
            image = self._decode_cut(payload, field, error)
        with library_call(field, "the image's EXIF data are damaged", "save it without them"):
            return ImageOps.exif_transpose(image)

    def _decode(self, image: Image.Image, field: str) -> Image.Image:
        """Decode the pixels of an opened file."""
        if image.format in ("JPEG", "MPO") and not self._resizes_then_crops:
            image.draft("L" if self.channels == 1 else "RGB", (self._draft_size, self._draft_size))
        self._check_pixels(image, self.max_pixels // 2, field)
        with library_call(field, f"the {image.format} file is damaged", "send it complete"):
            image.load()
        return image

    def _decode_cut(self, payload: bytes, field: str, error: InputError) -> Image.Image:
        """Decode the pixels of a file that ends early.

        Raises: InputError when too few pixels are left; the given error when the file does not end early.
        """

        def load(content: bytes, fill: int | None) -> Image.Image:
            image = self._open(content, field)
            if fill is None:
                return self._decode(image, field)
            image.im = Image.new(image.mode, image.size, (fill,) * len(image.getbands())).im
            with contextlib.suppress(InputError):  # the file is incomplete, so this fails after the last row it has
                return self._decode(image, field)
            image.tile = []  # type: ignore[attr-defined]  # nothing more is decoded: the image is complete as it is now
            return self._decode(image, field)

        known = recognise(payload)
        name = known.name if known else ""
        if name not in READ_IN_PART:
            raise error
        try:
            return load_cut(name, payload, load)
        except TooLittle as little:
            raise InputError(field, f"the {name} file is cut or damaged: {little}; send it complete") from None
        except Exception:  # a damaged header may hold any values
            raise error from None

    @property
    def _resizes_then_crops(self) -> bool:
        """Whether an image is resized first and then cropped, as pretrained models expect."""
        return bool(self.short_side or self.stretch_width)

    def _flatten(self, image: Image.Image, field: str) -> Image.Image:
        """Bring any mode to 8 bits of grey or RGB."""
        image = _to_eight_bit(image)
        with library_call(field, f"the colours of the {image.format or 'image'} file are damaged", "save it as PNG"):
            if image.has_transparency_data:
                image = self._on_background(image.convert("RGBA"))
            elif image.mode == "LAB":
                image = image.convert("RGB")  # Pillow cannot convert LAB to grey
            return image.convert("L" if self.channels == 1 else "RGB")

    def _on_background(self, layer: Image.Image) -> Image.Image:
        """Put the background behind a layer; use the opposite brightness if the drawing would be invisible on it."""
        picture = _composite_on(layer, self.background)
        if _has_one_colour(picture) and not _has_one_colour(layer.getchannel("A")):
            return _composite_on(layer, 0 if self.background > 127 else 255)
        return picture

    def _fit(self, image: Image.Image, field: str) -> Array:
        """Bring an image of any size to (C, H, W) uint8."""
        if self._resizes_then_crops:
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
                field, f"{image.width}x{image.height} pixels, of which only the middle is used; crop it to that"
            )
        return (self.short_side, longer) if image.width <= image.height else (longer, self.short_side)

    def _crop(self, image: Image.Image) -> Image.Image:
        """Cut the middle out."""
        left, top = (image.width - self.width) // 2, (image.height - self.height) // 2
        return image.crop((left, top, left + self.width, top + self.height))


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey to 8 bits; return any other mode unchanged."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    full = 65535.0 if image.mode != "F" else (1.0 if _largest(values) <= 1.0 else 255.0)
    pixels = np.empty(values.shape, dtype=np.uint8)
    for at in range(0, len(values), ROWS):  # in slices, because the whole image in float64 would be gigabytes
        rows = np.nan_to_num(values[at : at + ROWS].astype(np.float64), posinf=0.0, neginf=0.0)
        pixels[at : at + ROWS] = np.clip(rows * (255.0 / full), 0, 255).round()
    return Image.fromarray(pixels)


def _largest(values: Array) -> float:
    """Return the largest finite value, at least 0."""
    return float(values.max(initial=0.0, where=np.isfinite(values)))


def _has_one_colour(image: Image.Image) -> bool:
    """Return whether all pixels of an 8-bit image have about the same colour."""
    return all(np.ptp(channel.getextrema()) < LEAST_CONTRAST for channel in image.split())


def _composite_on(layer: Image.Image, brightness: int) -> Image.Image:
    """Put a layer on a background of one brightness."""
    return Image.alpha_composite(Image.new("RGBA", layer.size, (brightness,) * 3 + (255,)), layer)


def _unreadable(field: str, payload: bytes) -> InputError:
    """Return the error for a file that Pillow cannot open; it names the format."""
    known = recognise(payload)
    if known and known.name.upper() in FORMATS:
        given = f"the {known.name} file is damaged, or a variant of {known.name} that is not read"
        return InputError(field, f"{given}; send it complete, or {known.cure('image')}")
    cure = known.cure("image") if known else "save it as PNG or JPEG"
    return UnsupportedFormat(field, f"this is {describe(payload)}, expected {', '.join(FORMATS)}; {cure}")
