"""The small strategies, tables and pretrained models that the tests of training use as well."""

from __future__ import annotations

from tests.train.conftest import make_samples, make_strategy, write_table
from tests.train.pretrained.conftest import table, zoo

__all__ = ["make_samples", "make_strategy", "table", "write_table", "zoo"]
