"""Ask a bundle in this process, with values as they are at hand in Python."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, overload

import numpy as np

from mla_serve.bundle import predictor as graphs
from mla_serve.bundle.about import parse_about
from mla_serve.bundle.html import FRAME, table
from mla_serve.bundle.manifest import MANIFEST, Bundle
from mla_serve.bundle.results import Prediction
from mla_serve.bundle.runtime import cores, providers_of
from mla_serve.console import require_extra
from mla_serve.errors import DataError, InputError, MissingInput
from mla_serve.evaluation.results import Evaluation
from mla_serve.evaluation.splits import DRAWS, SHOWN_RULES, SplitRun, measure_more, run_rows, run_split, score_split
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.inputs import Array
from mla_serve.payloads import Value, is_missing
from mla_serve.python.answers import Answered, answer_columns, to_class_table, to_table
from mla_serve.python.columns import Columns
from mla_serve.python.given import Given, read_given
from mla_serve.python.progress import Screen, log
from mla_serve.python.tables import NAME
from mla_serve.python.values import to_cell
from mla_serve.python.wording import keyword_errors
from mla_serve.table import Row, TableOptions, read_payload
from mla_serve.table.faults import FaultPolicy, Faults, join_names
from mla_serve.table.label_forms import complete_labels
from mla_serve.table.labels import later_form, split_names
from mla_serve.table.schema import Schema
from mla_serve.table.split_names import holds_splits, split_named

BATCH = 64  # samples that run through the graphs together


def load(folder: str | Path, *, device: str = "cpu", threads: int | None = None) -> Predictor:
    """Load a bundle, to ask it in this process.

    Args: folder, such as "models/shop"; device, cpu or cuda; threads, that each graph uses, by default all cores.
    Raises: BundleError when the bundle is damaged; ConfigError when onnxruntime is not installed, or has no such device.
    """
    return Predictor(Bundle.load(folder), device=device, threads=threads)


class Predictor:
    """A finished model. Thread-safe.

    name: of the model; task: what it predicts; classes: its classes or labels, in the order of `predict_proba`, none for a
    number; modalities: {name: kind}; metrics: what was
    measured when it was exported, see docs/explanation/numbers.md; folder: of the bundle.

    Every call takes one sample or many:

        model.predict(image="a.jpg", text="blue mug")            one sample
        model.predict({"image": "a.jpg", "text": "blue mug"})    the same
        model.predict([{"text": "blue mug"}, {"image": "b.jpg"}])
        model.predict(frame)                                     a pandas or pyarrow table, or a Hugging Face dataset

    The names are those of modalities, or of columns of the training table. Any may be absent, None, NaN or blank. A picture
    is a path, bytes, an open file, a PIL image or an array; a sound a path, bytes, an open file or (array, rate); a text a
    str; a vector a list or an array; columns a dict.
    """

    def __init__(self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None) -> None:
        """Open the graphs of a verified bundle; `mla_serve.load` reads one from its folder."""
        self._asked: dict[str, Any] = {"device": device, "threads": threads}
        self._graphs = graphs.Predictor(bundle, providers_of(device), threads or cores())
        self._schema = _schema_of(bundle)
        self._columns = Columns(bundle.inputs, self._schema)
        self.name = bundle.manifest.name
        self.task = bundle.task
        self.classes = bundle.task.names
        self.modalities = {name: modality.kind for name, modality in bundle.manifest.modalities.items()}
        self.metrics = bundle.manifest.metrics
        self.folder = bundle.folder

    # An image, a text and so on are keywords; these are the types of what is returned for each kind of data.
    @overload
    def predict(
        self,
        data: None = ...,
        /,
        *,
        top_k: int | None = ...,
        fusion: str = ...,
        coverage: float | None = ...,
        folder: str | Path | None = ...,
        verbose: bool | None = ...,
        **sample: Value | Mapping[str, Any] | None,
    ) -> Prediction: ...
    @overload
    def predict(self, data: Mapping[str, Any], /, **options: Any) -> Prediction: ...
    @overload
    def predict(self, data: Sequence[Mapping[str, Any]], /, **options: Any) -> list[Prediction]: ...
    @overload
    def predict(self, data: Any, /, **options: Any) -> Any: ...
    def predict(
        self,
        data: Any = None,
        /,
        *,
        top_k: int | None = None,
        fusion: str = DEFAULT_RULE,
        coverage: float | None = None,
        folder: str | Path | None = None,
        verbose: bool | None = None,
        **sample: Any,
    ) -> Any:
        """Answer one sample or many.

        Args: top_k, list so many labels; fusion, the rule; coverage, also give the prediction set, or for a number the
        interval, that contains the truth so often; folder, that relative paths are relative to, by default the working directory; verbose, whether to
        show progress, by default on a terminal and in a notebook.
        Returns: a Prediction for one sample; a list of them for a list or a Hugging Face dataset; a data frame with the same
        index, or an Arrow table, for such a table, with whole numbers or truth values as labels where the table that the
        model was trained on had these. The columns depend on the task: label and probability, labels, or value and
        deviation. In a table a value that cannot be read leaves its row to the others, and
        the column `error` says why; a row without any has no answer.
        Raises: InputError for a sample that cannot be used (in a table: only for its columns and the options).
        """
        self._graphs.check_options(fusion, top_k, coverage)
        given = read_given(data, sample)
        answers = list(self._answers(given, folder, fusion, top_k, coverage, verbose))
        if given.form in ("pandas", "arrow"):
            columns = answer_columns(answers, self.task.name, self._graphs.names, coverage is not None)
            return to_table(given, columns, self._schema.label_type)
        predictions = [each.prediction for each in answers]
        return predictions[0] if given.form == "one" else predictions

    def predict_proba(
        self,
        data: Any = None,
        /,
        *,
        fusion: str = DEFAULT_RULE,
        folder: str | Path | None = None,
        verbose: bool | None = None,
        **sample: Any,
    ) -> Any:
        """Return the probability of each class or label, in the order of `classes`.

        Args: as of `predict`.
        Returns: an array (C,) for one sample, (B, C) for a list; a table with one column for each class for a table. The row of
        a table without an answer is NaN.
        Raises: as `predict`; InputError for a model of a number.
        """
        self._graphs.check_options(fusion, None, None)
        if not self.classes:
            raise InputError("predict_proba", "this model answers a number, which has no classes; call predict instead")
        given = read_given(data, sample)
        answers = list(self._answers(given, folder, fusion, len(self.classes), None, verbose))
        rows = np.full((len(answers), len(self.classes)), np.nan)
        for row, answer in zip(rows, answers, strict=True):
            if answer.prediction is not None:
                by_label = answer.prediction.by_label()
                row[:] = [by_label[label] for label in self.classes]
        if given.form in ("pandas", "arrow"):
            return to_class_table(given, rows, self.classes)
        return rows[0] if given.form == "one" else rows

    def embed(
        self, data: Any = None, /, *, folder: str | Path | None = None, verbose: bool | None = None, **sample: Any
    ) -> dict[str, Array]:
        """Return the features of each modality: {name: (D,)} for one sample, {name: (B, D)} for many, NaN where it is missing.

        Raises: InputError for a value that cannot be read.
        """
        given = read_given(data, sample)
        found: dict[str, dict[int, Array]] = {}
        count = 0
        for batch in self._decoded(given, folder, verbose):
            _raise_faults(batch, count, given)
            for name in self._graphs.names:
                if there := [at for at, (arrays, _) in enumerate(batch) if name in arrays]:
                    features = self._graphs.encode(name, [batch[at][0][name] for at in there])
                    found.setdefault(name, {}).update(zip((count + at for at in there), features, strict=True))
            count += len(batch)
        stacked = {name: _stack(features, count) for name, features in found.items()}
        return {name: rows[0] for name, rows in stacked.items()} if given.form == "one" else stacked

    def evaluate(
        self,
        data: Any,
        label: str | None = None,
        *,
        split: str | None = None,
        draws: int = DRAWS,
        folder: str | Path | None = None,
        verbose: bool | None = None,
    ) -> Evaluation:
        """Measure the model on labelled rows: as they are, with modalities left out, and by each modality alone.

        Args: data, a table, a list of dicts, or the path of a data set as `mla-serve evaluate --data` takes it; label, the
        column of the labels, by default that of the training table, or `label`; split, for a path, or for a column `split`;
        draws, random masks that each missing rate is averaged over; folder and verbose as of `predict`.
        Raises: DataError for rows that cannot be used.
        """
        run = self._run_split(data, label, split, folder, verbose)
        for note in run.notes:
            Screen(verbose).say(note)
        results = score_split(self._graphs, run, draws, SHOWN_RULES)
        more = measure_more(self._graphs, run, draws, SHOWN_RULES)
        return Evaluation(len(run.rows), self._graphs.task, draws, results["conditions"], more)

    def recalibrate(
        self,
        data: Any,
        label: str | None = None,
        *,
        out: str | Path,
        split: str | None = None,
        about: str | None = None,
        samples: bool = False,
        skip_bad: bool = False,
        folder: str | Path | None = None,
        verbose: bool | None = None,
    ) -> Predictor:
        """Fit the model to labelled rows, write it as a new bundle, and return that; its graphs stay as they are.

        This does what `mla-serve recalibrate` does, also where a table in memory has a column `split`: it is fitted to the rows
        val, and measured on the rows test. Without test rows it is measured on the rows that it is fitted to. That a table in
        memory is that of the training is not recognised; its rows are, where the bundle holds some of them.

        Args: data, label, folder and verbose as of `evaluate`; out, the folder of the new bundle; split, which rows are fitted,
        by default val, or all where there are no splits; about, Markdown in place of what the bundle says of itself; samples,
        whether its report may show rows of the data; skip_bad, leave out rows with faults.
        Raises: DataError for rows that cannot be used or are too few; ConfigError when `out` holds something else.
        """
        require_extra("train")
        from mla_serve.export.new_rows import NewRows, choose_split, read_new_rows
        from mla_serve.export.recalibrate import check_out, recalibrate

        base, path = self._graphs.bundle, Path(data) if isinstance(data, str | Path) else None
        with keyword_errors({"out": "Path", "split": "str", "label": "str"}):
            check_out(base, Path(out), path)
            if path:
                new = read_new_rows(base, path, split, TableOptions(label=label, skip_bad=skip_bad, advise=False))
            else:
                faults = Faults(Path(folder or ".").resolve(), [NAME], FaultPolicy(skip_bad=skip_bad, advise=False))
                splits = self._labelled_splits(read_given(data, {}), label, faults)
                new = NewRows.of_splits(splits, choose_split(splits, split, NAME), faults)
            told = None if about is None else parse_about(about)
            manifest = recalibrate(base, Path(out), new, told, samples=samples)
        for note in manifest.training["recalibrated"]["notes"]:
            Screen(verbose).say(note)
        return load(out, **self._asked)

    def _run_split(
        self, data: Any, label: str | None, split: str | None, folder: str | Path | None, verbose: bool | None
    ) -> SplitRun:
        quiet = not Screen(verbose).shown
        if isinstance(data, str | Path):
            return run_split(self._graphs, Path(data), split, quiet=quiet)
        faults = Faults(Path(folder or ".").resolve(), [NAME], FaultPolicy(advise=False))
        rows = self._labelled_rows(read_given(data, {}), label, split, faults)
        faults.raise_if_any()
        return run_rows(self._graphs, rows, split or NAME, "", faults, quiet=quiet)

    def _labelled_splits(self, given: Given, label: str | None, faults: Faults) -> dict[str, list[Row]]:
        """Read labelled samples into rows by their column `split`; all of them are one split where no such column names any.

        Raises: DataError for a cell that names no split.
        """
        samples = list(given.samples)
        cells = {number: cell for number, one in enumerate(samples, 1) if not is_missing(cell := one.get("split"))}
        rows = self._labelled_rows(dataclasses.replace(given, samples=samples), label, None, faults)
        if not holds_splits(cells.values()):
            return {NAME: rows}
        splits: dict[str, list[Row]] = {}
        for row in rows:
            cell = cells.get(row.place[1])
            if (name := split_named(str(cell))) is None:
                raise DataError(f"{NAME}:{row.place[1]}: split is {cell!r}, expected train, val or test; correct it")
            splits.setdefault(name, []).append(row)
        return splits

    def _labelled_rows(self, given: Given, label: str | None, split: str | None, faults: Faults) -> list[Row]:
        """Read labelled samples into rows; what cannot be read becomes a fault. Raises: DataError without a column of labels."""
        samples, rows = list(given.samples), []
        names = given.columns or tuple(dict.fromkeys(name for sample in samples for name in sample))
        columns = split_names(label or self._schema.label or "label", names)
        if lacking := [name for name in columns if name not in names]:
            raise DataError(f"no column {lacking[0]!r}; it has: {join_names(names)}; say which with label='COLUMN'")
        cells = [{name: to_cell(name, sample.get(name)) for name in columns} for sample in samples]
        there = [cell for each in cells if not is_missing(cell := each[columns[0]])]
        form, column = later_form(self._schema.label_form, columns, there), ", ".join(columns)
        for number, (sample, own) in enumerate(zip(samples, cells, strict=True), start=1):
            place = (NAME, number)
            if split is not None and str(sample.get("split")) != split:
                continue
            cell = form.find_cell(own, column)
            if form.is_missing(cell):
                faults.add(place, f"no label in the column {column!r}; fill it, or give label='COLUMN'")
                continue
            found = self._columns.read(sample, faults.folder, of_table=True)
            for modality, fault in found.faults.items():
                faults.add_value(place, modality, fault)
            with faults.collecting(place, column):
                read = complete_labels(form.read(cell), self._graphs.task.names)
                rows.append(Row(str(number), read, found.values, {}, {}, place))
        return rows

    def _answers(
        self,
        given: Given,
        folder: str | Path | None,
        fusion: str,
        top_k: int | None,
        coverage: float | None,
        verbose: bool | None,
    ) -> Iterator[Answered]:
        """Answer samples in batches. Raises: InputError for the first that cannot be used, unless they are rows of a table."""
        count = 0
        for batch in self._decoded(given, folder, verbose):
            if given.form not in ("pandas", "arrow"):
                _raise_faults(batch, count, given)
            usable = [arrays for arrays, _ in batch if arrays]
            found = iter(self._graphs.predict_decoded(usable, fusion, top_k, coverage))
            for at, (arrays, faults) in enumerate(batch):
                answer = next(found) if arrays else None
                if not isinstance(answer, InputError):
                    yield Answered(answer, faults)
                    continue
                if given.form not in ("pandas", "arrow"):
                    raise _located(answer.field, answer.message, count + at, given)
                yield Answered(None, {**faults, answer.field: answer.message})
            count += len(batch)

    def _decoded(
        self, given: Given, folder: str | Path | None, verbose: bool | None
    ) -> Iterator[list[tuple[dict[str, Array], dict[str, str]]]]:
        """Read and decode samples in batches: for each its arrays and its faults, both by modality."""
        self._check_columns(given)
        base = Path(folder or ".")
        with Screen(verbose).bar("predicting", given.count) as advance:
            samples = iter(given.samples)
            while batch := list(itertools.islice(samples, BATCH)):
                decoded = [self._decode(sample, base, given.columns is None) for sample in batch]
                for _ in decoded:
                    advance()
                yield decoded

    def _check_columns(self, given: Given) -> None:
        if given.columns is not None and (unused := self._columns.check_table(given.columns)):
            log.info("columns that %s does not read: %s", self.name, ", ".join(unused))

    def _decode(self, sample: Mapping[str, Any], folder: Path, strict: bool) -> tuple[dict[str, Array], dict[str, str]]:
        """Decode one sample. Args: strict, refuse unknown names: the columns of a table were checked before."""
        if strict:
            self._columns.check_names(sample.keys())
        found = self._columns.read(sample, folder, of_table=not strict)
        arrays, faults = {}, dict(found.faults)
        for name in self._graphs.names:
            if name in found.values:
                try:
                    arrays[name] = self._graphs.decode_one(name, read_payload(found.values[name]))
                except InputError as error:
                    faults[name] = error.message
                except DataError as error:
                    faults[name] = str(error)
        if not arrays and not faults:
            names = ", ".join(self._graphs.names)
            faults[self._graphs.names[0]] = f"{NOTHING}{names}"
        return arrays, faults

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the files of the bundle, so that a copy needs no folder: scikit-learn copies models to processes."""
        bundle = self._graphs.bundle
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        files[MANIFEST] = (bundle.manifest.model_dump_json() + "\n").encode()
        return _restore, (files, self._asked)

    def __repr__(self) -> str:
        """Write the name, the modalities and what is answered in one line."""
        reads = ", ".join(f"{name} ({kind})" for name, kind in self.modalities.items())
        return f"<Predictor {self.name!r}: reads {reads}; answers {self.task.describe()}>"

    def _repr_html_(self) -> str:
        """Draw the modalities and what is answered, for a notebook."""
        rows = [[escape(name), escape(kind)] for name, kind in self.modalities.items()]
        classes = ", ".join(self.classes[:20]) + (" ..." if len(self.classes) > 20 else "")
        head = f"<div><b>{escape(self.name)}</b> answers {escape(self.task.describe())}: {escape(classes)}</div>"
        return FRAME.format(head + table(("modality", "kind"), rows))


NOTHING = "nothing was given; give at least one of "


def _schema_of(bundle: Bundle) -> Schema:
    """Return what each column of the training table is; empty for a bundle of an older version."""
    stored: Mapping[str, Any] | None = getattr(bundle.manifest, "table", None)
    return Schema.from_dict(stored) if stored else Schema()


def _restore(files: Mapping[str, bytes], asked: Mapping[str, Any]) -> Predictor:
    """Rebuild a pickled predictor. The bundle is in memory, so the folder that it is read from can go."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load(folder, **asked)


def _raise_faults(batch: Sequence[tuple[Mapping[str, Array], Mapping[str, str]]], first: int, given: Given) -> None:
    """Raise the first fault of a batch. Args: first, the number of its first sample."""
    for at, (_, faults) in enumerate(batch):
        for name, fault in faults.items():
            raise _located(name, fault, first + at, given)


def _located(name: str, message: str, number: int, given: Given) -> InputError:
    field = name if given.form == "one" else f"sample {number}, {name}"
    return MissingInput(field, message) if message.startswith(NOTHING) else InputError(field, message)


def _stack(features: Mapping[int, Array], count: int) -> Array:
    """Put the features of some samples into rows (B, D); the rows of the others are NaN."""
    rows = np.full((count, len(next(iter(features.values())))), np.nan, dtype=np.float32)
    for at, one in features.items():
        rows[at] = one
    return rows
