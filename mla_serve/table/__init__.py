"""The data set format: read it, check it, list its faulty rows.

A data set is a table, or a folder: train/val/test tables, one table alone under any name, or a folder of files per class.

    data/
      train.jsonl  val.jsonl  test.jsonl       or another format; val may be absent (see table/split.py)
      dataset.json                             optional: other modalities, groups, a word about where the data come from
      images/...  audio/...                    media files, anywhere inside the folder

One row of a .jsonl table:

    {"label": "7", "image": "images/12.png", "audio": "audio/12.wav", "text": "seven",
     "id": "a12", "present": {"50": ["image"]}, "meta": {"speaker": "theo"}}

dataset.json:

    {"modalities": {"pixels": "vector", "rear_camera": "image"}, "group": {"audio": "meta.speaker"}, "about": "..."}

Only `label` and one value in one modality are required. An empty or absent value is a missing modality. A vector is a list
of numbers; in a .csv cell it is written as [1, 2.5], 1 2.5 or 1;2.5.

read          read the lines of --data, and take them through the steps of build
find_tables   which files of a folder are its tables
class_folders a folder of files per class -> lines
formats       a table in any format -> lines of cells
build         lines -> a checked table: the steps below in their order
options       what the caller decides
records       lines -> records, each with its place (file and line) and its split
split_names   the names of splits
declaration   dataset.json
roles         what each column is: what the user says, what its name says, else what infer says
infer         what a column holds, by its cells: a list of rules
scalars       numbers, yes/no and dates as people write them
labels        the column of the labels: which it is, and what is predicted
label_forms   how labels are written, and how they are read
schema        what each column is; kept with the model
cells         what counts as empty; how a cell is read
files         cells that are files
check_files   whether the files of a table can be read
rows          records -> rows: each is checked, then all against each other
faults        the faults that were found, reported together as file:line: message
split         val and test rows where the table names none
hints         columns that give the label away; values that rows share
dataset       the rows by split, and reading their files
"""

from mla_serve.table.build import table_from_lines
from mla_serve.table.dataset import Row, Table, read_payload
from mla_serve.table.options import TableOptions
from mla_serve.table.read import read_table
from mla_serve.table.schema import ColumnRole, Schema

__all__ = [
    "ColumnRole",
    "Row",
    "Schema",
    "Table",
    "TableOptions",
    "read_payload",
    "read_table",
    "table_from_lines",
]
