"""What a bundle says of the columns of its training table is checked before it is used."""

from __future__ import annotations

from typing import Any

import pytest

from mla_serve.errors import BundleError
from mla_serve.table import ColumnRole, Schema

GOOD = Schema("label", (ColumnRole("photo", "image", "photo", subfolder="images"),)).to_dict()


@pytest.mark.parametrize(
    "change",
    [{"role": "smell"}, {"subfolder": "../../etc"}, {"subfolder": ".."}, {"subfolder": "/etc"}, {"newer": 1}],
    ids=str,
)
def test_a_role_that_no_training_wrote_is_refused(change: dict[str, Any]) -> None:
    assert Schema.from_dict(GOOD).to_dict() == GOOD
    with pytest.raises(BundleError, match=r"version|folder beside"):
        Schema.from_dict({**GOOD, "columns": [{**GOOD["columns"][0], **change}]})


@pytest.mark.parametrize("fields", [{}, {"label": "a"}, {"label": "a", "columns": [3]}, {"label": "a", "columns": 3}])
def test_other_fields_than_those_written_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="another version"):
        Schema.from_dict(fields)
