"""Assemble a bundle from a run: graphs, parity, golden samples, metrics, model card. Nothing appears unless all is well."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mla_serve.bundle.manifest import Bundle, FusionParameters, Golden, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError
from mla_serve.export.data import read_rows
from mla_serve.export.graphs import export_graph, largest_difference
from mla_serve.export.precision import TOLERANCE as GOLDEN_TOLERANCE
from mla_serve.export.precision import Wish, lower
from mla_serve.export.steps import (
    FP32,
    RANDOM_SAMPLES,
    TOLERANCE,
    example_windows,
    finish,
    list_inputs,
    package_versions,
    store,
    told,
    write_encoder,
)
from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import Input, Payload
from mla_serve.output.replacing import staging_folder
from mla_serve.output.targets import bundle_called, check_target
from mla_serve.train.run_folder import UNFAMILIAR, RunFolder
from mla_serve.train.strategies import Strategy


def export_run(run: Path, out: Path, wish: Wish = FP32, data: Path | None = None, base: Path | None = None) -> Manifest:
    """Write the bundle of a finished run to `out`; an older one of its name is kept as NAME.old.

    Args: data, the folder of the run's data set, and base, that of the bundle it extends, if not where training found it.
    Raises: BundleError when a graph differs from torch, or accuracy falls by more than was wished for; ConfigError when
    the run is not finished, something else lies at `out`, or a smaller precision is wished for without the data.
    """
    wish.check()
    folder = RunFolder(run)
    facts = folder.read_json()
    data = data or Path(facts["data"])
    check_out(run, facts, out, data, base)
    if "extends" in facts["config"]:
        from mla_serve.export.extend import export_extension

        return export_extension(folder, facts, out, wish, data, base)
    if base:
        raise ConfigError(f"--base {base}: {run} extends no bundle; leave it out")
    rows = None if wish.precision == "fp32" else read_rows(facts, data)
    recipe = folder.read_recipe()
    strategy = folder.restore(recipe.build())
    samples = folder.read_samples()
    with staging_folder(out, facts["name"]) as staging:
        modalities, files = list_inputs(strategy, recipe.inputs)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        heads = {head: f"{head}.onnx" for head in strategy.heads}
        known = (folder.path / UNFAMILIAR).is_file()  # runs of an older version have none
        if known:
            (staging / UNFAMILIAR).write_bytes((folder.path / UNFAMILIAR).read_bytes())
        parity = _write_graphs(strategy, recipe.inputs, samples, staging)
        fusion = folder.read_fusion()
        manifest = Manifest(
            name=facts["name"],
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions=package_versions(),
            classes=list(recipe.classes),
            modalities=modalities,
            heads=heads,
            fusion=FusionParameters(**dataclasses.asdict(fusion)),
            conformal=facts.get("conformal", {}),
            unfamiliar=UNFAMILIAR if known else None,
            golden=_write_golden(strategy, recipe.inputs, samples, fusion, staging),
            golden_source=facts["golden_source"],
            tolerance=GOLDEN_TOLERANCE["fp32"],
            parity=parity,
            metrics={},
            training=told(facts),
            files={},
        )
        manifest = write_manifest(staging, manifest)
        Predictor(Bundle.load(staging)).verify()
        if rows:
            fixed = {name: {n for n, _ in encoder.named_buffers()} for name, encoder in strategy.encoders.items()}
            manifest = lower(staging, manifest, fixed, rows, wish)
        return finish(staging, manifest, facts, folder, data)


def check_out(run: Path, facts: Mapping[str, Any], out: Path, data: Path, base: Path | None) -> str | None:
    """Refuse to write where something else lies; returns a note on what is replaced. Raises: ConfigError."""
    extended = base or facts["config"].get("extends", {}).get("folder")
    read = {
        "the folder of the run": run,
        "the folder of the extended bundle": Path(extended) if extended else None,
    }
    return check_target("--out", out, bundle_called(facts["name"]), disjoint=read, protected={"the data folder": data})


def _write_graphs(
    strategy: Strategy, inputs: Mapping[str, Input], samples: list[dict[str, Payload]], staging: Path
) -> dict[str, Any]:
    """Export every encoder and head, each compared with torch on real and on random samples."""
    differences = {}
    generator = np.random.default_rng(0)
    for name, spec in inputs.items():
        windows = example_windows(name, spec, samples, generator)
        differences[name] = write_encoder(strategy, name, spec, windows, staging)
    for name, head in strategy.heads.items():
        features = generator.standard_normal((RANDOM_SAMPLES, head.in_features)).astype(np.float32)
        path = staging / f"{name}.onnx"
        export_graph(head, torch.from_numpy(features[:2]), "features", "logits", path)
        differences[name] = largest_difference(head, path, features, TOLERANCE)
    return {"batches": [1, 2, 7], "tolerance": TOLERANCE, "largest_difference": differences}


@torch.no_grad()
def _write_golden(
    strategy: Strategy, inputs: Mapping[str, Input], samples: list[dict[str, Payload]], fusion: Fusion, staging: Path
) -> list[Golden]:
    """Write the samples' payloads and what torch and the fusion say of them."""
    golden = []
    for number, sample in enumerate(samples):
        logits = {
            n: strategy.logits(n, torch.from_numpy(inputs[n].decode(p, n))).mean(0).numpy() for n, p in sample.items()
        }
        stacked = np.stack([logits.get(n, np.zeros(strategy.classes, np.float32)) for n in inputs])[:, None]
        present = np.array([[n in sample] for n in inputs])
        p = np.exp(fuse(stacked, present, fusion).log_probabilities[0])
        payloads = {n: store(value, f"golden/{number}.{n}", staging) for n, value in sample.items()}
        golden.append(Golden(payloads=payloads, probabilities=p.tolist()))
    return golden
