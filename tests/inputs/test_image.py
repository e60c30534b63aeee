"""Images: every format, mode and orientation comes out as the same picture."""

import io

import numpy as np
import pytest
from PIL import Image

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.inputs import Array, ImageInput

GREY = ImageInput(8, 8, 1)
COLOUR = ImageInput(8, 8, 3)


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def halves(mode: str = "L", low: object = 0, high: object = 255, size: int = 16) -> Image.Image:
    """Left half low, right half high."""
    image = Image.new(mode, (size, size), low)  # type: ignore[arg-type]
    image.paste(high, (size // 2, 0, size, size))  # type: ignore[arg-type]
    return image


def left_and_right(pixels: Array) -> tuple[float, float]:
    return float(pixels[0, :, :, 0].mean()), float(pixels[0, :, :, -1].mean())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_gives_the_same_picture(format: str) -> None:
    left, right = left_and_right(GREY.decode(encode(halves(), format)))
    assert left < 12
    assert right > 243


@pytest.mark.parametrize(
    ("image", "format"),
    [
        (halves("1", 0, 1), "PNG"),
        (halves().convert("P"), "PNG"),
        (halves("LA", (0, 255), (255, 255)), "PNG"),
        (halves("RGB", (0, 0, 0), (255, 255, 255)), "PNG"),
        (halves("RGBA", (0, 0, 0, 255), (255, 255, 255, 255)), "PNG"),
        (halves("CMYK", (0, 0, 0, 255), (0, 0, 0, 0)), "TIFF"),
        (halves("CMYK", (0, 0, 0, 255), (0, 0, 0, 0)), "JPEG"),
        (halves("I;16", 0, 65535), "PNG"),
        (halves("I;16", 0, 65535), "TIFF"),
        (halves("F", 0.0, 1.0), "TIFF"),
        (halves("F", 0.0, 255.0), "TIFF"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
def test_every_mode_gives_the_same_picture(image: Image.Image, format: str, spec: ImageInput) -> None:
    left, right = left_and_right(spec.decode(encode(image, format)))
    assert left < 12
    assert right > 243


def test_sixteen_bits_keep_the_greys_in_between() -> None:
    values = np.repeat([[16384] * 8 + [24576] * 8], 16, axis=0).astype(np.uint16)  # Image.paste keeps low bytes only
    left, right = left_and_right(GREY.decode(encode(Image.fromarray(values))))
    assert left == pytest.approx(64, abs=1)
    assert right == pytest.approx(96, abs=1)


@pytest.mark.parametrize("background", [0, 255])
def test_transparent_pixels_show_the_background(background: int) -> None:
    image = halves("RGBA", (90, 90, 90, 0), (90, 90, 90, 255))
    left, right = left_and_right(ImageInput(8, 8, 3, background=background).decode(encode(image)))
    assert left == pytest.approx(background, abs=2)
    assert right == pytest.approx(90, abs=2)


def test_a_palette_with_a_transparent_entry_shows_the_background() -> None:
    image = halves("RGB", (90, 90, 90), (10, 10, 10)).quantize(2)
    entry = image.getpixel((0, 0))
    left, _ = left_and_right(COLOUR.decode(encode(image, transparency=entry)))
    assert left > 243


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_tag_turns_the_picture_upright(orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose members that undo each orientation
    image = halves()
    stored = image.transpose(Image.Transpose(undo[orientation])) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    left, right = left_and_right(GREY.decode(encode(stored, exif=exif)))
    assert (left < 12, right > 243) == (True, True)


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [halves(), halves("L", 255, 0)]
    left, right = left_and_right(GREY.decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    assert left < right


def test_a_wide_picture_is_cropped_not_squeezed() -> None:
    image = Image.new("L", (40, 10), 0)
    image.paste(255, (15, 0, 25, 10))
    assert GREY.decode(encode(image)).min() > 200


def test_size_is_checked_from_the_header_before_decoding() -> None:
    with pytest.raises(TooLarge, match="30x20 pixels, at most 500"):
        ImageInput(8, 8, 1, max_pixels=500).decode(encode(Image.new("L", (30, 20))))


SMALLER, AS_JPEG = "send a smaller one", "send it as JPEG, or a smaller one"


@pytest.mark.parametrize(
    ("size", "format", "fields", "advice"),
    [
        ((200, 100), "JPEG", {}, None),
        ((200, 100), "PNG", {}, AS_JPEG),
        ((200, 100), "PNG", {"short_side": 8}, SMALLER),  # a pretrained model is to see every pixel
        ((200, 100), "JPEG", {"short_side": 8}, SMALLER),
        ((800, 25), "JPEG", {}, SMALLER),  # too thin to be decoded at half its size
        ((800, 25), "PNG", {}, SMALLER),
        ((300, 200), "PNG", {}, SMALLER),  # as JPEG, too, it has too many
        ((300, 200), "JPEG", {}, SMALLER),
        ((140, 100), "PNG", {}, None),
    ],
)
def test_what_is_too_large_is_told_what_would_be_read(
    size: tuple[int, int], format: str, fields: dict[str, int], advice: str | None
) -> None:
    reader = ImageInput(8, 8, 1, max_pixels=30_000, **fields)
    payload = encode(Image.new("L", size), format)
    if advice is None:
        reader.decode(payload)
        return
    with pytest.raises(TooLarge) as caught:
        reader.decode(payload)
    assert caught.value.advice == advice
    assert ("at most 15,000 in all are read at full size" in str(caught.value)) == (size != (300, 200))


def test_a_bomb_is_refused_by_its_header() -> None:
    png = bytearray(encode(Image.new("L", (8, 8))))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    with pytest.raises(TooLarge):
        GREY.decode(bytes(png))


def test_a_truncated_file_is_named_damaged() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    with pytest.raises(InputError, match="damaged") as caught:
        GREY.decode(encode(noise)[:-600], "photo")
    assert caught.value.field == "photo"


@pytest.mark.parametrize("payload", [b"RIFF....WAVEfmt ", b"<svg/>", b"%PDF-1.7", b"\x00" * 100])
def test_what_is_no_image_is_told_apart(payload: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="expected PNG"):
        GREY.decode(payload)
