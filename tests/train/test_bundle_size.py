"""A bundle of many classes and modalities stays small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mla_serve.bundle.manifest import MANIFEST, Bundle, FusionParameters
from mla_serve.evaluation.scores import evaluate
from mla_serve.evaluation.splits import SHOWN_RULES
from mla_serve.fusion.formula import Fusion, pattern_name
from mla_serve.fusion.intervals import Intervals, Thresholds
from mla_serve.fusion.rules import RULES
from mla_serve.tasks import Classes
from mla_serve.train.fit.intervals import patterns_of


def test_the_manifest_of_100_classes_and_8_modalities_stays_below_50_kb(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    generator, names = np.random.default_rng(0), [f"view_{number}" for number in range(8)]
    task = Classes(tuple(f"class {number}" for number in range(100)))
    present = generator.random((8, 5_000)) < 0.6
    patterns = [
        pattern_name([name for name, there in zip(names, one, strict=True) if there]) for one in patterns_of(present)
    ]
    thresholds = {rule: {key: Thresholds.of(generator.normal(size=5_000)) for key in patterns} for rule in RULES}
    scales = dict(zip(patterns, generator.random(len(patterns)).tolist(), strict=True))
    rates = dict(zip(names, generator.random(8).tolist(), strict=True))
    fitted = Fusion(rates, 0.123456789, scales, rates, rates, generator.dirichlet(np.ones(100)).tolist(), task=task)
    opinions, targets = generator.normal(size=(8, 60, 100)), generator.integers(0, 100, 60)
    metrics = evaluate(opinions, np.ones((8, 60), dtype=bool), targets, fitted, SHOWN_RULES)
    folder = make_bundle(
        tmp_path / "large",
        dict.fromkeys(names, "text"),
        task.classes,
        intervals=Intervals(task, thresholds),
        fusion=FusionParameters(**fitted.to_dict()),
        metrics={"conditions": metrics},
    )
    assert (folder / MANIFEST).stat().st_size < 50_000
    assert (folder / "intervals.npz").stat().st_size < 600_000
    assert len(Bundle.load(folder).intervals.thresholds) == len(RULES)
