"""Infer what a column holds. RULES are asked in their order, and the first that answers decides.

A rule looks at all cells of a column together and at nothing else, so that the order of the rows does not matter.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from mla_serve.table.cells import parse_numbers
from mla_serve.table.faults import InvalidValue, abbreviate
from mla_serve.table.files import embedded_content, find_file, is_url, kind_of_content, kind_of_suffix
from mla_serve.table.scalars import (
    NUMERIC_DATE,
    are_yes_no,
    find_day_first,
    find_number_format,
    has_leading_zero,
    is_not_available,
    is_phone_number,
    looks_like_number,
    parse_date,
    parse_number,
    parse_yes_no,
)
from mla_serve.table.schema import CELL_KINDS, ColumnRole

MOST = 0.95  # of the cells of a column that must be of a kind; the others are faults
FEW_VALUES = 0.5  # values per row up to which they are categories
NEARLY_ALL = 0.9  # values per row from which one-word values are taken for ids
ROWS_TO_JUDGE = 10  # with fewer, that every value is different says little
MANY_WORDS = 8  # words of an average cell: text, even where texts repeat
LONG = 30  # characters of an average cell that is text
RARE = 0.01  # share of the rows with a value, below which a column of scalars is ignored
CODE_NAMES = re.compile(r"(^|[_\W])(zip|postal|postcode|plz|code|zipcode|fips|isbn|ean|sku)s?($|[_\W])", re.IGNORECASE)
ID_NAMES = re.compile(
    r"(^|.*[_\W])(id|uid|uuid|guid|key|index)|(?-i:.*[a-z]I[dD])|(user|customer|order|item|product|patient)id"
    r"|unnamed: 0|rownum|row|no|nr|number",
    re.IGNORECASE,
)
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Column:
    """The cells of a column that are not missing. rows: number of all rows; folder: paths are relative to it."""

    name: str
    cells: Sequence[Any]
    rows: int
    folder: Path

    @functools.cached_property
    def texts(self) -> Counter[str]:
        """Different texts with their numbers of rows; empty if any cell is no text.

        Numbers and dates beside texts, such as 12.5 beside "N/A" in Excel, count as texts.
        """
        types = str | int | float | date
        texts = any(isinstance(cell, str) for cell in self.cells)
        if not texts or not all(isinstance(cell, types) and not isinstance(cell, bool) for cell in self.cells):
            return Counter()
        return Counter(str(cell).strip() for cell in self.cells)

    @functools.cached_property
    def scalars(self) -> Counter[str]:
        """Different texts, without words for a missing cell."""
        return Counter({text: count for text, count in self.texts.items() if not is_not_available(text)})

    @functools.cached_property
    def different(self) -> int:
        """Number of different cells."""
        return len(self.texts) if self.texts else len({_hashable(cell) for cell in self.cells})

    @property
    def missing(self) -> int:
        """Number of rows without a cell."""
        return self.rows - len(self.cells)

    def holds(self, *types: type) -> bool:
        """Return whether every cell is of one of these types."""
        return all(isinstance(cell, types) for cell in self.cells)


Rule = Callable[[Column], ColumnRole | None]


def infer_role(column: Column) -> ColumnRole:
    """Return what a column holds. Raises: InvalidValue for a column that has to be changed or left out first."""
    answers = (rule(column) for rule in RULES)
    return next(answer for answer in answers if answer)


def force_role(column: Column, kind: str) -> ColumnRole:
    """Return the role of a column of which the user says the kind; only how it is written is inferred."""
    if kind in ("ignore", "id"):
        return ColumnRole(column.name, "ignored" if kind == "ignore" else "id", reason=f"{kind}, as you say")
    if kind in ("image", "audio"):  # files that are not there are faults of their rows
        return _file_role(column, kind, _find_subfolder(column) or "")
    details = {"number": _number_details, "date": _date_details}.get(kind)
    role = ColumnRole(column.name, kind, reason=_count(column, kind))
    return details(column, role) if details else role


def infer_cell_role(column: Column) -> ColumnRole:
    """Return what a column that belongs to a modality of kind `columns` holds."""
    answers = (rule(column) for rule in (_truth_values, _dates, _yes_no_words, _numbers))
    found = next((answer for answer in answers if answer and answer.role in CELL_KINDS), None)
    return found or force_role(column, "category")


def _empty(column: Column) -> ColumnRole | None:
    return None if column.cells else _ignored(column, "no row has a value")


def _embedded_files(column: Column) -> ColumnRole | None:
    """Files inside the table: bytes, or {"bytes": ..., "path": ...} as Hugging Face data sets store them."""
    files = [embedded_content(cell) for cell in column.cells if isinstance(cell, bytes | dict)]
    if len(files) < len(column.cells) or not any(files):
        return None
    kinds = Counter(kind_of_content(file) for file in files if file)
    kind = min(kinds, key=lambda kind: (-kinds[kind], str(kind)))
    if kind is None:
        return _ignored(column, "bytes that are neither a picture nor a recording")
    return ColumnRole(column.name, kind, reason=_count(column, kind))


def _nested(column: Column) -> ColumnRole | None:
    nested = column.holds(dict) or (column.texts and all(_is_json_object(text) for text in column.texts))
    return _ignored(column, "nested fields; name one in dataset.json to use it") if nested else None


def _lists(column: Column) -> ColumnRole | None:
    if not column.holds(list):
        return None
    if all(all(type(item) in (int, float) for item in cell) for cell in column.cells):
        return ColumnRole(column.name, "vector", reason=_count(column, "vector"))
    return _ignored(column, "lists of something else than numbers")


def _truth_values(column: Column) -> ColumnRole | None:
    return ColumnRole(column.name, "yes_no", reason=_count(column, "yes_no")) if column.holds(bool) else None


def _urls(column: Column) -> ColumnRole | None:
    """Web addresses. Those of pictures and recordings were meant to be used, so they are refused."""
    if not _mostly(column.texts, is_url):
        return None
    one = min(column.texts)
    if any(kind_of_suffix(text.partition("?")[0]) in ("image", "audio") for text in column.texts):
        raise InvalidValue(
            f"{abbreviate(one)} is a web address, and nothing is fetched from the web; "
            f"download the files and write their paths, or leave the column out with --kinds {column.name}=ignore"
        )
    return _ignored(column, "web addresses, and nothing is fetched from the web")


def _file_paths(column: Column) -> ColumnRole | None:
    """Paths of pictures or recordings: by suffix, or because they are files of the folder."""
    suffixes = Counter(kind_of_suffix(text) for text in column.texts)
    kind = max(("image", "audio", "video"), key=lambda kind: suffixes[kind])
    if suffixes[kind] and suffixes[kind] >= MOST * len(column.texts):
        if kind == "video":
            return _ignored(column, "videos, which are not read yet")
        return _files(column, kind)
    some = sorted(text for text in column.texts if "/" in text or "\\" in text or "." in text)[:20]
    found = [file for text in some if (file := find_file(text, column.folder))]
    if not some or len(found) < MOST * len(some) or len(some) < MOST * min(20, len(column.texts)):
        return None
    kinds = {kind_of_content(file.read_bytes()) for file in found}
    kind_found = kinds.pop() if len(kinds) == 1 else None
    return _files(column, kind_found) if kind_found else _ignored(column, "files that are no pictures or recordings")


def _vectors(column: Column) -> ColumnRole | None:
    """Lists of numbers as text: of brackets, or of one length of three at least."""
    if not column.texts or not all(re.match(r"[\[(]|[-+.\d]", text) for text in column.texts):
        return None
    if _mostly(column.texts, is_phone_number):
        return None
    try:
        lengths = {len(_numbers_in(text)) for text in column.texts}
    except ValueError:
        return None
    bracketed = all(text[0] in "[(" for text in column.texts)
    if bracketed or (len(lengths) == 1 and min(lengths) >= 3 and not _are_numbers(column)):
        return ColumnRole(column.name, "vector", reason=_count(column, "vector"))
    return None


def _dates(column: Column) -> ColumnRole | None:
    if column.cells and column.holds(date):
        return ColumnRole(column.name, "date", reason=_count(column, "date"))
    day_first = bool(find_day_first(column.scalars))
    if not _mostly(column.scalars, lambda text: parse_date(text, day_first=day_first) is not None):
        return None
    return _date_details(column, ColumnRole(column.name, "date"))


def _yes_no_words(column: Column) -> ColumnRole | None:
    if not column.texts or not are_yes_no(column.texts):
        return None
    return ColumnRole(column.name, "yes_no", reason=_count(column, "yes_no"))


def _tick_boxes(column: Column) -> ColumnRole | None:
    """One mark or word for yes in some rows, and nothing in the others."""
    many = len(column.cells) >= RARE * column.rows
    if not column.missing or not many or column.different > 1 or parse_yes_no(column.cells[0]) is not True:
        return None
    return ColumnRole(column.name, "yes_no", reason=f"{_count(column, 'yes_no')}, always {column.cells[0]!r} or empty")


def _running_numbers(column: Column) -> ColumnRole | None:
    """Whole numbers that are all different and without gaps, or that are called an id."""
    numbers = _whole_numbers(column)
    if not numbers or len(set(numbers)) < len(column.cells) or column.missing or len(numbers) < 2:
        return None
    running = max(numbers) - min(numbers) == len(numbers) - 1 and min(numbers) in (0, 1)
    if ID_NAMES.fullmatch(column.name) or (running and len(numbers) >= ROWS_TO_JUDGE):
        return _ignored(column, "every value is different")
    return None


def _codes(column: Column) -> ColumnRole | None:
    """Numbers that name something, such as zip codes and phone numbers."""
    if not _are_codes(column):
        return None
    if column.different > NEARLY_ALL * len(column.cells):
        return _ignored(column, f"numbers that are codes, nearly all different ({column.different:,} values)")
    return ColumnRole(column.name, "category", reason=_count(column, "category") + ", numbers that are codes")


def _are_codes(column: Column) -> bool:
    """Return whether whole numbers have leading zeros or one width, or the column a name of codes.

    If most values are different, only leading zeros count, in most cells or in numbers of one width.
    """
    if _mostly(column.texts, is_phone_number):
        return True
    if not _whole_numbers(column):
        return False
    digits = Counter(str(cell).strip() for cell in column.cells)
    one_width = len({len(text) for text in digits}) == 1 and len(min(digits)) >= 5
    if column.different <= FEW_VALUES * len(column.cells):
        return bool(one_width or has_leading_zero(digits) or CODE_NAMES.search(column.name))
    return (one_width and has_leading_zero(digits)) or _mostly(digits, lambda text: has_leading_zero([text]))


def _numbers(column: Column) -> ColumnRole | None:
    if column.holds(int, float):
        return ColumnRole(column.name, "number", reason=_count(column, "number"))
    return _number_details(column, ColumnRole(column.name, "number")) if _are_numbers(column) else None


def _are_numbers(column: Column) -> bool:
    """Return whether nearly all texts are numbers of one notation and one unit."""
    if not _mostly(column.scalars, looks_like_number):
        return False
    form = find_number_format(column.scalars)
    return _mostly(column.scalars, lambda text: parse_number(text, form) is not None)


def _ids(column: Column) -> ColumnRole | None:
    """One-word values that are (nearly) all different."""
    if not column.texts or any(re.search(r"\s", text) or len(text) > 64 for text in column.texts):
        return None
    many = len(column.cells) >= ROWS_TO_JUDGE and not _looks_written(column)
    if column.different == len(column.cells) and (many or ID_NAMES.fullmatch(column.name)):
        return _ignored(column, "every value is different" + _example(column))
    if many and column.different > NEARLY_ALL * len(column.cells):
        return _ignored(column, f"nearly every value is different ({column.different:,} values){_example(column)}")
    return None


def _texts(column: Column) -> ColumnRole | None:
    if not column.texts:
        return None
    words = _mean(column, _count_words)
    varied = column.different > FEW_VALUES * len(column.cells)
    free = words >= MANY_WORDS and column.different > 20
    if free or (varied and (words >= 2 or _mean(column, len) > LONG)):
        return ColumnRole(column.name, "text", reason=_count(column, "text"))
    return None


def _categories(column: Column) -> ColumnRole | None:
    if not column.holds(str, int, float, bool):
        return None
    return ColumnRole(column.name, "category", reason=_count(column, "category") + _example(column))


def _mixed(column: Column) -> ColumnRole | None:
    types = ", ".join(sorted({type(cell).__name__ for cell in column.cells}))
    return _ignored(column, f"cells of different types ({types})")


def _without_information(rule: Rule) -> Rule:
    """Ignore a column of scalars that a rule finds if it is constant or nearly empty."""

    def answer(column: Column) -> ColumnRole | None:
        found = rule(column)
        if found is None or found.role not in CELL_KINDS:
            return found
        values = column.scalars if column.scalars else column.cells
        if len(values if isinstance(values, Counter) else {_hashable(cell) for cell in values}) <= 1:
            return _ignored(column, "the same value in every row that has one")
        if len(column.cells) < RARE * column.rows:
            return _ignored(column, f"only {len(column.cells):,} of {column.rows:,} rows have a value")
        return found

    return answer


RULES: tuple[Rule, ...] = (
    _empty,
    _embedded_files,
    _nested,
    _lists,
    _urls,
    _file_paths,
    _vectors,
    _running_numbers,
    _tick_boxes,
    *map(
        _without_information,
        (_truth_values, _dates, _yes_no_words, _codes, _numbers, _ids, _texts, _categories),
    ),
    _mixed,
)


def _files(column: Column, kind: str) -> ColumnRole:
    """Return the role of a column of paths. Raises: InvalidValue if none of the files is there."""
    subfolder = _find_subfolder(column)
    if subfolder is None:
        raise InvalidValue(
            f"none of its files is in {column.folder}, such as {abbreviate(min(column.texts))}; put them there, correct "
            f"the paths, or leave the column out with --kinds {column.name}=ignore"
        )
    return _file_role(column, kind, subfolder)


def _file_role(column: Column, kind: str, subfolder: str) -> ColumnRole:
    where = f", in {subfolder}/" if subfolder else ""
    return ColumnRole(column.name, kind, reason=_count(column, kind) + where, subfolder=subfolder)


def _find_subfolder(column: Column) -> str | None:
    """Return "" if paths are relative to the folder, else the one subfolder that holds them; None if there is none."""
    paths, folder = sorted(column.texts)[:200], column.folder
    if any(find_file(path, folder) for path in paths):
        return ""
    subfolders = sorted(entry.name for entry in folder.glob("[!.]*/")) if folder.is_dir() else []
    holding = [name for name in subfolders if any(find_file(path, folder, name) for path in paths)]
    return holding[0] if len(holding) == 1 else None


def _number_details(column: Column, role: ColumnRole) -> ColumnRole:
    """Add how the numbers are written, and say what is not obvious of it."""
    form = find_number_format(column.scalars)
    said = [_count(column, "number"), *_not_available(column)]
    said += ["decimal commas"] * form.decimal_comma + ["separators of thousands"] * form.grouped
    said += [f"without the unit {form.unit!r}"] if form.unit else []
    return replace(role, reason=", ".join(said), decimal_comma=form.decimal_comma, unit=form.unit)


def _date_details(column: Column, role: ColumnRole) -> ColumnRole:
    """Add whether days come before months, and say so where no date tells."""
    numeric = [text for text in column.scalars if NUMERIC_DATE.match(text)]
    said = [_count(column, "date"), *_not_available(column)]
    day_first = find_day_first(column.scalars)
    if numeric and day_first is None:
        said.append(f"{min(numeric)} read with the month first; write year-month-day if that is wrong")
    elif numeric:
        said.append("day first" if day_first else "month first")
    return replace(role, reason=", ".join(said), day_first=bool(day_first))


def _not_available(column: Column) -> list[str]:
    words = sorted(text for text in column.texts if is_not_available(text))
    return [f"{', '.join(map(repr, words))} read as missing"] if words else []


def _count(column: Column, kind: str) -> str:
    """Say how many values there are and how many are missing, such as "category, 212 values, 34 % missing"."""
    nouns = {"image": "picture", "audio": "recording", "text": "text", "vector": "vector"}
    if kind in nouns:
        count = len(column.cells)
        said = f"{count:,} {nouns[kind]}{'' if count == 1 else 's'}"
        return said + (f", {column.missing:,} missing" if column.missing else "")
    absent = sum(column.texts.values()) - sum(column.scalars.values()) if kind in ("number", "date") else 0
    said = kind.replace("_", "/") + (f", {column.different:,} values" if kind == "category" else "")
    share = (column.missing + absent) / max(1, column.rows)
    return said + (f", {max(1, round(100 * share))} % missing" if share else "")


def _example(column: Column) -> str:
    """Show a value of many with digits, which may be meant as numbers or dates in a form that is not read."""
    digits = [text for text in column.texts if re.search(r"\d", text)]
    few = column.different <= FEW_VALUES * len(column.cells)
    return "" if few or len(digits) < column.different / 2 else f", such as {abbreviate(min(digits))}"


def _ignored(column: Column, reason: str) -> ColumnRole:
    return ColumnRole(column.name, "ignored", reason=f"ignored, {reason}")


def _mostly(texts: Mapping[str, int], test: Callable[[str], bool]) -> bool:
    """Return whether nearly all cells pass a test, and all of them where there are few."""
    passed = sum(count for text, count in texts.items() if test(text))
    return bool(texts) and passed >= MOST * sum(texts.values())


def _mean(column: Column, measure: Callable[[str], float]) -> float:
    return sum(measure(text) * count for text, count in column.texts.items()) / len(column.cells)


def _count_words(text: str) -> float:
    """Count words; languages without blanks have about two characters per word."""
    return max(len(text.split()), len(CJK.findall(text)) / 2)


def _looks_written(column: Column) -> bool:
    """Return whether cells without blanks are text: long ones, in a language without blanks, or plain words."""
    return _mean(column, _count_words) >= 2


def _whole_numbers(column: Column) -> list[int]:
    """Return the cells as whole numbers; empty if they are not."""
    if column.holds(int) and not any(isinstance(cell, bool) for cell in column.cells):
        return list(column.cells)
    plain = column.texts and all(re.fullmatch(r"\d{1,18}", text) for text in column.texts)
    return [int(cell) for cell in column.cells] if plain else []


def _numbers_in(text: str) -> list[float]:
    """Return a list of numbers that is written as text. Raises: ValueError."""
    numbers = parse_numbers(text)
    if not isinstance(numbers, list) or not numbers or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(text)
    return numbers


def _is_json_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _hashable(cell: object) -> object:
    return cell if isinstance(cell, str | int | float | bytes | date) else repr(cell)
