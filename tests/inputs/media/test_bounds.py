"""What one file may cost: reads, scans, memory; and what the corpus and the fuzz found."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from mla_serve.errors import InputError, TooLarge
from mla_serve.inputs import AudioInput, ImageInput
from mla_serve.inputs.image import ROWS, _to_eight_bit
from mla_serve.inputs.media.metered import MOST_CALLS, MeteredFile, QuietFile
from tests.hostile import bombs
from tests.hostile.seeds import floats, image, png, sound

READER = ImageInput(8, 8)
SOUND = AudioInput(rate=1000, window=500, hop=250)


def test_a_file_is_read_so_often_and_no_more() -> None:
    file = MeteredFile(b"abc")
    for _ in range(MOST_CALLS):
        file.seek(0)
    with pytest.raises(OSError, match="more than 100,000 pieces"):
        file.read(1)


def test_a_sound_file_comes_to_an_end_instead_of_failing() -> None:
    file = QuietFile(b"abc")
    assert file.seek(-1, os.SEEK_END) == 2
    assert file.seek(-9) == 2
    buffer = bytearray(4)
    assert file.readinto(buffer) == 1
    file.calls = MOST_CALLS
    file.seek(0)
    assert (file.read(), file.readinto(buffer)) == (b"", 0)


@pytest.mark.parametrize("name", ["fills.jpg", "chunks.png", "blocks-first.gif"])
def test_megabytes_of_empty_structures_are_given_up(name: str) -> None:
    with pytest.raises(InputError):
        READER.decode(dict(bombs.images())[name], "image")


def test_a_jpeg_of_many_scans_is_refused_before_decoding() -> None:
    with pytest.raises(TooLarge, match=r"20001 scans|2000[0-9] scans"):
        READER.decode(bombs.scans(20_000, 400), "image")
    with pytest.raises(TooLarge, match="scans of 4000x4000 pixels"):
        READER.decode(bombs.scans(50), "image")
    assert READER.decode(image("JPEG", progressive=True), "image").shape == (1, 3, 8, 8)


def test_half_the_pixels_are_decoded_at_full_size_all_of_them_of_a_jpeg() -> None:
    reader = ImageInput(8, 8, max_pixels=100 * 100)
    assert reader.decode(image("JPEG", size=(100, 100)), "image").shape == (1, 3, 8, 8)
    with pytest.raises(TooLarge, match=re.escape("100x100 pixels, at most 5,000 in all are read at full size")):
        reader.decode(image("PNG", size=(100, 100)), "image")


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_images_are_scaled_in_pieces_as_in_one(mode: str) -> None:
    from PIL import Image

    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    values = np.linspace(0, 60_000, (ROWS + 50) * 3).reshape(ROWS + 50, 3)
    values = values / 60_000 if mode == "F" else values
    full = 1.0 if mode == "F" else 65535.0
    expected = np.clip(values.astype(kind).astype(np.float64) * (255.0 / full), 0, 255).round().astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(_to_eight_bit(Image.fromarray(values.astype(kind)))), expected)


@pytest.mark.parametrize("value", [1e30, 3e38, -3e38])
def test_enormous_samples_are_scaled_and_not_squared_to_infinity(value: float) -> None:
    for rate in (1000, 8000):
        reader = AudioInput(rate=rate, window=500, hop=250)
        windows = reader.decode(floats(np.full(4000, value)), "audio")
        assert np.isfinite(windows).all()
        assert np.abs(windows).max() == pytest.approx(1.0, abs=0.2)


def test_a_sound_that_seeks_before_its_beginning_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """An exception in a callback from C would be printed with its traceback."""
    for at in range(8, 200, 3):
        content = bytearray(sound("AIFF", "PCM_16"))
        content[at : at + 4] = b"\xff\xff\xff\xff"
        try:
            SOUND.decode(bytes(content), "audio")
        except InputError:
            continue
    assert "Traceback" not in capfd.readouterr().err


def test_a_png_of_deep_grey_needs_little_more_memory_than_its_pixels() -> None:
    import tracemalloc

    content = png(2000, 2000, b"\0" * 2000 * 4001, 16)
    tracemalloc.start()
    READER.decode(content, "image")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 2000 * 12  # in float64, with its copies, it was 40 bytes a pixel


@pytest.mark.parametrize("values", [[np.inf, -np.inf], [3e38, 3e38], [np.nan, 1.0]])
def test_channels_that_add_up_to_no_number_are_refused_without_a_warning(values: list[float]) -> None:
    from tests.hostile.seeds import wav

    content = wav(np.array(values * 800, "<f4").tobytes(), channels=2, bits=32, tag=3)
    with pytest.raises(InputError, match="NaN or infinity"):
        SOUND.decode(content, "audio")
