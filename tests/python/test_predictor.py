"""The predictor of the Python interface: the same sample gives the same answer, however it is given."""

from __future__ import annotations

import io
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
from PIL import Image

import mla_serve
from mla_serve.bundle.answer_columns import ANSWER, BOUNDS
from mla_serve.bundle.results import ClassOpinion, ClassPrediction, LabelProbability, PredictionSet
from mla_serve.errors import DataError, InputError, MissingInput, UnknownField
from mla_serve.inputs import Array
from mla_serve.inputs.base import Payload

NAN, NOTHING = float("nan"), (None, float("nan"), pd.NaT, pd.NA, " ", [])


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> mla_serve.Predictor:
    return mla_serve.load(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def rows(make_sample: Callable[[int], dict[str, Payload]]) -> list[dict[str, Any]]:
    """Some samples with different modalities missing; more than run through the graphs at once."""
    return [
        {name: value if (seed + m) % 3 else None for m, (name, value) in enumerate(make_sample(seed % 8).items())}
        for seed in range(70)
    ]


class Decoder:
    """What a Hugging Face dataset gives for a sound since datasets 4."""

    def __init__(self, array: Array, rate: int) -> None:
        self.data, self.sample_rate = array[None], rate

    def get_all_samples(self) -> Decoder:
        return self


def forms_of_image(content: bytes, path: Path) -> dict[str, Any]:
    path.write_bytes(content)
    image = Image.open(io.BytesIO(content))
    return {
        "str": str(path),
        "path": path,
        "file": io.BytesIO(content),
        "PIL": image,
        "array": np.asarray(image),
        "dataset": {"bytes": content, "path": None},
        "dataset of paths": {"bytes": None, "path": str(path)},
    }


def forms_of_audio(content: bytes, path: Path) -> dict[str, Any]:
    path.write_bytes(content)
    array, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    return {
        "str": str(path),
        "path": path,
        "file": io.BytesIO(content),
        "array": (array, rate),
        "rate first": (rate, array),
        "dataset": {"path": None, "array": array, "sampling_rate": rate},
        "decoder": Decoder(array, rate),
    }


def forms_of_vector(numbers: list[float], path: Path) -> dict[str, Any]:
    return {"tuple": tuple(numbers), "array": np.array(numbers), "text": str(numbers), "Series": pd.Series(numbers)}


FORMS = {"image": forms_of_image, "audio": forms_of_audio, "vector": forms_of_vector}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("table", [False, True], ids=["sample", "frame"])
def test_every_form_of_a_payload_gives_the_same_probabilities(
    kind: str, table: bool, model: mla_serve.Predictor, sample: dict[str, Any], tmp_path: Path
) -> None:
    expected = model.predict_proba({kind: sample[kind]})
    for name, value in FORMS[kind](sample[kind], tmp_path / "file").items():
        given = pd.DataFrame({kind: pd.Series([value], dtype=object)}) if table else {kind: value}
        found = np.asarray(model.predict_proba(given, folder=tmp_path)).ravel()
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


def test_one_sample_a_list_a_frame_and_an_arrow_table_agree(
    model: mla_serve.Predictor, rows: list[dict[str, Any]]
) -> None:
    alone = np.array([model.predict_proba(**row) for row in rows])
    frame = pd.DataFrame(rows)
    arrow = pa.Table.from_pylist(rows)
    for found in (
        model.predict_proba(rows),
        model.predict_proba(iter(rows)),
        model.predict_proba(frame),
        np.array(model.predict_proba(arrow).to_pandas()),
    ):
        np.testing.assert_allclose(found, alone, atol=1e-6)
    labels = [model.predict(row).label for row in rows]
    assert [each.label for each in model.predict(rows)] == labels
    assert model.predict(frame).label.tolist() == labels
    assert model.predict(arrow)["label"].to_pylist() == labels


@pytest.fixture(scope="module")
def task_model(task_bundle: Path) -> mla_serve.Predictor:
    """The model of each task."""
    return mla_serve.load(task_bundle, threads=1)


def test_a_table_of_every_task_has_the_columns_of_its_answers(
    task_model: mla_serve.Predictor, rows: list[dict[str, Any]]
) -> None:
    columns = ANSWER[task_model.task.name]
    frame, arrow = task_model.predict(pd.DataFrame(rows)), task_model.predict(pa.Table.from_pylist(rows))
    assert list(frame.columns[: len(columns)]) == [column.name for column in columns]
    assert frame.columns.tolist() == arrow.column_names
    for column in columns:
        cells = [column.cell(each) for each in task_model.predict(rows)]
        expected = pytest.approx(cells, rel=1e-4) if column.kind == "number" else cells
        assert frame[column.name].tolist() == expected
        assert arrow[column.name].to_pylist() == expected
    answers = task_model.predict(rows, coverage=0.9)
    frame, arrow = (task_model.predict(each, coverage=0.9) for each in (pd.DataFrame(rows), pa.Table.from_pylist(rows)))
    assert frame["missing"].tolist() == arrow["missing"].to_pylist() == [each.missing for each in answers]
    for column in BOUNDS[task_model.task.name]:
        cells = [column.cell(each) for each in answers]
        expected = pytest.approx(cells, rel=1e-4) if column.kind == "number" else cells
        assert frame[column.name].tolist() == arrow[column.name].to_pylist() == expected


def test_probabilities_are_those_of_labels_and_a_number_has_none(
    task_model: mla_serve.Predictor, rows: list[dict[str, Any]]
) -> None:
    if task_model.classes:
        first = task_model.predict(rows[0]).by_label()
        assert task_model.predict_proba(rows)[0].tolist() == pytest.approx([first[name] for name in task_model.classes])
        return
    with pytest.raises(InputError, match="this model answers a number, which has no classes; call predict instead"):
        task_model.predict_proba(rows)


def test_a_model_of_every_task_can_be_pickled_and_drawn(
    task_model: mla_serve.Predictor, sample: dict[str, Any]
) -> None:
    assert pickle.loads(pickle.dumps(task_model)).predict(sample) == task_model.predict(sample)
    assert task_model.task.describe() in repr(task_model)
    assert task_model.task.describe() in task_model._repr_html_()
    assert "<table" in task_model.predict(sample)._repr_html_()


def test_a_frame_keeps_its_index_and_the_order_of_its_rows(
    model: mla_serve.Predictor, rows: list[dict[str, Any]]
) -> None:
    frame = pd.DataFrame(rows, index=[f"row {n}" for n in range(len(rows))])
    shuffled = frame.sample(frac=1.0, random_state=0)
    found = model.predict_proba(shuffled)
    assert found.index.equals(shuffled.index)
    assert list(found.columns) == list(model.classes)
    np.testing.assert_allclose(found.loc[frame.index], model.predict_proba(frame), atol=1e-6)
    assert model.predict(shuffled).index.equals(shuffled.index)


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_what_means_missing_gives_the_answer_without_it(
    nothing: Any, model: mla_serve.Predictor, sample: dict[str, Any]
) -> None:
    expected = model.predict(text=sample["text"])
    missing = dict.fromkeys(["image", "audio", "vector"], nothing)
    assert model.predict(text=sample["text"], **missing) == expected
    frame = pd.DataFrame({"text": [sample["text"]]} | {name: pd.Series([nothing], dtype=object) for name in missing})
    assert model.predict(frame).probability[0] == pytest.approx(expected.probability)
    with pytest.raises(MissingInput, match="give at least one of image, audio, text, vector"):
        model.predict(image=nothing)


def test_a_value_that_cannot_be_read_leaves_its_row_to_the_others(
    model: mla_serve.Predictor, sample: dict[str, Any]
) -> None:
    frame = pd.DataFrame({"image": ["nowhere.png", "nowhere.png", None], "text": [sample["text"], None, None]})
    found = model.predict(frame)
    assert found.probability[0] == pytest.approx(model.predict(text=sample["text"]).probability)
    assert found.error[0].startswith("image: no file 'nowhere.png'")
    assert found.label.isna().tolist() == [False, True, True]
    assert found.error[2].startswith("image: nothing was given")
    assert model.predict_proba(frame).isna().all(axis=1).tolist() == [False, True, True]


def test_a_sample_of_a_list_that_cannot_be_read_is_named(model: mla_serve.Predictor, sample: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^sample 1, image: .*nowhere.png: cannot be read"):
        model.predict([sample, {"image": "nowhere.png"}])
    with pytest.raises(InputError, match=r"^image: expected an image, got an object"):
        model.predict(image=object())


def test_paths_are_relative_to_the_folder(model: mla_serve.Predictor, sample: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(sample["image"])
    assert model.predict(image="a.png", folder=tmp_path) == model.predict(image=sample["image"])
    assert model.predict(pd.DataFrame({"image": ["a.png"]}), folder=str(tmp_path)).error.isna().all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("rows.csv", "data: got str; give one sample"),
        (3, "data: got int; give one sample"),
        (["seven"], "data: expected a list of samples, each a dict, got str in it"),
        (pd.DataFrame({"picture": ["a.png"]}), "data: has the columns picture; expected some of audio, image"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "text: two columns have this name; rename one"),
        ({"txet": "seven"}, "txet: this model has no such input; did you mean text?"),
    ],
    ids=str,
)
def test_what_is_no_sample_is_refused(data: Any, message: str, model: mla_serve.Predictor) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        model.predict(data)


def test_options_are_checked_before_anything_is_read(model: mla_serve.Predictor) -> None:
    with pytest.raises(UnknownField, match="fusion"):
        model.predict(text="a", fusion="median")
    with pytest.raises(InputError, match="top_k"):
        model.predict(text="a", top_k=0)
    with pytest.raises(InputError, match="give either that or keywords"):
        model.predict({"text": "a"}, image="a.png")


def test_columns_of_a_table_that_are_not_read_are_logged(
    model: mla_serve.Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mla_serve"):
        model.predict(pd.DataFrame({"text": ["a"], "price": [3.5], "label": ["red"]}))
    assert "columns that tiny does not read: price, label" in caplog.text


def test_features_are_those_of_each_sample(model: mla_serve.Predictor, rows: list[dict[str, Any]]) -> None:
    features = model.embed(rows)
    for number, row in enumerate(rows):
        alone = model.embed(row)
        for name, values in features.items():
            if name in alone:
                np.testing.assert_allclose(values[number], alone[name], atol=1e-5)
            else:
                assert np.isnan(values[number]).all()


def test_an_evaluation_counts_right_answers(model: mla_serve.Predictor, rows: list[dict[str, Any]]) -> None:
    answers = [each.label for each in model.predict(rows)]
    wrong = [label if number % 2 else "red" for number, label in enumerate(answers)]
    frame = pd.DataFrame(rows).assign(colour=wrong)
    measured = model.evaluate(frame, label="colour", draws=2)
    expected = sum(a == b for a, b in zip(answers, wrong, strict=True)) / len(rows)
    assert measured.accuracy == pytest.approx(expected)
    assert sum(map(sum, measured.confusion)) == measured.rows == len(rows)
    assert repr(measured).startswith(f"<Evaluation 70 rows: accuracy {expected:.3f}, macro F1 ")
    assert f">{expected:.3f}<" in measured._repr_html_()
    with pytest.raises(DataError, match=r"^no column 'label'; it has: image, .*; say which with label='COLUMN'"):
        model.evaluate(frame)


@pytest.mark.parametrize("path", ["../a.png", "{folder}/../a.png", "/etc/hostname", "~/a.png"])
def test_a_text_in_a_table_opens_no_file_outside_the_folder(
    model: mla_serve.Predictor, sample: dict[str, Any], tmp_path: Path, path: str
) -> None:
    """A table may come from anybody; what the caller writes as an argument does not."""
    (tmp_path / "a.png").write_bytes(sample["image"])
    (folder := tmp_path / "inside").mkdir()
    (error,) = model.predict(pd.DataFrame({"image": [path.format(folder=folder)]}), folder=folder).error
    assert "leaves the folder" in error or "no file" in error
    assert model.predict(image=tmp_path / "a.png") == model.predict(image=sample["image"])


def test_a_copy_needs_no_folder(model: mla_serve.Predictor, sample: dict[str, Any]) -> None:
    assert pickle.loads(pickle.dumps(model)).predict(sample) == model.predict(sample)


def test_a_predictor_is_shown_in_one_line(model: mla_serve.Predictor) -> None:
    shown = "<Predictor 'tiny': reads image (image), audio (audio), text (text), vector (vector); answers 3 classes>"
    assert repr(model) == shown
    assert "red, green, blue" in model._repr_html_()


# ---- results in a notebook

EVIL = "<script>alert(1)</script>\"' onload=x"


def test_names_and_labels_cannot_put_anything_into_a_page() -> None:
    answer = ClassPrediction(
        label=EVIL,
        probability=0.5,
        probabilities=[LabelProbability(EVIL, 0.5)],
        entropy=1.0,
        fusion="calibrated",
        modalities={EVIL: ClassOpinion(1.0, 0.1, 0.2, EVIL, 0.5)},
        missing=[EVIL],
        prediction_set=PredictionSet([EVIL], 0.9, 212, pooled=False),
    )
    page = answer._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 6
    assert EVIL.partition('"')[2] not in page
    assert len(page) < 10_000


def test_a_page_is_readable_on_light_and_dark_and_loads_nothing(
    model: mla_serve.Predictor, sample: dict[str, Any]
) -> None:
    page = model.predict(sample)._repr_html_()
    assert "overflow-x:auto" in page.partition(">")[0], "on a telephone, a wide table scrolls by itself"
    for styles in re.findall(r'style="([^"]*)"', page):
        assert not re.search(r"(^|;)color:(?!inherit)", styles), "a colour of text of its own"
        assert not re.search(r"background:(?!transparent)", styles) or "height" in styles, "only bars have a background"
    assert not re.search(r"<(?:script|style|link|img|iframe)|https?:|url\(", page)
