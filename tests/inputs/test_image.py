"""Images: every format, mode and orientation comes out as the same picture."""

import io
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.inputs import Array, ImageInput
from mla_serve.inputs.image import FORMATS
from mla_serve.inputs.media.avif import Stream, read_streams
from tests.hostile import bombs
from tests.hostile.seeds import images

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


@pytest.mark.parametrize("format", FORMATS)
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
        (halves("RGB", (0, 0, 0), (255, 255, 255)).convert("LAB"), "TIFF"),
        (halves("YCbCr", (0, 128, 128), (255, 128, 128)), "TIFF"),
        (halves("RGBA", (0, 0, 0, 255), (255, 255, 255, 255)), "AVIF"),
        (halves("RGBA", (0, 0, 0, 255), (255, 255, 255, 255)), "HEIF"),
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


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_first_frame_of_an_animation_counts(format: str) -> None:
    frames = [halves(), halves("L", 255, 0)]
    left, right = left_and_right(GREY.decode(encode(frames[0], format, save_all=True, append_images=frames[1:])))
    assert left < right


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "group3", "group4"])
def test_every_compression_of_tiff_gives_the_same_picture(compression: str) -> None:
    mode = "1" if compression.startswith("group") else "L"
    left, right = left_and_right(GREY.decode(encode(halves(mode, 0, 255), "TIFF", compression=compression)))
    assert (left < 12, right > 243) == (True, True)


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("drawn", [0, 255])
def test_a_drawing_on_a_transparent_canvas_is_seen_on_any_background(drawn: int, background: int) -> None:
    """White strokes on nothing were a white picture before a white background, in training as in serving."""
    image = halves("RGBA", (drawn, drawn, drawn, 0), (drawn, drawn, drawn, 255))
    left, right = left_and_right(ImageInput(8, 8, 3, background=background).decode(encode(image)))
    assert right == pytest.approx(drawn, abs=2)
    assert abs(left - right) > 240


def test_an_image_without_any_drawing_keeps_its_background() -> None:
    assert (COLOUR.decode(encode(Image.new("RGBA", (16, 16), (255, 255, 255, 0)))) == 255).all()
    assert (COLOUR.decode(encode(Image.new("RGBA", (16, 16), (255, 255, 255, 255)))) == 255).all()


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


def noise(width: int = 120, height: int = 200) -> Image.Image:
    """A picture whose rows all differ."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


CUT = {
    "jpeg": encode(noise(), "JPEG", quality=90),
    "jpeg without subsampling": encode(noise(), "JPEG", quality=90, subsampling=0),
    "progressive jpeg": encode(noise(), "JPEG", quality=90, progressive=True),
    "grey jpeg": encode(noise().convert("L"), "JPEG", quality=90),
    "png": encode(noise()),
    "grey png": encode(noise().convert("L")),
    "palette png": encode(noise().convert("P")),
    "gif": encode(noise(), "GIF"),
    "tiff": encode(noise(), "TIFF"),
    "webp": encode(noise(), "WEBP", quality=90),
    "jpeg in parts of a block": encode(noise(), "JPEG", quality=90, restart_marker_blocks=1),
    "jpeg in parts of seven blocks": encode(noise(), "JPEG", quality=90, restart_marker_blocks=7),
    "jpeg in parts of a row": encode(noise(), "JPEG", quality=90, restart_marker_rows=1),
}
FULL = ImageInput(120, 200, 3)
TWELVE_BITS = CUT["jpeg"].replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_in_its_last_rows_is_read(name: str) -> None:
    whole, cut = (
        FULL.decode(content)[0].astype(int) for content in (CUT[name], CUT[name][: len(CUT[name]) * 97 // 100])
    )
    there = FULL.height * 90 // 100
    assert np.abs(whole[:, :there] - cut[:, :there]).mean() < 2
    assert np.abs(whole - cut).mean() < 12


@pytest.mark.parametrize("name", ["jpeg", "jpeg without subsampling", "progressive jpeg", "grey jpeg"])
@pytest.mark.parametrize("bytes_less", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read_as_if_it_had_it(name: str, bytes_less: int) -> None:
    np.testing.assert_array_equal(FULL.decode(CUT[name][:-bytes_less]), FULL.decode(CUT[name]))


@pytest.mark.parametrize("name", CUT)
def test_a_file_of_which_too_little_is_there_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match=r"cut or damaged: .*; send it complete") as caught:
        FULL.decode(CUT[name][: len(CUT[name]) // 2], "photo")
    assert caught.value.field == "photo"


@pytest.mark.parametrize("name", [name for name in CUT if name.startswith("jpeg")])
def test_wherever_a_jpeg_is_cut_nine_pixels_of_ten_are_needed(name: str) -> None:
    """Between parts, behind a restart marker and in the middle of one too."""
    content = CUT[name]
    parts = [found.end() - 1 for found in re.finditer(rb"\xff[\xd0-\xd7]", content)]
    for at in (
        *range(len(content) // 10, len(content) * 85 // 100, 997),
        *(at for at in parts[::3] if at < 0.85 * len(content)),
    ):
        for length in (at - 1, at, at + 1):
            with pytest.raises(InputError, match="cut or damaged"):
                FULL.decode(content[:length])


@pytest.mark.parametrize(("share", "read"), [(95, True), (91, True), (88, False), (50, False), (20, False)])
def test_nine_pixels_of_ten_are_enough(share: int, read: bool) -> None:
    content = encode(noise(), "TIFF")
    content = content[: len(content) - 120 * 200 * 3 * (100 - share) // 100]
    if read:
        whole, cut = np.asarray(noise()), FULL.decode(content)[0].transpose(1, 2, 0)
        np.testing.assert_array_equal(cut[: 2 * share], whole[: 2 * share])
        np.testing.assert_array_equal(cut[2 * share :], np.tile(whole[2 * share - 1], (200 - 2 * share, 1, 1)))
        return
    with pytest.raises(InputError, match=f"{share} % of its pixels can be read, 90 % are needed"):
        FULL.decode(content)


@pytest.mark.parametrize("bytes_less", [3, 10, 40])
def test_a_small_jpeg_that_lacks_its_last_blocks_is_read(bytes_less: int) -> None:
    """A row of blocks is 16 pixels high, a sixth of this picture: only those that are missing count."""
    content = encode(noise(104, 96), "JPEG", quality=90)
    spec = ImageInput(104, 96, 3)
    whole, cut = (spec.decode(each)[0].astype(int) for each in (content, content[:-bytes_less]))
    np.testing.assert_array_equal(cut[:, :72], whole[:, :72])
    assert np.abs(whole - cut).mean() < 4


def test_a_progressive_jpeg_that_only_lacks_sharpness_is_read_and_one_without_colours_is_not() -> None:
    content = CUT["progressive jpeg"]
    scans = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    last = FULL.decode(content[: scans[-1] + 40])[0].astype(int)
    assert np.abs(last - FULL.decode(content)[0].astype(int)).mean() < 4
    with pytest.raises(InputError, match="parts that make it sharp and coloured"):
        FULL.decode(content[: scans[1] + 40])


@pytest.mark.parametrize("name", ["rgb.avif", "rgb.heic", "lzw.tiff"])
def test_a_file_that_cannot_be_read_in_part_is_named_damaged(name: str) -> None:
    with pytest.raises(InputError, match="damaged") as caught:
        COLOUR.decode(images()[name][:-60], "photo")
    assert caught.value.field == "photo"


def test_an_avif_may_not_hold_more_than_it_says() -> None:
    """The size in the container is what the picture is scaled to; 2 kB decoded to 200 MB."""
    with pytest.raises(TooLarge, match="an AVIF of 4,000,000 pixels in 1 frames"):
        ImageInput(8, 8, max_pixels=1_000_000).decode(bombs.larger_within("AVIF", 2000))


def test_an_avif_may_not_hold_frames_without_end() -> None:
    content = encode(Image.new("RGB", (2000, 2000), "red"), "AVIF", speed=10)
    (stream,) = read_streams(content)
    assert stream == Stream(2000 * 2000, 1)
    with pytest.raises(TooLarge, match="in 200 frames"):
        ImageInput(8, 8).decode(bombs.frames(200))


BOXES = b"\0\0\0\x08free" * 10_001


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bombs.avif_of_places(300, 2**16 - 1), "more than 10,000 pieces"),
        (bombs.avif_of_places(1, 2000), "longer than the file, or has no length"),
        (bombs.avif_of_places(1, 1) + bombs.avif_of_places(1, 1), "several boxes meta"),
        (images()["rgb.avif"] + BOXES, "more than 10,000 boxes"),
    ],
    ids=["places", "whole file", "twice", "boxes"],
)
def test_an_avif_is_measured_in_few_steps(content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        COLOUR.decode(content)


@pytest.mark.parametrize("segment", [b"\xff\xc0\0\2", b"\xff\xda\0\2", b"\xff\xda\0\4\1\1"], ids=repr)
def test_a_cut_jpeg_whose_segments_are_too_short_is_damaged(segment: bytes) -> None:
    with pytest.raises(InputError, match="damaged"):
        COLOUR.decode(b"\xff\xd8" + segment + b"abc")


def test_heic_is_named_with_its_extra_where_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mla_serve.inputs.image.FORMATS", tuple(name for name in FORMATS if name != "HEIF"))
    with pytest.raises(UnsupportedFormat, match=r"this is HEIC.*mla_serve\[heif\].*heif-convert in.heic out.jpg"):
        COLOUR.decode(images()["rgb.heic"])


def test_pillow_heif_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['pillow_heif'] = None; from mla_serve.inputs import ImageInput as i; print(i.formats)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "AVIF" in done.stdout
    assert "HEIF" not in done.stdout


RAISED = [TypeError, KeyError, struct.error, SyntaxError, OverflowError, ZeroDivisionError, AttributeError, MemoryError]


@pytest.mark.parametrize("error", [*RAISED, EOFError, RuntimeError, zlib.error, Image.DecompressionBombError])
@pytest.mark.parametrize(
    "where", ["PIL.Image.open", "PIL.PngImagePlugin.PngImageFile.load", "PIL.ImageOps.exif_transpose"]
)
def test_whatever_pillow_raises_is_an_input_error(
    where: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("odd")

    monkeypatch.setattr(where, fail)
    with pytest.raises(InputError) as caught:
        COLOUR.decode(encode(halves()), "photo")
    assert caught.value.field == "photo"
    assert ";" in caught.value.message


def test_a_bug_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("mla_serve.inputs.image._to_eight_bit", fail)
    with pytest.raises(TypeError, match="a bug"):
        COLOUR.decode(encode(halves()))


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"RIFF\x24\0\0\0WAVEfmt ", "this is WAV.*send an image"),
        (b"<svg/>", "this is SVG.*rsvg-convert in.svg -o out.png"),
        (b"%PDF-1.7", "this is PDF.*pdftoppm -png"),
        (b"\0" * 100, "this is zeros"),
        (
            b"\x89PNG\r\n\x1a\n",
            "the PNG file is damaged, or a variant of PNG that is not read; send it complete, or convert it: magick in.png",
        ),
        (
            TWELVE_BITS,
            "the JPEG file is damaged, or a variant of JPEG that is not read; send it complete, or convert it: magick",
        ),
    ],
)
def test_what_is_no_image_is_named(payload: bytes, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        GREY.decode(payload)
    assert "\\x" not in caught.value.message
