"""`python -m mla_serve predict`: one answer from a bundle, without a server."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from mla_serve.bundle import Bundle
from mla_serve.cli import console, main
from mla_serve.fusion import DEFAULT_RULE
from mla_serve.predictor import Predictor
from mla_serve.sample import SampleFlags, read_sample


@dataclasses.dataclass(frozen=True)
class PredictConfig(SampleFlags):
    """Classify one sample from whichever of its modalities are given."""

    model: Path = Path("models/digits")
    """Folder of the bundle."""


def run(config: PredictConfig) -> None:
    """Predict and print."""
    bundle = Bundle.load(config.model)
    kinds = {name: modality.kind for name, modality in bundle.manifest.modalities.items()}
    sample = read_sample(config, kinds)
    rule = config.fusion or DEFAULT_RULE
    prediction = Predictor(bundle).predict([sample], rule, config.top_k, config.coverage)[0]
    if config.json:
        model = {"name": bundle.manifest.name, "sha256": bundle.manifest.sha256}
        json.dump(prediction.to_dict() | {"model": model}, sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        console.print(prediction)


if __name__ == "__main__":
    main(run, PredictConfig)
