"""Assemble a bundle from a run: graphs, parity, golden samples, metrics, model card. Nothing appears unless all is well."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mla_serve
from export.card import model_card
from export.data import hear_own, read_rows
from export.graphs import export_graph, largest_difference
from export.precision import TOLERANCE as GOLDEN_TOLERANCE
from export.precision import Wish, lower
from export.report import write_report
from mla_serve.bundle import Bundle, FusionParameters, Golden, Manifest, Modality, write_manifest
from mla_serve.errors import ConfigError
from mla_serve.evaluate import DRAWS, SHOWN_RULES, score_split
from mla_serve.fusion import Fusion, fuse
from mla_serve.inputs import Array, Input, Payload, list_fields
from mla_serve.output import bundle_called, check_target, staged
from mla_serve.predictor import Predictor
from mla_serve.train.pretrained import PREFIX
from mla_serve.train.pretrained.settings import shown
from mla_serve.train.run import UNFAMILIAR, RunFolder
from mla_serve.train.strategies import Strategy

TOLERANCE = 1e-4  # fp32 on CPU, absolute plus relative
FP32 = Wish()
RANDOM_SAMPLES = 8
PATHS = ("data", "out", "runs", "about", "extend", "extends", "cache")


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
        from export.extend import export_extension

        return export_extension(folder, facts, out, wish, data, base)
    if base:
        raise ConfigError(f"--base {base}: {run} extends no bundle; leave it out")
    rows = None if wish.precision == "fp32" else read_rows(facts, data)
    recipe = folder.read_recipe()
    strategy = folder.restore(recipe.build())
    samples = folder.read_samples()
    with staged(out, facts["name"]) as staging:
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
    return check_target("--out", out, bundle_called(facts["name"]), apart=read, spared={"the data folder": data})


def finish(staging: Path, manifest: Manifest, facts: dict[str, Any], folder: RunFolder, data: Path) -> Manifest:
    """Measure the bundle on the run's own data where they still are, write the card, and seal the manifest."""
    predictor = Predictor(Bundle.load(staging))
    listened = hear_own(facts, data, predictor)
    metrics = score_split(predictor, listened, DRAWS, SHOWN_RULES) if listened else {}
    if listened and listened.split == "val" and facts.get("held_out"):
        metrics["held_out"] = True
    manifest = manifest.model_copy(update={"metrics": metrics})
    if listened:
        may_show = facts["golden_source"] != "generated"
        write_report(staging, predictor, listened, manifest, folder.read_metrics(), samples=may_show)
    about = folder.path / "about.md"
    card = model_card(manifest, about.read_text(encoding="utf-8") if about.exists() else None)
    (staging / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    return write_manifest(staging, manifest)


def list_inputs(strategy: Strategy, inputs: Mapping[str, Input]) -> tuple[dict[str, Modality], dict[str, bytes]]:
    """Return the manifest's entries of modalities, and the files that their inputs bring."""
    listed, files = list_fields(inputs)
    modalities = {
        name: Modality(kind=spec.kind, input=listed[name], encoder=f"{name}.onnx", head=strategy.head_of[name])
        for name, spec in inputs.items()
    }
    return modalities, files


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


def write_encoder(strategy: Strategy, name: str, spec: Input, windows: Array, staging: Path) -> float:
    """Export an encoder; returns its largest difference to torch. Raises: BundleError when that is too large."""
    path = staging / f"{name}.onnx"
    export_graph(strategy.encoders[name], torch.from_numpy(windows[:2]), spec.tensor, "features", path)
    return largest_difference(strategy.encoders[name], path, windows, TOLERANCE)


def example_windows(name: str, spec: Input, samples: list[dict[str, Payload]], generator: np.random.Generator) -> Array:
    """Decode the run's samples and as many generated ones: (N, *shape)."""
    payloads = [sample[name] for sample in samples if name in sample]
    payloads += [spec.generate(generator) for _ in range(RANDOM_SAMPLES)]
    return np.concatenate([spec.decode(payload, name) for payload in payloads])


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


def store(payload: Payload, name: str, staging: Path) -> str | list[float]:
    """Keep bytes in a file of the bundle and return its name; text and numbers stand in the manifest themselves."""
    if isinstance(payload, bytes):
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(payload)
        return name
    return payload if isinstance(payload, str) else list(payload)


def told(facts: dict[str, Any]) -> dict[str, Any]:
    """Tell how the model was trained, without the paths of the machine that did it."""
    config = {key: value for key, value in facts["config"].items() if key not in PATHS}
    config["encoders"] = [_without_path(item) for item in config.get("encoders", [])]
    kept = {key: facts[key] for key in ("best", "notes", "versions", "machine")}
    return {"config": config} | kept | ({"rows": facts["rows"]} if "rows" in facts else {})


def _without_path(item: str) -> str:
    """Show NAME=hf:FOLDER without where the folder lies."""
    name, mark, source = item.partition(f"={PREFIX}")
    return f"{name}{mark}{shown(source)}" if mark else item


def package_versions() -> dict[str, str]:
    """Return what wrote the graphs."""
    packages = ("torch", "onnx", "numpy")
    return {"mla_serve": mla_serve.__version__, "python": platform.python_version()} | {p: version(p) for p in packages}
