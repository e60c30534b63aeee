"""Tell how a CSV file separates and quotes its cells.

csv.Sniffer guesses from the frequency of characters and is often wrong on texts. Here the beginning of the file is read with
each candidate, and the one counts whose rows agree with the header.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mla_serve.table.faults import BrokenTable, abbreviate

SAMPLE = 2**18
"""Characters that are read to tell the dialect."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Separators -> their names; the first of several that fit equally well is taken."""
SEP_LINE = re.compile(r'"?sep=(.)"?[;,\t]*\r?\n', re.IGNORECASE)
"""A first line that tells Excel the separator."""


@dataclass(frozen=True)
class Dialect:
    """How cells are separated and quoted; lines to pass over before the header."""

    separator: str = ","
    quoting: Any = csv.QUOTE_MINIMAL
    escape: str | None = None
    skip_blanks: bool = False
    skipped_lines: int = 0

    @property
    def separators(self) -> str:
        """The name of the separator, in the plural."""
        return SEPARATORS.get(self.separator, repr(self.separator))

    def reader(self, text: Iterable[str]) -> Any:
        """Return a csv.reader of these rules; quotes that cannot be matched raise csv.Error."""
        return csv.reader(
            text,
            delimiter=self.separator,
            quoting=self.quoting,
            escapechar=self.escape,
            skipinitialspace=self.skip_blanks,
            strict=True,
        )


@dataclass(frozen=True)
class Fit:
    """How well a sample fits a dialect.

    widths: number of cells of each row, the header first; share: of the lines, those in rows as wide as the header;
    broken: a quote has no end, or stands where none is expected.
    """

    dialect: Dialect
    widths: Sequence[int]
    share: float
    broken: bool

    @property
    def separates(self) -> bool:
        """Whether the separator occurs in the header, and below it if there are rows."""
        return max(self.widths[:1], default=0) > 1 and max(self.widths[1:], default=2) > 1

    @property
    def common_width(self) -> int:
        """The number of cells that the last rows of the sample have, half of them, and two at least; 0 if they differ."""
        end = self.widths[max(1, len(self.widths) // 2) :]
        return end[0] if len(end) > 1 and len(set(end)) == 1 else 0


def find_dialect(sample: str, cut: bool, usual: str) -> Dialect:
    """Return the dialect of a table from its beginning.

    Args: cut, whether the table goes on behind the sample; usual, the separator that is taken if several fit equally well.
    Raises: BrokenTable when other lines stand above the header.
    """
    if match := SEP_LINE.match(sample):
        return Dialect(match[1], skipped_lines=1)
    if cut:  # in the middle of a line
        sample = sample[: sample.rfind("\n") + 1] or sample
    fits = [_measure(dialect, sample, cut) for dialect in _plain_dialects(sample, usual)]
    usable = [fit for fit in fits if fit.separates]
    best = max(usable, key=lambda fit: (fit.share, fit.widths[0]), default=fits[0])
    if best.broken or best.share < 1:
        others = [_measure(dialect, sample, cut) for dialect in _other_dialects(best.dialect)]
        best = max([best, *others], key=lambda fit: (not fit.broken, fit.share))
    _refuse_preamble(sample, [best] if best.separates else fits)
    return best.dialect


def _plain_dialects(sample: str, usual: str) -> Iterator[Dialect]:
    """Yield a dialect for each separator; blanks before a quote are skipped if the header has some."""
    header = next((line for line in sample.splitlines() if line.strip()), "")
    for separator in dict.fromkeys((usual, *SEPARATORS)):
        yield Dialect(separator, skip_blanks=f'{separator} "' in header)


def _other_dialects(plain: Dialect) -> Iterator[Dialect]:
    """Yield dialects that are tried where the plain one does not fit every row."""
    if not plain.skip_blanks:
        yield replace(plain, skip_blanks=True)
    yield replace(plain, escape="\\")
    if plain.separator == "\t":
        yield replace(plain, quoting=csv.QUOTE_NONE)


def _measure(dialect: Dialect, sample: str, cut: bool) -> Fit:
    """Read the sample with a dialect and return how well it fits."""
    reader = dialect.reader(io.StringIO(sample, newline=""))
    widths: list[int] = []
    read = matching = 0
    broken = False
    try:
        for row in reader:
            widths += [len(row)] if row else []
            matching += reader.line_num - read if not row or len(row) == widths[0] else 0
            read = reader.line_num
    except csv.Error:
        broken = True
    total = len(io.StringIO(sample, newline="").readlines())
    if cut and total - read < total / 2:  # the last row of the sample is incomplete, and so may its quotes be
        broken, total = broken and reader.line_num < total, read
    return Fit(dialect, widths, matching / max(total, 1), broken)


def _refuse_preamble(sample: str, fits: Sequence[Fit]) -> None:
    """Refuse a table with comments or a title above its header. Raises: BrokenTable."""
    first, second, *_ = [*(line for line in sample.splitlines() if line.strip()), "", ""]
    for fit in fits:
        above, below = fit.widths[0] if fit.widths else 0, fit.common_width
        if first.startswith("#") and (second.startswith("#") or (below > 1 and above != below)):
            raise BrokenTable(f"begins with a comment, {abbreviate(first)}; remove the lines above the header")
        if above == 1 and below > 1:
            found = f"the header {abbreviate(first)} has one cell, the rows below it have {below}"
            advice = f"remove the lines above the header, or quote cells that hold {fit.dialect.separators}"
            raise BrokenTable(f"{found}; {advice}")
