"""Write the bundle of an extension: copy the old graphs and files, and add the new encoders.

The result is refused unless answers without the added modalities equal the old ones to the bit (`check_unchanged`).
mla_serve/train/extend/__init__.py lists everything that keeps them equal.
"""

from __future__ import annotations

import datetime
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mla_serve.bundle.manifest import Bundle, FusionParameters, Golden, Manifest, Modality, write_manifest
from mla_serve.bundle.predictor import GraphOutputs, Predictor
from mla_serve.errors import BundleError, ConfigError
from mla_serve.export.choose_precision import PrecisionTarget
from mla_serve.export.finish import finish_bundle
from mla_serve.export.graphs import largest_difference
from mla_serve.export.run_data import RunRows
from mla_serve.export.steps import (
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
from mla_serve.fusion.rules import fuse, rules_for
from mla_serve.inputs import Array, Payload
from mla_serve.output.replacing import staging_folder
from mla_serve.train.extend.head import build_fixed_head, read_head
from mla_serve.train.recipe import Recipe
from mla_serve.train.run_folder import INTERVALS, REFERENCES, RunFolder
from mla_serve.train.strategies import Strategy

REWRITTEN = ("MODEL_CARD.md", "report.html", "report.json")
SAMPLES = 3  # golden samples on which the old and the new bundle are compared
SUBSETS = 2**12 - 1  # all subsets of twelve modalities; of more, the smallest subsets
COVERAGE = 0.9
Sample = Mapping[str, Payload]


def export_extension(
    folder: RunFolder,
    facts: Mapping[str, Any],
    out: Path,
    target: PrecisionTarget,
    data: Path,
    base_folder: Path | None = None,
    rows: RunRows | None = None,
) -> Manifest:
    """Write the bundle of a finished extension to `out`.

    Args: base_folder, the folder of the extended bundle. Default: where it was in training. rows, see export_run.
    Raises: BundleError when the extended bundle is no longer what it was, a graph differs from torch, or answers
    without the added modalities differ from before; ConfigError for a smaller precision.
    """
    if target.precision != "fp32":
        raise ConfigError(
            f"--precision {target.precision}: an extended bundle keeps its graphs as they are; leave it out"
        )
    base = _base(facts["config"]["extends"], base_folder)
    recipe = folder.read_recipe()
    strategy = folder.restore(build_fixed_head(recipe, read_head(base)))
    samples = folder.read_golden_samples()
    with staging_folder(out, facts["name"]) as staging:
        _copy(base, staging)
        modalities = _write_inputs(strategy, recipe, base, staging)
        differences = _write_graphs(strategy, recipe, base, samples, staging)
        added = (folder.path / REFERENCES).read_bytes()
        unfamiliar = base.manifest.unfamiliar or REFERENCES
        (staging / unfamiliar).write_bytes(_joined(base.read(unfamiliar) if base.manifest.unfamiliar else None, added))
        intervals = base.manifest.intervals or INTERVALS
        (staging / intervals).write_bytes((folder.path / INTERVALS).read_bytes())
        golden = _write_golden(strategy, recipe, base, samples, folder.read_fusion(), staging)
        fields = base.manifest.model_dump() | {
            "name": facts["name"],
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": package_versions(),
            "modalities": {**base.manifest.modalities, **modalities},
            "fusion": FusionParameters(**folder.read_fusion().to_dict()),
            "intervals": intervals,
            "unfamiliar": unfamiliar,
            "golden": [*base.manifest.golden, *with_truths(golden, folder.read_golden_truths())],
            "golden_source": _source(base.manifest, facts),
            "parity": _parity(base.manifest.parity, differences),
            "metrics": {},
            "training": _training(base.manifest, facts),
            "table": table_facts(facts, {**base.inputs, **recipe.inputs}, base.manifest.table),
        }
        manifest = write_manifest(staging, Manifest.model_validate(fields))
        predictor = Predictor(Bundle.load(staging))
        predictor.verify()
        check_unchanged(Predictor(base), predictor)
        return finish_bundle(staging, manifest, dict(facts), folder, data, rows)


def _base(extends: Mapping[str, Any], moved: Path | None) -> Bundle:
    """Load the bundle that was extended.

    Raises: ConfigError when it is not there; BundleError when its files have changed since.
    """
    folder = moved or Path(extends["folder"])
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: the extended bundle, {extends['name']}, is not there; "
            "name its folder: mla-serve export RUN --base FOLDER"
        )
    base = Bundle.load(folder)
    if base.manifest.sha256 != extends["sha256"]:
        raise BundleError(
            f"{base.folder}: not the bundle that was extended, or replaced since; "
            "give the right folder with --base, or extend it again"
        )
    return base


def _copy(base: Bundle, staging: Path) -> None:
    """Copy the files that stay, and the old card, which names the source of the data."""
    for name in base.manifest.files:
        target = staging / (f"cards/{base.manifest.name}.md" if name == "MODEL_CARD.md" else name)
        if name == "MODEL_CARD.md" or name not in REWRITTEN:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(base.read(name))


def _write_inputs(strategy: Strategy, recipe: Recipe, base: Bundle, staging: Path) -> dict[str, Modality]:
    """Write the files of the added inputs under unused names; return their entries in the manifest."""
    modalities, files = list_inputs(strategy, recipe.inputs)
    renamed = {name: f"{'_'.join(recipe.inputs)}.{name}" if name in base.manifest.files else name for name in files}
    for name, content in files.items():
        (staging / renamed[name]).write_bytes(content)
    return {
        name: one.model_copy(update={"input": {key: _renamed(value, renamed) for key, value in one.input.items()}})
        for name, one in modalities.items()
    }


def _renamed(value: Any, renamed: Mapping[str, str]) -> Any:
    return renamed.get(value, value) if isinstance(value, str) else value


def _write_graphs(
    strategy: Strategy, recipe: Recipe, base: Bundle, samples: Sequence[Sample], staging: Path
) -> dict[str, float]:
    """Export the added encoders, and compare the head that they were trained against with the bundle's graph."""
    generator = np.random.default_rng(0)
    differences = {}
    for name, spec in recipe.inputs.items():
        if (staging / f"{name}.onnx").exists():
            raise BundleError(f"{name}.onnx: the extended bundle has a file of that name; give the column another name")
        windows = example_windows(name, spec, [dict(sample) for sample in samples], generator)
        differences[name] = write_encoder(strategy, name, spec, windows, staging)
    for name, head in strategy.heads.items():
        features = generator.standard_normal((7, head.in_features)).astype(np.float32)
        largest_difference(head, staging / base.manifest.heads[name], features, base.manifest.tolerance)
    return differences


def _joined(before: bytes | None, added: bytes) -> bytes:
    """Join the arrays of the old and the added references. The old ones keep every bit."""
    arrays: dict[str, Array] = {}
    for content in (before, added):
        if content:
            with np.load(io.BytesIO(content), allow_pickle=False) as part:
                arrays |= {name: part[name] for name in part.files}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@torch.no_grad()
def _write_golden(
    strategy: Strategy, recipe: Recipe, base: Bundle, samples: Sequence[Sample], fusion: Fusion, staging: Path
) -> list[Golden]:
    """Write samples with the added modalities. Their logits come from torch, those of the others from the old graphs."""
    predictor = Predictor(base)
    golden = []
    numbers = (n for n in itertools.count() if not list(staging.glob(f"golden/{n}[.-]*")))
    for sample, number in zip(samples, numbers, strict=False):
        decoded = {n: predictor.decode_one(n, p) for n, p in sample.items() if n in predictor.names}
        outputs = predictor.run_graphs([decoded])
        own = np.zeros((len(recipe.inputs), 1, recipe.task.outputs), dtype=np.float32)
        for m, (name, spec) in enumerate(recipe.inputs.items()):
            if name in sample:
                windows = torch.from_numpy(spec.decode(sample[name], name))
                own[m, 0] = strategy.opinions(name, windows).mean(0).numpy()
        present = np.array([[name in sample] for name in fusion.temperatures])
        answer = fusion.task.plain(fuse(np.concatenate([outputs.opinions, own]), present, fusion).answers[0])
        payloads = {n: store_payload(value, f"golden/{number}.{n}", staging) for n, value in sample.items()}
        golden.append(Golden(payloads=payloads, answer=answer.tolist()))
    return golden


def _source(before: Manifest, facts: Mapping[str, Any]) -> str:
    """Return the source of the golden samples: "training rows" if any of them is one."""
    return "training rows" if "training rows" in (before.golden_source, facts["golden_source"]) else "generated"


def _parity(before: Mapping[str, Any], differences: Mapping[str, float]) -> dict[str, Any]:
    return {**before, "largest_difference": {**before.get("largest_difference", {}), **differences}}


def _training(before: Manifest, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Append this extension, and the name of the bundle, to the facts on its training.

    If that bundle was fitted again, it was before this extension: the facts on it become those of the step.
    """
    extends = {key: value for key, value in facts["config"]["extends"].items() if key != "folder"}
    old = dict(before.training)
    again = old.pop("recalibrated", None)
    step = extends | training_facts(dict(facts)) | ({"recalibrated_before": again} if again else {})
    return {**old, "extended": [*old.get("extended", []), step]}


def check_unchanged(old: Predictor, new: Predictor) -> None:
    """Check that answers without the added modalities equal the old ones to the bit, under every rule and subset.

    Raises: BundleError.
    """
    sizes = range(1, len(old.names) + 1)
    every = itertools.chain.from_iterable(itertools.combinations(old.names, size) for size in sizes)
    subsets = list(itertools.islice(every, SUBSETS))
    for sample in _whole_samples(old):
        before, after = (_run_subsets(predictor, sample, subsets) for predictor in (old, new))
        for rule in rules_for(old.bundle.fusion):
            pairs = zip(_answers(old, before, rule), _answers(new, after, rule), strict=True)
            for names, (was, now) in zip(subsets, pairs, strict=True):
                if was != now:
                    raise BundleError(f"answers to {'+'.join(names)} by {rule} are not those of {old.bundle.folder}")


def _whole_samples(predictor: Predictor) -> list[dict[str, Payload]]:
    """Return golden samples, with generated payloads for the modalities that they lack."""
    golden = predictor.bundle.golden_samples()[:SAMPLES] or [{}]
    generator = np.random.default_rng(0)
    inputs = predictor.bundle.inputs
    return [{name: reader.generate(generator) for name, reader in inputs.items()} | sample for sample in golden]


def _run_subsets(predictor: Predictor, sample: Sample, subsets: Sequence[Sequence[str]]) -> GraphOutputs:
    """Run the graphs on a sample; returns their outputs for each subset of its modalities."""
    one = predictor.run_graphs([predictor.decode(sample)])
    present = np.array([[name in names for names in subsets] for name in predictor.names])
    return GraphOutputs(
        np.where(present[..., None], one.opinions, 0),
        present,
        np.where(present, one.unfamiliarity, np.nan),
        np.where(present, one.excess, 0),
    )


def _answers(predictor: Predictor, outputs: GraphOutputs, rule: str) -> list[dict[str, Any]]:
    coverage = COVERAGE if rule in predictor.bundle.intervals.rules else None
    return [each.to_dict() | {"missing": []} for each in predictor.answer_from(outputs, rule, coverage=coverage)]
