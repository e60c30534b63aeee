"""Readers of the file formats. Each yields the lines of a table: the cells, or the fault of the line.

Readers are chosen by what they say about a fault: Python's csv and json modules and openpyxl know the line of a row. Parquet
and Arrow have no lines; pyarrow reads them.

line           what a reader yields
readers        file suffix -> reader
delimited      .csv, .tsv, .txt; dialect tells separators and quotes, encoding the characters, header names the columns
json_lines     .jsonl, .ndjson
json_document  .json
arrow          .parquet, .feather, .arrow
excel          .xlsx
"""

from mla_serve.table.formats.line import Cells, Line, Reader, Say, say_nothing
from mla_serve.table.formats.readers import READERS, suffix_of, without_suffix

__all__ = ["READERS", "Cells", "Line", "Reader", "Say", "say_nothing", "suffix_of", "without_suffix"]
