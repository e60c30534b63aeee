"""What callers have in hand, and what of it reaches the service: compared by what the bundle's own readers decode."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from mla_serve.client import InputError, UnknownField
from mla_serve.client.exchange import to_part
from mla_serve.client.model import Modality
from mla_serve.inputs import INPUTS, Array, AudioInput, Column, ColumnsInput, ImageInput, VectorInput
from mla_serve.payloads import check_sample, drop_missing, is_missing

GENERATOR = np.random.default_rng(3)
PIXELS = GENERATOR.integers(0, 256, (6, 5, 3), dtype=np.uint8)
PIXELS[0, 0], PIXELS[0, 1] = 0, 255
GREY = PIXELS[:, :, 0]
SAMPLES = GENERATOR.uniform(-0.9, 0.9, (700, 2)).astype(np.float32)
COLOUR, SOUND, VECTOR = ImageInput(5, 6, 3), AudioInput(1000, 500, 250), VectorInput(1)


class Tensor:
    """What matters here of a tensor of torch: it is no array while it is on a GPU, part of a graph, or of bfloat16."""

    def __init__(self, values: Array, *faults: str) -> None:
        self.values, self.faults, self.ndim, self.shape = values, faults, values.ndim, values.shape

    def detach(self) -> Tensor:
        return Tensor(self.values, *(fault for fault in self.faults if fault != "a graph"))

    def cpu(self) -> Tensor:
        return Tensor(self.values, *(fault for fault in self.faults if fault != "a GPU"))

    def __iter__(self) -> Any:
        return iter([Tensor(value, *self.faults) for value in self.values])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.faults:
            raise TypeError(f"this is part of, or lies on: {', '.join(self.faults)}")
        return self.values


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sent(value: Any, kind: str) -> Any:
    """Return what is put into the form."""
    modality = Modality(kind, INPUTS[kind].sent_as, [], [], {})
    return to_part("field", value, modality)[1][1]


def seen(value: Any) -> Array:
    """Return the pixels (H, W, 3) that an image model gets."""
    return COLOUR.decode(sent(drop_missing({"field": value})["field"], "image"))[0].transpose(1, 2, 0)


def outputs(value: Any) -> Array:
    return SOUND.decode(sent(drop_missing({"field": value})["field"], "audio"))


def read(value: Any) -> list[float]:
    row: list[float] = VectorInput(4).decode(sent(value, "vector"))[0].tolist()
    return row


# ---- missing


def shown(value: object) -> str:
    """Name a parameter without its address in memory, which differs between the processes of one test run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:40]


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        np.nan,
        np.float32("nan"),
        np.float64("nan"),
        decimal.Decimal("nan"),
        pd.NA,
        pd.NaT,
        np.datetime64("NaT"),
        "",
        " \n",
        [],
    ],
    ids=shown,
)
def test_whatever_a_table_calls_empty_is_missing(value: object) -> None:
    assert is_missing(value)
    assert drop_missing({"image": value, "text": "seven"}) == {"text": "seven"}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "value",
    [0, 0.0, False, "a", "nan", b"", [0.0], (), np.zeros(0), np.array(np.nan), Path(), pd.Series([np.nan])],
    ids=shown,
)
def test_nothing_else_is_missing(value: Any) -> None:
    assert not is_missing(value)


def test_an_image_that_cannot_be_decoded_is_not_decoded_to_see_whether_it_is_missing() -> None:
    image = Image.open(io.BytesIO(png(Image.fromarray(PIXELS))[:60]))
    assert not is_missing(image)
    with pytest.raises(InputError, match="cannot be used"):
        sent(image, "image")


@pytest.mark.parametrize("missing_as", [None, np.nan, pd.NA])
def test_records_of_a_frame_are_samples(missing_as: Any) -> None:
    frame = pd.DataFrame({"text": ["one", missing_as, "three"], "size": [1.5, 2.5, np.nan]})
    samples = [drop_missing(record) for record in frame.to_dict("records")]  # type: ignore[arg-type]
    assert samples == [{"text": "one", "size": 1.5}, {"size": 2.5}, {"text": "three"}]


# ---- images


IMAGES: dict[str, Callable[[], Any]] = {
    "uint8": lambda: PIXELS,
    "not contiguous": lambda: np.asfortranarray(PIXELS),
    "another byte order": lambda: PIXELS.astype(">i4"),
    "int64": lambda: PIXELS.astype(np.int64),
    "lists": PIXELS.tolist,
    "float32": lambda: PIXELS.astype(np.float32) / 255,
    "float16": lambda: (PIXELS / 255).astype(np.float16),
    "float64 with rounding errors": lambda: np.where(PIXELS == 255, 1 + 1e-9, PIXELS / 255),
    "uint16": lambda: PIXELS.astype(np.uint16) * 257,
    "channels first": lambda: PIXELS.transpose(2, 0, 1),
    "tensor, channels first": lambda: Tensor(PIXELS.transpose(2, 0, 1) / 255, "a GPU", "a graph"),
    "opaque": lambda: np.dstack([PIXELS, np.full((6, 5), 255, np.uint8)]),
    "Pillow": lambda: Image.fromarray(PIXELS),
    "Pillow, RGBA": lambda: Image.fromarray(PIXELS).convert("RGBA"),
    "Pillow, RGBa": lambda: Image.fromarray(PIXELS).convert("RGBA").convert("RGBa"),
    "Pillow, RGBX": lambda: Image.fromarray(PIXELS).convert("RGBX"),
    "Pillow, CMYK": lambda: Image.fromarray(PIXELS).convert("CMYK"),
    "bytes": lambda: png(Image.fromarray(PIXELS)),
    "memoryview": lambda: memoryview(png(Image.fromarray(PIXELS))),
    "open file": lambda: io.BytesIO(png(Image.fromarray(PIXELS))),
}


@pytest.mark.parametrize("name", IMAGES)
def test_every_holder_of_an_image_gives_its_pixels(name: str) -> None:
    np.testing.assert_array_equal(seen(IMAGES[name]()), PIXELS)


GREYS: dict[str, Callable[[], Any]] = {
    "(H, W)": lambda: GREY,
    "(H, W, 1)": lambda: GREY[:, :, None],
    "(1, H, W)": lambda: GREY[None],
    "uint16": lambda: GREY.astype(np.uint16) * 257,
    "Pillow, L": lambda: Image.fromarray(GREY),
    "Pillow, LA": lambda: Image.fromarray(GREY).convert("LA"),
    "Pillow, La": lambda: Image.fromarray(GREY).convert("LA").convert("La"),
    "Pillow, P": lambda: Image.fromarray(GREY).convert("P"),
    "Pillow, PA": lambda: Image.fromarray(GREY).convert("P").convert("PA"),
    "Pillow, I": lambda: Image.fromarray(GREY.astype(np.int32) * 257),
    "Pillow, I;16": lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
    "Pillow, I;16B": lambda: Image.fromarray(GREY.astype(np.int32) * 257).convert("I;16B"),
    "Pillow, F": lambda: Image.fromarray(GREY.astype(np.float32) / 255),
}


@pytest.mark.parametrize("name", GREYS)
def test_every_holder_of_a_grey_image_gives_its_pixels(name: str) -> None:
    np.testing.assert_array_equal(seen(GREYS[name]()), np.stack([GREY] * 3, axis=2))


def test_a_mask_is_black_and_white() -> None:
    np.testing.assert_array_equal(seen(GREY > 99)[:, :, 0], np.where(GREY > 99, 255, 0))
    np.testing.assert_array_equal(seen(Image.fromarray(GREY > 99))[:, :, 0], np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_colours_of_another_space_are_nearly_those(mode: str) -> None:
    image = Image.fromarray(PIXELS)
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")  # type: ignore[assignment]
    else:
        image = image.convert(mode)
    assert np.abs(seen(image).astype(int) - PIXELS).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_pillow_stands_as_its_file_does(orientation: int) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(buffer, "JPEG", quality=100, exif=exif)
    np.testing.assert_allclose(seen(Image.open(buffer)).astype(int), seen(buffer.getvalue()).astype(int), atol=3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((1, 3, 8, 8)), "(1, 3, 8, 8)"),
        (np.zeros((4, 8, 8, 2)), "(4, 8, 8, 2)"),
        (np.zeros((8, 8, 2), np.uint8), "(8, 8, 2)"),
        (np.zeros(64, np.uint8), "(64,)"),
        (np.zeros((0, 8), np.uint8), "(0, 8)"),
        (np.full((8, 8), 128.0), "outside 0 to 1"),
        (np.full((8, 8), np.nan), "outside 0 to 1"),
        (np.full((8, 8), -1), "from -1 to -1"),
        (np.full((8, 8), 300), "from 300 to 300"),
        (np.zeros((8, 8), complex), "complex128"),
        (np.array([["a", "b"]]), "<U1"),
        ([[1, 2], [3]], "a list"),
        (Tensor(PIXELS, "bfloat16"), "a Tensor"),
        (7, "an int"),
        ({"path": "a.png"}, "a dict"),
        (datetime.date(2026, 1, 1), "a date"),
        ("no/such.png", "'no/such.png'"),
        ("x" * 5000, "x" * 100 + "…'"),
        ("a\0b", "null"),
        (Path("/"), "directory"),
        (io.BytesIO(), "read to its end"),
        (io.StringIO("abc"), "'abc'"),
    ],
    ids=shown,
)
def test_what_is_no_image_is_refused_in_one_line(value: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        seen(value)
    message = str(caught.value)
    assert message.startswith("field: ")
    assert words in message
    assert any(advice in message for advice in ("; send ", "; give ", "; scale ", "; convert ", "; seek"))
    assert "\n" not in message
    assert len(message) < 400


# ---- sounds


SOUNDS: dict[str, Callable[[], Any]] = {
    "(T, channels)": lambda: (SAMPLES, 1000),
    "(channels, T)": lambda: (SAMPLES.T, 1000),
    "tensor": lambda: (Tensor(SAMPLES.T, "a GPU", "a graph"), 1000),
    "float64": lambda: (SAMPLES.astype(np.float64), np.int64(1000)),
    "lists": lambda: (SAMPLES.tolist(), 1000),
    "the rate from a column of floats": lambda: (SAMPLES, 1000.0),
    "the rate first, as scipy gives it": lambda: (1000, SAMPLES),
    "the rate first, as numpy's": lambda: (np.int64(1000), SAMPLES),
    "int16": lambda: ((SAMPLES * 32768).round().astype(np.int16), 1000),
    "int32": lambda: ((SAMPLES.astype(np.float64) * 2**31).round().astype(np.int32), 1000),
    "open file": lambda: io.BytesIO(wav()),
}


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, SAMPLES, 1000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize("name", SOUNDS)
def test_every_holder_of_a_sound_gives_its_samples(name: str) -> None:
    np.testing.assert_allclose(outputs(SOUNDS[name]()), outputs(wav()), atol=1e-4)


@pytest.mark.parametrize("shape", [(700,), (700, 1), (1, 700)])
def test_one_channel_may_lie_either_way(shape: tuple[int, ...]) -> None:
    alone = SAMPLES[:, 0]
    np.testing.assert_array_equal(outputs((alone.reshape(shape), 1000)), outputs((alone, 1000)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (SAMPLES, "(array, rate)"),
        ((SAMPLES, 0), "a rate of 0"),
        ((SAMPLES, 0.5), "a rate of 0.5"),
        ((SAMPLES, "8k"), "'8k'"),
        ((SAMPLES, None), "None"),
        ((SAMPLES, True), "True"),
        ((SAMPLES[None], 1000), "(1, 700, 2)"),
        ((np.zeros(0), 1000), "(0,)"),
        ((np.zeros(9, np.uint8), 1000), "uint8"),
        ((np.zeros(9, np.int64), 1000), "int64"),
        (([0, 1, -1], 1000), "int64"),
        ((np.zeros((2000, 2001)), 1000), "(2001, 2000)"),
        ((["a"], 1000), "<U1"),
        ((SAMPLES, 1000, 2), "a tuple"),
        (Image.fromarray(PIXELS), "an Image"),
        (3, "an int"),
    ],
    ids=shown,
)
def test_what_is_no_sound_is_refused(value: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        outputs(value)
    assert words in str(caught.value)
    assert "; send " in str(caught.value)


# ---- numbers and texts


@pytest.mark.parametrize(
    "value",
    [
        2.5,
        np.float32(2.5),
        np.array(2.5),
        np.array([[2.5]]),
        Tensor(np.array(2.5)),
        decimal.Decimal("2.5"),
        [2.5],
        "2.5",
    ],
    ids=shown,
)
def test_a_number_is_a_vector_of_one(value: Any) -> None:
    assert VECTOR.decode(sent(value, "vector")).tolist() == [[2.5]]


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3, 4],
        (1, 2, 3, 4),
        range(1, 5),
        np.array([1, 2, 3, 4]),
        np.array([[1, 2, 3, 4]]),
        np.array([[1], [2], [3], [4]]),
        Tensor(np.array([1.0, 2, 3, 4]), "a GPU", "a graph"),
        pd.Series([1, 2, 3, 4]),
        pd.Series([1, 2, 3, 4], dtype=object),
        pd.DataFrame([[1, 2, 3, 4]]),
        iter([1, 2, 3, 4]),
        b"1 2 3 4",
    ],
    ids=shown,
)
def test_numbers_in_a_row_are_a_vector(value: Any) -> None:
    assert read(value) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", "b"], "a list"),
        ({"a": 1}, "a dict"),
        ({1, 2}, "a set"),
        ([10**400], "a list"),
        (1j, "a complex"),
        (np.ones((2, 2)), "(2, 2)"),
        (pd.DataFrame({0: [1, 2], 1: [3, 4]}), "(2, 2)"),
        (datetime.date(2026, 1, 1), "a date"),
        (b"\xff", "UTF-8"),
        (Path("no/such.txt"), "no/such.txt"),
    ],
    ids=shown,
)
def test_what_is_no_vector_is_refused(value: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        sent(value, "vector")
    assert words in str(caught.value)


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("säben", encoding="utf-8")
    with tempfile.TemporaryFile() as file:
        file.write("säben".encode())
        file.seek(0)
        values = [np.str_("säben"), "säben".encode(), tmp_path / "a.txt", file, io.StringIO("säben")]
        assert {sent(drop_missing({"t": value})["t"], "text") for value in values} == {"säben"}


@pytest.mark.parametrize("value", [7, 7.5, ["a"], True, {"a": "b"}, "\ud800", b"\xff", np.array(["a"])], ids=shown)
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"expected|surrogate"):
        sent(value, "text")


# ---- cells of columns


TOMORROW = datetime.datetime(2026, 3, 31, 14, 30)
ROW = {"price": 12.5, "colour": "red", "listed": "2026-03-31T14:30:00", "in stock": True, "size": None}
ROWS: dict[str, Callable[[], Any]] = {
    "Python's own": lambda: ROW | {"listed": TOMORROW},
    "numpy": lambda: {
        "price": np.float32(12.5),
        "colour": np.str_("red"),
        "listed": np.datetime64("2026-03-31T14:30:00"),
        "in stock": np.bool_(True),
        "size": np.nan,
    },
    "nanoseconds": lambda: ROW | {"listed": np.datetime64("2026-03-31T14:30:00", "ns")},
    "pandas": lambda: ROW | {"listed": pd.Timestamp(TOMORROW), "size": pd.NA},
    "a row of a frame": lambda: pd.DataFrame([ROW | {"listed": TOMORROW}]).iloc[0],
    "an array of one": lambda: ROW | {"price": np.array(12.5)},
    "decimal": lambda: ROW | {"price": decimal.Decimal("12.5")},
    "NaT": lambda: ROW | {"size": pd.NaT},
    "NaT of numpy": lambda: ROW | {"size": np.datetime64("NaT")},
    "blank": lambda: ROW | {"size": " "},
}
CELLS = ColumnsInput(
    (
        Column("price", "number", low=1.0, high=9.0),
        Column("colour", "category", ("red", "green")),
        Column("listed", "date", low=0.0, high=9.0),
        Column("in stock", "yes_no"),
        Column("size", "number", low=1.0, high=9.0),
    )
)


@pytest.mark.parametrize("name", ROWS)
def test_cells_of_any_library_are_read_alike(name: str) -> None:
    expected = CELLS.decode(ROW)
    assert not np.isnan(expected[0, :-1]).any()
    np.testing.assert_array_equal(CELLS.decode(sent(ROWS[name](), "columns")), expected)


def test_dates_and_names_of_columns_become_json() -> None:
    cells = {"Größe": datetime.date(2026, 3, 31), 2024: np.int64(7), "a": 10**20, "b": False}
    assert json.loads(sent(cells, "columns")) == {"Größe": "2026-03-31", "2024": 7, "a": 10**20, "b": False}
    assert sent('{"price": 1}', "columns") == '{"price": 1}'


@pytest.mark.parametrize("cells", [{}, {"price": None, "listed": pd.NaT, "colour": ""}], ids=shown)
def test_cells_that_are_all_missing_are_a_missing_modality(cells: dict[str, Any]) -> None:
    assert is_missing(cells)
    assert not is_missing(cells | {"price": 0})


@pytest.mark.parametrize(
    "cell",
    [[1], {"a": 1}, b"a", math.inf, -math.inf, 1 + 2j, object(), datetime.time(), np.array([1, 2]), "\ud800"],
    ids=shown,
)
def test_a_cell_that_json_cannot_hold_is_refused_by_the_name_of_its_column(cell: Any) -> None:
    with pytest.raises(InputError, match=r"expected|surrogate") as caught:
        sent({"price": 1, "a b": cell}, "columns")
    assert caught.value.field == "field.a b"


@pytest.mark.parametrize("value", [7, 7.5, [1], ("a", 1), {1}, np.array([1]), True], ids=shown)
def test_what_are_no_cells_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="send a dict such as"):
        sent(value, "columns")


# ---- samples


@pytest.mark.parametrize("sample", ["image", 7, ("image", "text"), None, ["a"]], ids=shown)
def test_what_is_no_sample_is_refused(sample: Any) -> None:
    with pytest.raises(InputError, match="to_dict"):
        check_sample(sample)


def test_a_row_of_a_frame_is_a_sample() -> None:
    row = pd.DataFrame({"text": ["one"], "size": [2]}).iloc[0]
    assert check_sample(row) == {"text": "one", "size": 2}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [0, None, "a\nb", "\ud800", ("a", "b")], ids=shown)
def test_a_name_that_cannot_be_sent_is_refused(name: Any) -> None:
    with pytest.raises(UnknownField):
        check_sample({name: "a"})
