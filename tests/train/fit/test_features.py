"""What is encoded of some rows is what is encoded of all, at these rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mla_serve.train.data.samples import Samples
from mla_serve.train.fit.features import encode_column, encode_some
from mla_serve.train.strategies import Strategy


@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_some_rows_are_encoded_as_among_all(
    make_strategy: Callable[..., Strategy], make_samples: Callable[..., Samples], most: int
) -> None:
    strategy, column = make_strategy(), make_samples(missing=0.4).columns["a"]
    everything = encode_column(strategy, "a", column, torch.device("cpu"))
    some = encode_some(strategy, "a", column, torch.device("cpu"), most)
    assert some.present.sum() == min(most, everything.present.sum())
    assert not (some.present & ~everything.present).any()
    same = some.present[everything.present]
    np.testing.assert_allclose(some.features, everything.features[same], atol=1e-6)
    np.testing.assert_allclose(some.opinions, everything.opinions[same], atol=1e-6)
