"""A kind of input that one place does not know fails where that place is reached: training, a test page, an answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pytest

import mla_serve
from mla_serve.commands.sample_flags import FILES
from mla_serve.evaluation.corruptions import CORRUPTIONS
from mla_serve.inputs import INPUTS
from mla_serve.table.cells import KINDS
from mla_serve.train.data.augment import AUGMENT, AUGMENT_PAYLOAD
from mla_serve.train.data.choose_inputs import CHOOSE
from mla_serve.train.encoders import ENCODERS

WEB = Path(mla_serve.__file__).parent / "serve" / "web"


def keys(file: str, pattern: str) -> list[str]:
    """Return the keys of an object in a script of the page."""
    found = re.search(pattern + r" = \{(.*?)\n?\};", (WEB / file).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return re.findall(r"(?:^|[\s{])(\w+): ", found[1])


REGISTRIES: dict[str, Collection[str]] = {
    "table/cells.py KINDS": KINDS,
    "corrupt.py CORRUPTIONS": CORRUPTIONS,
    "train/inputs.py CHOOSE": CHOOSE,
    "train/encoders ENCODERS": ENCODERS,
    "train/augment.py AUGMENT": {**AUGMENT, **AUGMENT_PAYLOAD},
    "card.js FIELDS": keys("card.js", "const FIELDS"),
    "app.js VERBS": keys("app.js", "const VERBS"),
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_registry_has_every_kind(name: str) -> None:
    assert set(REGISTRIES[name]) == set(INPUTS)


@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_has_an_icon(kind: str) -> None:
    assert re.search(rf'^  {kind}: "M', (WEB / "dom.js").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_kinds_that_are_sent_as_files_are_known_to_the_commands() -> None:
    assert set(FILES) == {kind for kind, cls in INPUTS.items() if cls.sent_as == "file"}


def test_the_list_for_a_new_kind_names_every_registry() -> None:
    listed = INPUTS_DOC
    for name in REGISTRIES:
        assert name.split()[-1] in listed


INPUTS_DOC = (Path(mla_serve.__file__).parent / "inputs" / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
