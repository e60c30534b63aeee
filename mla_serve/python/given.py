"""What a caller gives at once: one sample, several, or a table of another library. Those libraries need not be installed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Literal

from mla_serve.errors import InputError

Form = Literal["one", "list", "pandas", "arrow"]
EXPECTED = (
    "give one sample, such as text='seven' or {'text': 'seven'}, a list of such dicts, a pandas or pyarrow table, or a "
    "Hugging Face dataset"
)


@dataclasses.dataclass(frozen=True)
class Given:
    """Samples {name: value}, and what they came as.

    columns: the names of a table; None where each sample has its own. index: of a pandas table. count: None if not known.
    """

    form: Form
    samples: Iterable[Mapping[str, Any]]
    columns: tuple[str, ...] | None = None
    index: Any = None
    count: int | None = None


def read_given(data: Any, keywords: Mapping[str, Any]) -> Given:
    """Find out what was given: data, or the keywords of one sample.

    Raises: InputError for both at once, for neither, and for what is no sample and no table.
    """
    if data is None:
        return Given("one", [_by_name(keywords)], count=1)
    if keywords:
        raise InputError(next(iter(keywords)), "got a sample or table as well; give either that or keywords")
    if is_frame(data):
        return Given("pandas", _rows_of_frame(data), _columns(data.columns), data.index, len(data))
    if _is_of("pyarrow", "Table", data):
        return Given("arrow", _rows_of_arrow(data), _columns(data.column_names), count=len(data))
    if isinstance(data, Mapping) or hasattr(data, "items"):  # a row of a data frame is no Mapping, but has items
        return Given("one", [_by_name(dict(data.items()))], count=1)
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise InputError("data", f"got {_type_name(data)}; {EXPECTED}")
    names = getattr(data, "column_names", None)  # of a Hugging Face dataset
    columns = _columns(names) if isinstance(names, list) else None
    return Given("list", map(_checked, data), columns, count=len(data) if isinstance(data, Sized) else None)


def is_frame(value: object) -> bool:
    """Return whether this is a data frame of pandas, without importing pandas."""
    return _is_of("pandas", "DataFrame", value)


def _is_of(module: str, cls: str, value: object) -> bool:
    """Return whether a value is of a class, without importing its module: it is imported if there is such a value."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, cls, ()))


def _columns(names: Iterable[object]) -> tuple[str, ...]:
    columns = tuple(map(str, names))
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise InputError(twice[0], "two columns have this name; rename one")
    return columns


def _rows_of_frame(frame: Any) -> Iterator[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    for row in frame.itertuples(index=False, name=None):
        yield dict(zip(names, row, strict=True))


def _rows_of_arrow(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=256):
        yield from batch.to_pylist()


def _checked(sample: object) -> Mapping[str, Any]:
    if isinstance(sample, Mapping):
        return _by_name(sample)
    raise InputError("data", f"expected a list of samples, each a dict, got {_type_name(sample)} in it; {EXPECTED}")


def _by_name(sample: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in sample.items()}


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
