"""`make check-gpu` compares, and says so where there is no GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.runtime import DEVICES
from mla_serve.errors import ConfigError
from mla_serve.export.check_gpu import CheckConfig, differences, run


def test_a_machine_without_cuda_is_told_and_the_fallback_is_loud_once(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        predictor = Predictor(Bundle.load(tiny_bundle), DEVICES["cuda"])
    if predictor.providers[0] == DEVICES["cuda"][0]:
        run(CheckConfig(tiny_bundle))
        return
    assert sum("ASKED FOR CUDAExecutionProvider" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(ConfigError, match="no CUDA device"):
        run(CheckConfig(tiny_bundle))


def test_equal_predictors_do_not_differ_and_others_do(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = Bundle.load(make_bundle(tmp_path / "one"))
    same, other = Predictor(bundle), Predictor(Bundle.load(make_bundle(tmp_path / "two", seed=1)))
    assert max(differences(bundle, same, same).values()) == 0
    assert max(differences(bundle, same, other).values()) > 0.01
