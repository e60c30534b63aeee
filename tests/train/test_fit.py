"""Training from Python: the same model as the command trains, from a table that is never written to disk."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import mla_serve
from mla_serve.bundle.answer_columns import ANSWER, SET
from mla_serve.errors import ConfigError, DataError
from mla_serve.payloads import is_missing
from mla_serve.python.answers import to_table
from mla_serve.python.fit import _fields, _name, _setting_types
from mla_serve.python.given import read_given
from mla_serve.python.tables import table_in_memory
from mla_serve.python.values import to_cell
from mla_serve.python.wording import as_keywords
from mla_serve.table import Schema
from mla_serve.table.options import TableOptions

WORDS = {"red": ("crimson", "scarlet", "ruby"), "blue": ("navy", "azure", "sky"), "green": ("lime", "olive", "moss")}
SETTINGS: dict[str, Any] = {"epochs": 2, "width": 8, "threads": 1, "verbose": False}

LABEL = ANSWER["classes"][0]


def colours(rows: int = 48) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    labels = [list(WORDS)[n % 3] for n in range(rows)]
    texts = [" ".join([*generator.choice(WORDS[label], 2), str(n)]) for n, label in enumerate(labels)]
    split = ["test" if n % 4 == 0 else "train" for n in range(rows)]
    return pd.DataFrame({"text": texts, "label": labels, "split": split}, index=range(100, 100 + rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> mla_serve.Predictor:
    """Train once on a frame."""
    folder = tmp_path_factory.mktemp("fit")
    return mla_serve.fit(colours(), out=folder / "models" / "colours", runs=folder / "runs", **SETTINGS)


def test_a_frame_becomes_a_bundle_that_is_measured_on_its_test_rows(trained: mla_serve.Predictor) -> None:
    assert trained.name == "colours"
    assert trained.classes == ("blue", "green", "red")
    assert trained.modalities == {"text": "text"}
    assert trained.metrics["split"] == "test"
    assert trained.metrics["rows"] == 12
    measured = trained.evaluate(colours().query("split == 'test'"))
    assert measured.scores == pytest.approx(trained.metrics["conditions"]["full"]["calibrated"] | measured.scores)
    assert trained.metrics["conditions"]["full"]["calibrated"]["nll"] == pytest.approx(measured.scores["nll"])
    assert mla_serve.load(trained.folder).predict(text="navy") == trained.predict(text="navy")


def test_an_older_bundle_is_kept_and_nothing_else_is_replaced(trained: mla_serve.Predictor, tmp_path: Path) -> None:
    again = mla_serve.fit(colours(), out=trained.folder, runs=tmp_path, **SETTINGS)
    assert mla_serve.load(trained.folder.with_name("colours.old")).predict(text="sky") == trained.predict(text="sky")
    assert again.predict(text="sky") == trained.predict(text="sky"), "the same seed gives the same model"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"holds notes\.txt"):
        mla_serve.fit(colours(), out=tmp_path / "mine", runs=tmp_path / "runs", **SETTINGS)


def test_a_bundle_holds_no_cell_and_no_ignored_column(tmp_path: Path) -> None:
    """Ranges of numbers and dates, and repeated categories, are the exception: the model needs them."""
    generator = np.random.default_rng(0)
    labels = [list(WORDS)[n % 3] for n in range(60)]
    frame = pd.DataFrame(
        {
            "born": [f"0{n % 9 + 1}/{n % 28 + 1:02}/19{40 + n % 30}" for n in range(60)],
            "text": [" ".join(generator.choice(WORDS[label], 2)) for label in labels],
            "patient": [f"surname-{n}" for n in range(60)],
            "email": [f"secret-{n}@example.org" for n in range(60)],
            "clinic": [f"clinic-of-{n // 4 % 12}" for n in range(60)],
            "colour": labels,
        }
    )
    frame.loc[3, "colour"] = "singular"
    frame.loc[4, "born"] = "unreadable"
    frame.loc[7, "text"] = frame.loc[6, "text"]
    settings = SETTINGS | {"epochs": 1, "skip_bad_values": True, "skip_bad": True, "kinds": {"patient": "ignore"}}
    settings["group"] = "clinic"
    model = mla_serve.fit(frame, "colour", tmp_path / "shop", runs=tmp_path / "runs", **settings)
    run = (tmp_path / "runs" / "shop" / "run.json").read_text()
    bundle = {path.name: path.read_bytes() for path in model.folder.rglob("*") if path.is_file()}
    told = json.loads(bundle["manifest.json"])["training"]["notes"]
    assert {"43 rows for train", "data: 1 row and 1 other value left out because of faults"} <= {*told}
    assert {*json.loads(bundle["report.json"])["groups"]["text+columns"]["rows"]} >= {"group 1", "group 2"}
    quoted = ("patient", "email", "singular", "data:4", "data:5", str(tmp_path))
    assert all(secret in run for secret in quoted)
    for secret in (*quoted, "surname-", "secret-", "clinic-of-", "unreadable"):
        assert [name for name, content in bundle.items() if secret.encode() in content] == []


def test_every_form_of_a_table_gives_the_same_rows(tmp_path: Path) -> None:
    frame = colours()
    records = frame.to_dict("records")
    by_split = {split: rows.drop(columns="split") for split, rows in frame.groupby("split")}
    tables = [
        table_in_memory(data, tmp_path, TableOptions())
        for data in (frame, records, iter(records), pa.Table.from_pandas(frame), by_split)
    ]
    seen = [{s: [(row.label, row.values) for row in rows] for s, rows in table.splits.items()} for table in tables]
    assert all(each == seen[0] for each in seen)
    assert len({table.fingerprint for table in tables[:3]}) == 1
    changed = table_in_memory(frame.assign(text=frame.text.str.upper()), tmp_path, TableOptions())
    assert changed.fingerprint != tables[0].fingerprint


def test_a_faulty_row_of_a_frame_is_named_by_its_number(tmp_path: Path) -> None:
    frame = colours()
    frame.loc[102, "label"] = None
    assert "1 row without a label left out (data:3)" in table_in_memory(frame, tmp_path, TableOptions()).notes
    with pytest.raises(DataError, match=r"data:1: text: no file '.*' in the folder"):
        table_in_memory(colours(), tmp_path, TableOptions(kinds={"text": "image"}))
    with pytest.raises(DataError, match="give one sample"):
        table_in_memory([1, 2], tmp_path, TableOptions())


def test_settings_are_those_of_the_command(tmp_path: Path) -> None:
    found = _fields({"encoders": {"image": "resnet18"}, "modalities": "text", "out": "models/x", "epochs": None})
    assert found == {"encoders": ("image=resnet18",), "modalities": ("text",), "out": Path("models/x")}
    with pytest.raises(ConfigError, match=r"epoch: fit has no such setting; did you mean epochs\?"):
        mla_serve.fit(colours(), epoch=3)
    assert [_name(out) for out in (None, "models/Shop", Path("a/b.c"), "models/7")] == [
        "model",
        "shop",
        "model",
        "model",
    ]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (decimal.Decimal("1.5"), 1.5),
        (pd.Timestamp("2026-03-01"), datetime.datetime(2026, 3, 1)),
        (np.datetime64("2026-03-01"), datetime.datetime(2026, 3, 1)),
        (datetime.date(2026, 3, 1), datetime.datetime(2026, 3, 1)),
        (np.array([1.0, 2.0]), [1.0, 2.0]),
        ((1, 2), [1, 2]),
        (Path("a/b.png"), "a/b.png"),
        ({"bytes": b"x", "path": None}, b"x"),
        ({"bytes": None, "path": "a.png"}, "a.png"),
        (bytearray(b"x"), b"x"),
        (pd.NA, None),
        (pd.NaT, None),
        (float("nan"), None),
        ("", None),
    ],
    ids=repr,
)
def test_values_become_cells(value: Any, cell: Any) -> None:
    found = to_cell("column", value)
    assert found == cell
    assert type(found) is type(cell) or isinstance(found, datetime.datetime)
    assert is_missing(found) == (cell is None)


def test_pictures_and_sounds_become_the_bytes_of_files() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for picture in (pixels, Image.fromarray(pixels)):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(to_cell("c", picture)))), pixels)
    sound = np.zeros(100, np.float32)
    for given in ((sound, 8000), (8000, sound), {"array": sound, "sampling_rate": 8000, "path": "x"}):
        assert to_cell("c", given)[:4] == b"RIFF"


def test_lines_go_to_the_logger_and_are_printed_only_if_nobody_logs_them(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from mla_serve.python.progress import Screen, log

    with caplog.at_level(logging.INFO, "mla_serve"):
        Screen(verbose=True).say("logged")
    assert "logged" in caplog.text
    with caplog.at_level(logging.WARNING, "mla_serve"):
        Screen(verbose=True).say("printed")
        Screen(verbose=False).say("quiet")
        Screen().say("no terminal")
    assert capsys.readouterr().err == "printed\n"
    assert log.handlers == []


def test_cross_validation_is_done_before_training_as_by_the_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mla_serve"):
        mla_serve.fit(
            colours(24).drop(columns="split"),
            out=tmp_path / "m",
            runs=tmp_path / "runs",
            folds=2,
            **SETTINGS | {"epochs": 1},
        )
    assert json.loads((tmp_path / "runs" / "m" / "folds.json").read_text())["folds"] == 2
    assert "fold 2" in caplog.text


def test_pictures_and_sounds_in_memory_are_trained_on(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [
        {
            "picture": Image.fromarray(
                generator.integers(0, 99, (12, 12, 3), dtype=np.uint8) + np.uint8(150 * (n % 2))
            ),
            "sound": (generator.normal(0, 0.1 + 0.2 * (n % 2), 2000).astype(np.float32), 8000) if n % 3 else None,
            "target": n % 2 == 1,
        }
        for n in range(24)
    ]
    model = mla_serve.fit(rows, out=tmp_path / "m", runs=tmp_path / "runs", **SETTINGS | {"epochs": 1})
    assert model.modalities == {"picture": "image", "sound": "audio"}
    assert model.classes == ("False", "True")
    assert [each.missing for each in model.predict(rows[:2])] == [["sound"], []]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (np.arange(24) % 3, ("0", "1", "2"), "int64"),
        ((np.arange(24) % 3).astype(float), ("0", "1", "2"), "int64"),
        (np.arange(24) % 2 == 0, ("False", "True"), "bool"),
        (np.array(["0", "1"])[np.arange(24) % 2], ("0", "1"), pd.Series(["0"]).dtype),
    ],
    ids=["int", "float", "bool", "text"],
)
def test_labels_keep_their_type(labels: Any, names: tuple[str, ...], expected: Any, tmp_path: Path) -> None:
    frame = colours(24).assign(label=labels)
    table = table_in_memory(frame, tmp_path, TableOptions())
    assert tuple(table.classes) == names
    label_type = Schema.from_dict(table.schema.keep(["text"]).to_dict()).label_type
    answers = {LABEL: [names[int(label)] for label in labels], SET[0]: [list(names)] * 24}
    found = to_table(read_given(frame, {}), answers, label_type)
    assert found.label.dtype == expected
    assert (found.label == frame.label).all()
    assert {*found.prediction_set.iloc[0]} == {*frame.label}
    arrow = to_table(read_given(pa.Table.from_pandas(frame), {}), answers, label_type)
    assert arrow["label"].to_pylist() == frame.label.tolist()


def test_a_row_without_an_answer_leaves_the_other_labels_as_they_were() -> None:
    given = read_given(pd.DataFrame({"text": ["navy", None]}), {})
    assert to_table(given, {LABEL: ["7", None]}, "int").label.tolist() == [7, pd.NA]
    assert to_table(given, {LABEL: ["True", None]}, "bool").label.dtype == "boolean"


def test_labels_given_beside_the_table_are_refused() -> None:
    frame = colours()
    with pytest.raises(ConfigError, match=r"label: got a Series, expected the name of a column, or .* fit\(X\.assign"):
        mla_serve.fit(frame.drop(columns="label"), frame.label)  # type: ignore[arg-type] # that is the point


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("say which with --label COLUMN, such as colour", "say which with label=COLUMN, such as colour"),
        ("add --skip-bad to leave out 3 rows", "add skip_bad=True to leave out 3 rows"),
        ("or --kinds id=ignore; or --group", "or kinds={'id': 'ignore'}; or group"),
        ("--folds 5 uses all rows", "folds=5 uses all rows"),
        ("--val-share 0.2. --nothing of ours", "val_share=0.2. --nothing of ours"),
    ],
)
def test_messages_name_keywords(text: str, expected: str) -> None:
    assert as_keywords(text, _setting_types()) == expected


def test_errors_of_fit_name_keywords(tmp_path: Path) -> None:
    frame = colours().rename(columns={"label": "hue"})
    with pytest.raises(DataError, match="say which with label=COLUMN, such as"):
        mla_serve.fit(frame, runs=tmp_path, **SETTINGS)
    with pytest.raises(ConfigError, match="rows: fit has no such setting; it has data, label, "):
        mla_serve.fit(frame, rows=3)


def test_an_evaluation_without_labels_says_so_once(trained: mla_serve.Predictor) -> None:
    frame = colours().drop(columns="label")
    for data in (frame, frame.to_dict("records")):
        with pytest.raises(DataError, match=r"^no column 'label'; it has: text, split; say which with label='COLUMN'$"):
            trained.evaluate(data)
    with pytest.raises(DataError) as caught:
        trained.evaluate(colours().assign(label=None))
    assert str(caught.value).startswith(f"{Path.cwd()}: 48 faults in the data set")
    assert "--" not in str(caught.value)


def test_the_columns_are_named_in_a_list(tmp_path: Path) -> None:
    for wrong in ([], ["a,b", "c"], [1], 5):
        with pytest.raises(ConfigError, match="expected the name of a column, or a list of names without commas"):
            mla_serve.fit(pd.DataFrame({"text": ["navy", "red"] * 20}), wrong, tmp_path / "model")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="task regression: expected classes, labels or number"):
        mla_serve.fit(pd.DataFrame({"text": ["navy", "red"] * 20}), out=tmp_path / "model", task="regression")
