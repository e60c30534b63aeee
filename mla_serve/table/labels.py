"""The column of the labels: which one it is, and how its cells are written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from mla_serve.table.cells import is_missing
from mla_serve.table.faults import InvalidValue, abbreviate, join_names
from mla_serve.table.label_forms import UNKNOWN, LabelForm, is_list
from mla_serve.table.scalars import find_number_format, has_leading_zero, parse_number, parse_yes_no

LABEL_NAMES = (
    "label", "labels", "target", "class", "category", "y", "species", "outcome", "diagnosis", "sentiment",
)  # fmt: skip
"""Usual names of the column of the labels, in lower case."""
MOST_CLASSES = 1000  # values of a column that is listed as a candidate
FEW_NUMBERS = 20  # different numbers that are taken for classes in any case
SEPARATORS = ("|", ";", ",")
OFTEN = 0.05  # of the cells that must hold a separator
RECURRING = 0.9  # of the labels that must occur in several different cells
LONGEST = 60  # characters of a label

Columns = Mapping[str, Sequence[object]]
"""Column -> its cells that are not missing."""


def find_label(columns: Columns, asked: str | None) -> tuple[str, ...]:
    """Return the column of the labels: the one asked for, or the only one with a usual name.

    Args: asked, a column, or several separated by commas, each of one label.
    Raises: InvalidValue with the candidates.
    """
    if asked is not None:
        return _find_asked(columns, asked)
    if "label" in columns:
        return ("label",)
    usual = [name for name in columns if name.strip().lower() in LABEL_NAMES]
    if len(usual) == 1:
        return (usual[0],)
    found = (
        f"{join_names(usual)} might each be the column of the labels"
        if usual
        else "no column is called label, or has another usual name of the column of the labels"
    )
    raise InvalidValue(f"{found}; it has: {join_names(columns)}; {_candidates(columns)}")


def _find_asked(columns: Columns, asked: str) -> tuple[str, ...]:
    several = split_names(asked, columns)
    lacking = [name for name in several if name not in columns]
    if not lacking:
        return several
    raise InvalidValue(
        f"no column {join_names([repr(name) for name in lacking])}; it has: {join_names(columns)}; {_candidates(columns)}"
    )


def split_names(asked: str, columns: Collection[str]) -> tuple[str, ...]:
    """Return the column that is asked for, or several that are separated by commas. Args: columns, of the table."""
    if asked in columns or "," not in asked:
        return (asked,)
    return tuple(dict.fromkeys(part.strip() for part in asked.split(",") if part.strip()))


def _candidates(columns: Columns) -> str:
    """Name the columns of few repeated values, with their number of values."""
    counts = {name: len(set(map(str, cells))) for name, cells in columns.items()}
    few = {name: n for name, n in counts.items() if 2 <= n <= min(MOST_CLASSES, len(columns[name]) // 2)}
    named = join_names([f"{name} ({count} values)" for name, count in sorted(few.items(), key=lambda item: item[1])])
    return f"say which with --label COLUMN, such as {named}" if few else "say which with --label COLUMN"


def infer_form_of_columns(columns: Columns, task: str | None) -> LabelForm:
    """Return the form of labels that have a column each, which says yes or no. Raises: InvalidValue."""
    if task not in (None, "labels"):
        raise InvalidValue(
            f"{len(columns)} columns of labels, {join_names(columns)}, and the task {task}; name one column"
        )
    for name, cells in columns.items():
        wrong = [cell for cell in cells if not is_missing(cell) and cell != UNKNOWN and parse_yes_no(cell) is None]
        if 2 * len(wrong) > len(cells) or not cells:
            given = f"such as {abbreviate(wrong[0])}" if wrong else "that are all empty"
            raise InvalidValue(
                f"{name!r}: expected yes or no in each of several columns of labels, got cells {given}; name one column of labels"
            )
        if len({parse_yes_no(cell) for cell in cells} - {None}) < 2:
            raise InvalidValue(
                f"{name!r}: the same in every cell that is not empty, and an empty one means not known; write yes and no"
            )
    return LabelForm("labels", columns=tuple(columns))


def infer_form(name: str, cells: Sequence[object], task: str | None, separator: str | None) -> LabelForm:
    """Return how the labels of a column are written. Args: task, separator: as the user says; None: infer them.

    Raises: InvalidValue for a column that cannot be learned.
    """
    if separator:
        if task not in (None, "labels"):
            raise InvalidValue(
                f"a separator of labels was given, and the task {task}; only the task labels has several"
            )
        if not any(isinstance(cell, str) and separator in cell for cell in cells):
            raise InvalidValue(f"no cell of {name!r} holds the separator {separator!r}; correct it, or leave it out")
        return LabelForm("labels", separator=separator)
    given = [cell for cell in cells if not is_missing(cell)]
    if not given:
        raise InvalidValue(f"no row has a label in {name!r}; fill the column, or choose another with --label")
    return FORMS[task](given) if task else _infer(name, given)


def _infer(name: str, cells: Sequence[object]) -> LabelForm:
    """Return the form that most cells show; the others are faults. Raises: InvalidValue."""
    if 2 * sum(map(_is_labels, cells)) > len(cells):
        return _labels_form(cells)
    if _are_many_numbers(cells):
        _check_not_running(name, cells)
        return _number_form(cells)
    texts = Counter(cell.strip() for cell in cells if isinstance(cell, str))
    separators = [one for one in SEPARATORS if _separates(texts, one)]
    return LabelForm("labels", separator=separators[0]) if separators else LabelForm()


def _classes_form(cells: Sequence[object]) -> LabelForm:  # noqa: ARG001
    return LabelForm()


def _labels_form(cells: Sequence[object]) -> LabelForm:
    """Return lists, or the separator that occurs, the first of SEPARATORS."""
    if 2 * sum(map(_is_labels, cells)) > len(cells):
        return LabelForm("labels", lists=True)
    found = [one for one in SEPARATORS if any(isinstance(cell, str) and one in cell for cell in cells)]
    return LabelForm("labels", separator=found[0] if found else "")


def _number_form(cells: Sequence[object]) -> LabelForm:
    """Return how most numbers are written."""
    texts = Counter(cell.strip() for cell in cells if isinstance(cell, str))
    form = find_number_format(texts)
    written = (re.search(re.escape(form.unit), text, re.IGNORECASE) for text in texts)  # the unit is in lower case
    unit = next((found[0] for found in written if found), form.unit)
    return LabelForm("number", decimal_comma=form.decimal_comma, unit=unit)


FORMS: Mapping[str, Callable[[Sequence[object]], LabelForm]] = {
    "classes": _classes_form,
    "labels": _labels_form,
    "number": _number_form,
}
"""Task -> how its labels are written in these cells."""


def _is_labels(cell: object) -> bool:
    return is_list(cell) or isinstance(cell, Mapping)


def _number_reader(cells: Sequence[object]) -> Callable[[object], bool]:
    """Return a function that tells whether a cell is a number, written as most of these are."""
    form = _number_form(cells)

    def is_number(cell: object) -> bool:
        if isinstance(cell, str):
            return parse_number(cell, form.number_format) is not None
        return isinstance(cell, int | float) and not isinstance(cell, bool)

    return is_number


def _are_many_numbers(cells: Sequence[object]) -> bool:
    """Return whether most cells are numbers, too many different ones to be classes."""
    numbers = [str(cell).strip() for cell in filter(_number_reader(cells), cells)]
    if 2 * len(numbers) <= len(cells) or has_leading_zero(numbers):
        return False
    whole = all(re.fullmatch(r"[-+]?\d+(\.0*)?", text) for text in numbers)
    return len(set(numbers)) > (max(FEW_NUMBERS, len(cells) // 3) if whole else FEW_NUMBERS)


def _check_not_running(name: str, cells: Sequence[object]) -> None:
    """Refuse whole numbers that are all different and without gaps. Raises: InvalidValue."""
    if not all(
        type(cell) is int or (isinstance(cell, str) and re.fullmatch(r"\d{1,18}", cell.strip())) for cell in cells
    ):
        return
    numbers = sorted(int(str(cell)) for cell in cells)
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        raise InvalidValue(
            f"{name!r} numbers its rows, {numbers[0]:,} to {numbers[-1]:,}; choose another column with --label, or say --task "
            "number if that is to be predicted"
        )


def _separates(texts: Counter[str], separator: str) -> bool:
    """Return whether it is clear that a separator stands between labels.

    Many cells must hold it, the number of labels must vary, and nearly all labels of these cells must occur in other cells too.
    """
    split = {text: _parts(text, separator) for text in texts}
    several = [text for text, parts in split.items() if len(parts) > 1]
    times = Counter(part for parts in split.values() for part in set(parts))
    parts = {part for text in several for part in split[text]}
    often = sum(texts[text] for text in several) >= OFTEN * texts.total()
    varied = len({len(found) for found in split.values()}) > 1
    recurring = sum(times[part] > 1 for part in parts) >= RECURRING * len(parts)
    return bool(several) and often and varied and recurring and max(map(len, parts)) <= LONGEST


def later_form(form: LabelForm, names: Sequence[str], cells: Sequence[object]) -> LabelForm:
    """Return how a later table writes the labels of a model: as several columns, lists or texts, whatever training had.

    Args: form, of training; names, columns of the labels; cells, of the first one that are not missing.
    """
    if form.task != "labels":
        return form
    if len(names) > 1:
        return LabelForm("labels", columns=tuple(names))
    written = FORMS["labels"](cells)
    return form if form.lists == written.lists and not form.columns else written


def _parts(text: str, separator: str) -> list[str]:
    """Return the labels of a cell, also those that are not known."""
    return [name for part in text.split(separator) if (name := part.strip().removeprefix(UNKNOWN))]


def type_of_labels(cells: Sequence[object]) -> str:
    """Return "int" or "bool" for labels that are all whole numbers or truth values, not texts; else ""."""
    if cells and all(isinstance(cell, bool) for cell in cells):
        return "bool"
    whole = all(type(cell) is int or (isinstance(cell, float) and cell.is_integer()) for cell in cells)
    return "int" if cells and whole else ""
