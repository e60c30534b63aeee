"""Write the bundle of a run: graphs, golden samples, metrics, model card.

The bundle is written to a folder beside the target, and takes its place only when every check has passed.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mla_serve.bundle.manifest import Bundle, FusionParameters, Golden, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError
from mla_serve.export.choose_precision import FP32, GOLDEN_TOLERANCE, PrecisionTarget, export_smaller
from mla_serve.export.finish import finish_bundle
from mla_serve.export.graphs import export_graph, largest_difference
from mla_serve.export.run_data import RunRows, read_rows_again
from mla_serve.export.steps import (
    RANDOM_SAMPLES,
    TOLERANCE,
    example_windows,
    list_inputs,
    package_versions,
    store_payload,
    table_facts,
    training_facts,
    with_truths,
    write_encoder,
)
from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.inputs import Input, Payload
from mla_serve.output.replacing import staging_folder
from mla_serve.output.targets import bundle_called, check_target
from mla_serve.table.read import data_folder
from mla_serve.train.run_folder import INTERVALS, REFERENCES, RunFolder
from mla_serve.train.strategies import Strategy


def export_run(
    run: Path,
    out: Path,
    target: PrecisionTarget = FP32,
    data: Path | None = None,
    base: Path | None = None,
    rows: RunRows | None = None,
) -> Manifest:
    """Write the bundle of a finished run to `out`. An older bundle of the same name is kept as NAME.old.

    Args: data, the folder of the run's data set; base, the folder of the bundle that it extends. Default: where they were
    in training. rows, those of the run, if they are in memory: the data set is not read again.
    Raises: BundleError when a graph differs from torch, or a smaller precision costs more accuracy than allowed;
    ConfigError when the run is not finished, something else is at `out`, or a smaller precision lacks the data.
    """
    target.check()
    folder = RunFolder(run)
    facts = folder.read_json()
    data = data or Path(facts["data"])
    check_out(run, facts, out, data, base)
    if "extends" in facts["config"]:
        from mla_serve.export.export_extension import export_extension

        return export_extension(folder, facts, out, target, data, base, rows)
    if base:
        raise ConfigError(f"--base {base}: {run} is not an extension of a bundle; leave it out")
    if rows is None and target.precision != "fp32":
        rows = read_rows_again(facts, data)
    recipe = folder.read_recipe()
    strategy = folder.restore(recipe.build())
    samples = folder.read_golden_samples()
    with staging_folder(out, facts["name"]) as staging:
        modalities, files = list_inputs(strategy, recipe.inputs)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        heads = {head: f"{head}.onnx" for head in strategy.heads}
        fitted = [
            name for name in (REFERENCES, INTERVALS) if (folder.path / name).is_file()
        ]  # not in runs of old versions
        for name in fitted:
            (staging / name).write_bytes((folder.path / name).read_bytes())
        parity = _write_graphs(strategy, recipe.inputs, samples, staging)
        fusion = folder.read_fusion()
        manifest = Manifest(
            name=facts["name"],
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions=package_versions(),
            task=recipe.task.to_dict(),
            modalities=modalities,
            heads=heads,
            fusion=FusionParameters(**fusion.to_dict()),
            conformal=facts.get("conformal", {}),
            intervals=INTERVALS if INTERVALS in fitted else None,
            unfamiliar=REFERENCES if REFERENCES in fitted else None,
            golden=with_truths(
                _write_golden(strategy, recipe.inputs, samples, fusion, staging), folder.read_golden_truths()
            ),
            golden_source=facts["golden_source"],
            tolerance=GOLDEN_TOLERANCE["fp32"],
            parity=parity,
            metrics={},
            training=training_facts(facts),
            table=table_facts(facts, recipe.inputs),
            files={},
        )
        manifest = write_manifest(staging, manifest)
        Predictor(Bundle.load(staging)).verify()
        if rows and target.precision != "fp32":
            fixed = {name: {n for n, _ in encoder.named_buffers()} for name, encoder in strategy.encoders.items()}
            manifest = export_smaller(staging, manifest, fixed, rows, target)
        return finish_bundle(staging, manifest, facts, folder, data, rows)


def check_out(run: Path, facts: Mapping[str, Any], out: Path, data: Path, base: Path | None) -> str | None:
    """Refuse a target that holds something else; returns a note if a bundle is replaced. Raises: ConfigError."""
    extended = base or facts["config"].get("extends", {}).get("folder")
    read = {
        "the folder of the run": run,
        "the folder of the extended bundle": Path(extended) if extended else None,
    }
    return check_target(
        "--out", out, bundle_called(facts["name"]), disjoint=read, protected={"the data folder": data_folder(data)}
    )


def _write_graphs(
    strategy: Strategy, inputs: Mapping[str, Input], samples: list[dict[str, Payload]], staging: Path
) -> dict[str, Any]:
    """Export every encoder and head, and compare each with torch; returns the manifest's entry on parity."""
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
    """Write the payloads of the golden samples, with the probabilities that torch and the fusion give."""
    golden = []
    for number, sample in enumerate(samples):
        logits = {
            n: strategy.opinions(n, torch.from_numpy(inputs[n].decode(p, n))).mean(0).numpy() for n, p in sample.items()
        }
        stacked = np.stack([logits.get(n, np.zeros(strategy.task.outputs, np.float32)) for n in inputs])[:, None]
        present = np.array([[n in sample] for n in inputs])
        answer = fusion.task.plain(fuse(stacked, present, fusion).answers[0])
        payloads = {n: store_payload(value, f"golden/{number}.{n}", staging) for n, value in sample.items()}
        golden.append(Golden(payloads=payloads, answer=answer.tolist()))
    return golden
