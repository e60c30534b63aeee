"""What every kind of input promises."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_serve.errors import BundleError, InputError
from mla_serve.inputs import INPUTS, Array, AudioInput, Column, ColumnsInput, ImageInput, Input, TextInput, VectorInput

TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"<pad>": 0, "?": 1, "a": 2, "b": 3, "e": 4}, "unk_token": "?"},
    }
)
EXAMPLES: dict[str, Input] = {
    "image": ImageInput(12, 10, 3),
    "audio": AudioInput(8000, 2000, 1000),
    "text": TextInput(TOKENIZER, 8),
    "vector": VectorInput(5),
    "columns": ColumnsInput((Column("price", "number", low=1, high=9), Column("colour", "category", ("red",)))),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=2)
)
CELLS = st.dictionaries(st.sampled_from(["price", "colour"]), JSON, max_size=2) | st.dictionaries(st.text(), JSON)
every_kind = pytest.mark.parametrize("kind", sorted(INPUTS))


def assert_usable(windows: Array, kind: str) -> None:
    """Check that no number is infinite, and that only a cell of columns is NaN, which means that it is missing."""
    assert not np.isinf(windows).any()
    assert kind == "columns" or not np.isnan(windows).any()


def test_every_registered_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(INPUTS)


@every_kind
def test_a_generated_payload_decodes_to_the_promised_shape_and_type(kind: str) -> None:
    spec = EXAMPLES[kind]
    for seed in range(5):
        windows = spec.decode(spec.generate(np.random.default_rng(seed)), "field")
        assert windows.shape == (1, *spec.shape)
        assert windows.dtype == spec.dtype
        assert windows.flags.writeable


@every_kind
def test_a_large_payload_decodes_too(kind: str) -> None:
    spec = EXAMPLES[kind]
    windows = spec.decode(spec.generate_large(np.random.default_rng(0)), "field")
    assert windows.shape[1:] == spec.shape


@every_kind
def test_decoding_is_deterministic(kind: str) -> None:
    spec = EXAMPLES[kind]
    payload = spec.generate(np.random.default_rng(0))
    np.testing.assert_array_equal(spec.decode(payload, "field"), spec.decode(payload, "field"))


@every_kind
def test_fields_and_files_rebuild_the_same_input(kind: str) -> None:
    spec = EXAMPLES[kind]
    fields, files = spec.to_fields()
    rebuilt = INPUTS[kind].from_fields(json.loads(json.dumps(fields)), files.__getitem__)
    assert rebuilt == spec


@every_kind
def test_fields_of_another_version_are_refused(kind: str) -> None:
    fields, files = EXAMPLES[kind].to_fields()
    with pytest.raises(BundleError, match="another version"):
        INPUTS[kind].from_fields(fields | {"new_field": 1}, files.__getitem__)


@every_kind
def test_an_empty_payload_is_an_error_that_names_the_field(kind: str) -> None:
    empty: dict[str, object] = {"image": b"", "audio": b"", "text": " ", "vector": [], "columns": {}}
    with pytest.raises(InputError) as caught:
        EXAMPLES[kind].decode(empty[kind], "rear_camera")  # type: ignore[arg-type]
    assert caught.value.field == "rear_camera"


@every_kind
@settings(max_examples=60, deadline=None)
@given(payload=st.binary(max_size=400) | st.text(max_size=60) | st.lists(st.floats(), max_size=6) | CELLS)
def test_whatever_is_sent_gives_an_array_or_an_input_error(kind: str, payload: Any) -> None:
    spec = EXAMPLES[kind]
    try:
        windows = spec.decode(payload, "field")
    except InputError:
        return
    assert windows.shape[1:] == spec.shape
    assert_usable(windows, kind)


@every_kind
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_payload_gives_an_array_or_an_input_error(kind: str, data: st.DataObject) -> None:
    spec = EXAMPLES[kind]
    payload = spec.generate(np.random.default_rng(0))
    if not isinstance(payload, bytes):
        return
    at = data.draw(st.integers(0, len(payload) - 1))
    damaged = payload[:at] + data.draw(st.binary(max_size=4)) + payload[at + data.draw(st.integers(0, 8)) :]
    try:
        windows = spec.decode(damaged, "field")
    except InputError:
        return
    assert_usable(windows, kind)
