"""Each corruption keeps shape and type, spoils more at a higher severity, and repeats with the same generator."""

import numpy as np
import pytest

from mla_serve.inputs import INPUTS as KINDS
from mla_serve.inputs import Array, TextInput
from mla_serve.inputs.corruptions import SEVERITIES
from tests.conftest import INPUTS

every = pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, cls in KINDS.items() for name in cls.corruptions]
)


def spoiled(kind: str, name: str, severity: int, seed: int = 0) -> Array:
    spec = INPUTS[kind]()
    payload = "a sentence of words" if kind == "text" else spec.generate(np.random.default_rng(3))
    return spec.corrupt(payload, kind, name, severity, np.random.default_rng(seed))


@every
@pytest.mark.parametrize("severity", SEVERITIES)
def test_shape_and_type_are_those_of_the_input(kind: str, name: str, severity: int) -> None:
    spec, windows = INPUTS[kind](), spoiled(kind, name, severity)
    assert windows.shape[1:] == spec.shape
    assert windows.dtype == spec.dtype
    assert np.isfinite(windows[~np.isnan(windows)]).all()
    assert kind == "columns" or not np.isnan(windows).any()
    assert not np.isnan(windows).all()
    if kind == "audio":
        assert np.abs(windows).max() <= 1.0


@every
def test_the_same_generator_gives_the_same(kind: str, name: str) -> None:
    np.testing.assert_array_equal(spoiled(kind, name, 3), spoiled(kind, name, 3))


@every
def test_the_fifth_degree_is_worse_than_the_first(kind: str, name: str) -> None:
    spec = INPUTS[kind]()
    payload = "a sentence of words" if kind == "text" else spec.generate(np.random.default_rng(3))
    clean = np.nan_to_num(spec.decode(payload, kind).astype(float), nan=-1)
    distance = [
        np.mean(
            [np.abs(np.nan_to_num(spoiled(kind, name, severity, seed), nan=-1) - clean).mean() for seed in range(8)]
        )
        for severity in (1, 5)
    ]
    coarse = name in ("band_limit", "occlusion") or (kind, name) == ("columns", "shuffled")  # it has two numbers
    assert 0 < distance[0] < distance[1] or (coarse and distance[1] > 0)


def test_a_text_of_one_letter_stays_a_text() -> None:
    for name, spoil in TextInput.corruptions.items():
        for severity in SEVERITIES:
            assert spoil("a", severity, np.random.default_rng(0)).strip(), name
