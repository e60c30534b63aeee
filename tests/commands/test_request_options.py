"""An option of a request is known wherever requests are described, checked or sent."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection
from pathlib import Path

import pytest

from mla_serve.client import AsyncClient, Client
from mla_serve.commands.sample_flags import SampleFlags
from mla_serve.fusion.formula import Fusion
from mla_serve.serve.http.openapi import option_schemas
from mla_serve.serve.http.options import OPTIONS
from mla_serve.table.declaration import RESERVED
from mla_serve.tasks import Classes

REST = (Path(__file__).parents[2] / "docs" / "reference" / "rest.md").read_text(encoding="utf-8")
PLACES: dict[str, Collection[str]] = {
    "OpenAPI": option_schemas(Fusion.paper(("text",), Classes(("a", "b")))),
    "Client.predict": inspect.signature(Client.predict).parameters,
    "AsyncClient.predict": inspect.signature(AsyncClient.predict).parameters,
    "flags of predict and ask": {field.name for field in dataclasses.fields(SampleFlags)},
    "names that no modality can have": RESERVED,
    "docs/reference/rest.md": [name for name in OPTIONS if f"`{name}`" in REST],
}


@pytest.mark.parametrize("place", PLACES)
def test_every_option_is_known_everywhere(place: str) -> None:
    assert set(OPTIONS) <= set(PLACES[place])
