"""The model card: what the bundle is, how well it does, where it does badly, and which data it contains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.about import About
from mla_serve.bundle.manifest import Manifest, read_task
from mla_serve.decimals import percent, with_decimals
from mla_serve.export.choose_precision import cost_scores, cost_text
from mla_serve.export.sections import SECTIONS
from mla_serve.export.wording import MEANINGS, date_text, likely_text, score_cell, score_text
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.tasks import Labels, Number, Task
from mla_serve.train.data.row_counts import MIN_ROWS_TO_FIT

MOST_COLUMNS = 5  # that are named
MOST_NAMES = 20  # classes or labels
HEADLINES = {name: own.score for name, own in SECTIONS.items()}


def model_card(manifest: Manifest) -> str:
    """Write the card in Markdown."""
    task = read_task(manifest)
    parts = [f"# {manifest.name}", _purpose(manifest.about), _made(manifest), _answers(manifest, task)]
    parts += [_results(manifest, task), _precision(manifest, task)]
    parts += [_data(manifest), _training(manifest), _extended(manifest), _recalibrated(manifest, task)]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def _made(manifest: Manifest) -> str:
    """Say when it was made, and by which version."""
    again = manifest.training.get("recalibrated")
    made = f"Made on {date_text(again['trained'] if again else manifest.created)} with mla_serve {manifest.versions['mla_serve']}."
    return f"{made} Fitted again on {date_text(manifest.created)}, see below." if again else made


def _answers(manifest: Manifest, task: Task) -> str:
    inputs = "\n".join(
        f"| {name} | {m.kind} | {_brief(m.input)} | {m.encoder}, {m.head} |" for name, m in manifest.modalities.items()
    )
    return f"""## What it answers

{PURPOSES[task.name](task, ", ".join(manifest.modalities))}
A missing modality is left out: its graph is not run, and it has no weight in the fusion.

| modality | kind | input | graphs |
|---|---|---|---|
{inputs}

{_fusion(manifest, task)}
"""


def _purpose(about: About) -> str:
    """Say what the model is for, and what it must not be used for; empty where nothing was said."""
    limits = "\n".join(f"- {limit}" for limit in about.limits)
    parts = [about.purpose and f"## Purpose\n\n{about.purpose}", limits and f"## Do not use it for\n\n{limits}"]
    return "\n\n".join(part for part in parts if part)


def _classify(task: Task, modalities: str) -> str:
    return f"Classifies any non-empty subset of {modalities} into {len(task.names)} classes:\n{_listed(task.names)}."


def _label(task: Task, modalities: str) -> str:
    """Say which labels there are, and from which probability on they are answered."""
    if not isinstance(task, Labels):
        raise TypeError(f"expected labels, got {task.describe()}")
    thresholds = task.threshold_of_each()
    named = [f"{name} ({percent(threshold)})" for name, threshold in zip(task.names, thresholds, strict=True)]
    return (
        f"Answers with any number of {len(task.names)} labels, also none, to any non-empty subset of {modalities}.\n"
        f"Labels, and the probability from which each is answered: {_listed(named)}."
    )


def _estimate(task: Task, modalities: str) -> str:
    """Say which number is estimated, in which unit, and on which scale it is Gaussian."""
    if not isinstance(task, Number):
        raise TypeError(f"expected a number, got {task.describe()}")
    middle = float(task.restore(np.array(0.0)))
    scale = "Its logarithm is predicted as a Gaussian" if task.log else "It is predicted as a Gaussian"
    return (
        f"Estimates {task.describe()} from any non-empty subset of {modalities}.\n"
        f"{scale}, so an answer is {'the median' if task.log else 'the mean'} and a deviation. In training the "
        f"{'geometric mean' if task.log else 'mean'} was {with_decimals(middle, task.decimals)}."
    )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:MOST_NAMES])}{', ...' if len(names) > MOST_NAMES else ''}"


PURPOSES: Mapping[str, Callable[[Task, str], str]] = {"classes": _classify, "labels": _label, "number": _estimate}
EXPECT = {
    "classes": "lower accuracy and over-confident probabilities",
    "labels": "lower scores and over-confident probabilities",
    "number": "larger errors and deviations that are too small",
}
PROMISES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "classes": (
        "A prediction set for a coverage of {0} contains the true class in {0} of the cases.",
        ("coverage", "set_size"),
    ),
    "labels": ("A set for a coverage of {0} contains {0} of the labels of a row, on average.", ("set_fnr", "set_size")),
    "number": ("An interval for a coverage of {0} contains the true value in {0} of the cases.", ("coverage", "width")),
}
COSTS = {"classes": "of accuracy", "labels": "of mAP", "number": "of the mean absolute error"}
PRIORS = {
    "classes": "Probabilities assume the class frequencies of the training rows.",
    "labels": "Probabilities assume the label frequencies of the training rows.",
    "number": "Answers assume that values are spread as in the training rows.",
}


def _fusion(manifest: Manifest, task: Task) -> str:
    """List for each modality the rows that it was trained and fitted on, and its temperature."""
    fusion = manifest.fusion
    steps = [manifest.training, *manifest.training.get("extended", [])]
    train, val = (
        {k: v for step in steps for k, v in step.get("rows", {}).get(s, {}).items()} for s in ("train", "val")
    )
    rows = "\n".join(
        f"| {name} | {train.get(name, '?')} | {val.get(name, '?')} | {_temperature(t, val.get(name))} |"
        for name, t in fusion.temperatures.items()
    )
    return f"""| modality | training rows | validation rows | temperature |
|---|---|---|---|
{rows}

Sharpness of the fusion {fusion.sharpness:.2f}.{_prior(fusion.prior_shift, task)}"""


def _prior(shift: Sequence[float], task: Task) -> str:
    """Say which frequencies the answers assume."""
    if not shift:
        return f"\n{PRIORS[task.name]}"
    return (
        "\nAnswers and probabilities assume that all classes are equally frequent (`prior_shift`). Where classes are as "
        "frequent as in training, the probabilities of rare classes are too high."
    )


def _temperature(value: float, rows: int | None) -> str:
    if rows is not None and rows < MIN_ROWS_TO_FIT:
        return f"{value:.2f}, not fitted: too few validation rows"
    if value == 1.0:
        return "1.00, as in the paper: no other value was better on validation"
    return f"{value:.2f}, fitted on validation"


def _brief(fields: Mapping[str, Any]) -> str:
    columns = [column["name"] for column in fields.get("columns", [])]
    if columns:
        listed = ", ".join(columns[:MOST_COLUMNS]).replace("|", r"\|")
        return f"columns {listed}{', ...' if len(columns) > MOST_COLUMNS else ''}"
    return ", ".join(
        f"{key} {value}" for key, value in fields.items() if not key.startswith("max_") and key != "tokenizer"
    )


def _results(manifest: Manifest, task: Task) -> str:
    if not manifest.metrics:
        return "## Results\n\nNot measured: the data set was gone, changed or unreadable when the bundle was exported."
    metrics = manifest.metrics
    shown = task.columns(metrics["conditions"])
    rows = "\n".join(_result_row(name, metrics, task, shown) for name in metrics["conditions"])
    head = " | ".join([*map(task.title, shown), f"likely {task.title(HEADLINES[task.name])}", "rows"])
    meanings = "; ".join(f"{task.title(score)}: {MEANINGS[score]}" for score in shown)
    return f"""## Results

Measured through this bundle on {_rows_of(metrics)}; missing rates over {metrics["draws"]} mask draws.
{_measured_on(manifest)}
{_importance(manifest)}They hold for inputs from where these rows come from. On others (people, devices or places that are not in the table)
expect {EXPECT[task.name]}.

{_coverage(metrics, [*manifest.modalities], task)}
| available | {head} |
|---|{"---|" * (len(shown) + 2)}
{rows}

`full`: what each row has; `missing50`: each input left out with probability 50 %. Likely: where it lies for other rows like these,
95 % sure. {meanings}.
By the rule `{DEFAULT_RULE}`; `report.html` compares it with others and shows where the model is wrong.
"""


def _rows_of(metrics: Mapping[str, Any]) -> str:
    """Name the rows that were measured."""
    if metrics.get("fitted"):
        return f"the {metrics['rows']:,} rows that it was fitted to (`{metrics['split']}`)"
    return f"{metrics['rows']:,} rows of split `{metrics['split']}`"


def _measured_on(manifest: Manifest) -> str:
    """Return how to measure again, and what else the rows were used for."""
    metrics = manifest.metrics
    command = f"mla-serve evaluate --model models/{manifest.name} --data DIR --split {metrics['split']} --draws {metrics['draws']}"
    unnamed = metrics.get("held_out") or metrics.get("fitted") or metrics.get("copies_left_out")
    parts = [] if unnamed else [f"`{command}` prints them again."]
    if metrics.get("fitted"):
        parts.append("There were no others to measure on, so expect less of new data.")
    elif metrics["split"] == "val":
        parts.append(
            "There were no test rows: these chose the checkpoint and fitted the fusion, so expect less of new data."
        )
    if metrics.get("held_out"):
        parts.append("They were held out of the training rows, which had no validation rows beside them.")
    return "\n".join(parts)


def _coverage(metrics: Mapping[str, Any], names: Sequence[str], task: Task) -> str:
    """Say what sets or intervals promise, on which condition, what was measured, and which rest on pooled rows."""
    full, half = (metrics["conditions"][name][DEFAULT_RULE] for name in ("full", "missing50"))
    promise, scores = PROMISES[task.name]
    given = (("with all modalities", full), ("with half of them missing", half))[: len(names)]  # one is never missing
    if "pooled" not in full or not {*scores} <= full.keys() & half.keys():  # the bundle has no sets
        return ""
    asked = f"{100 * metrics['asked_coverage']:g} %"
    measured = "; ".join(
        f"{when} {', '.join(f'{task.title(score)} {score_text(task, score, found[score])}' for score in scores)}"
        for when, found in given
    )
    pooled = [name for name, rules in metrics["conditions"].items() if "+" in name or name in names]
    pooled = [name for name in pooled if metrics["conditions"][name][DEFAULT_RULE].get("pooled")]
    shared = (
        f"\nValidation had too few rows of these for {asked}, so theirs rest on rows with other modalities, the most cautious "
        f"ones: {_listed(pooled)}."
    )
    return f"""{promise.format(asked)} This holds on average over rows like those of validation, whose modalities are missing for reasons
that have nothing to do with the label; it is not promised for each single row, nor for rows from elsewhere.
Measured: {measured}.{shared if pooled else ""}
"""


def _importance(manifest: Manifest) -> str:
    """Name the columns that mattered most, a line for each modality with columns."""
    lines = ""
    for name, columns in manifest.metrics.get("importance", {}).items():
        listed = ", ".join(f"{column} ({losses['alone']:.2f})" for column, losses in [*columns.items()][:MOST_COLUMNS])
        lines += f"Of {name}, these columns mattered most (log-probability lost when one is shuffled): {listed}.\n"
    return lines


def _result_row(name: str, metrics: Mapping[str, Any], task: Task, shown: Sequence[str]) -> str:
    scores, headline = metrics["conditions"][name][DEFAULT_RULE], HEADLINES[task.name]
    ends = metrics.get("intervals", {}).get(name, {}).get(headline)
    rows = metrics.get("condition_rows", {}).get(name)
    cells = [score_cell(task, score, scores) for score in shown]
    likely = likely_text(task, headline, scores[headline], ends) if ends else ""
    cells += [likely or "–", f"{rows:,}" if rows else "–"]
    return f"| {name} | " + " | ".join(cells) + " |"


def _precision(manifest: Manifest, task: Task) -> str:
    """Report what a smaller precision cost and gained; empty if nothing but fp32 was tried."""
    facts = manifest.precision
    if not facts:
        return ""
    rows = "\n".join(_encoder_row(name, encoder) for name, encoder in facts["encoders"].items())
    scores = cost_scores(task)
    head = " | ".join(f"{task.title(score)} in fp32 -> now" for score in scores)
    costs = "\n".join(
        f"| {split}, {condition} | {' | '.join(_change(found, condition, score, task) for score in scores)} |"
        for split, found in facts["measured"].items()
        for condition in found["before"]
    )
    return f"""## Precision

Asked for: {facts["asked"]}, at a cost of at most {facts["loss"]:g} {COSTS[task.name]}. Scales of int8 are static,
measured on training rows. Heads and preprocessing are those of fp32{_fitted_in(manifest)}.{_measured_then(manifest)}
Times faster than fp32 for a batch of 1 and of 8 on {facts["processor"]}, onnxruntime {facts["onnxruntime"]}.

| encoder | precision | times faster | bytes, fp32 | bytes |
|---|---|---|---|---|
{rows}

| measured on | {head} |
|---|---|---|
{costs}
"""


def _fitted_in(manifest: Manifest) -> str:
    """Say which graphs all that was fitted (temperatures, scores, references) belongs to."""
    return "" if _fitted_since(manifest) else ", and so is all that was fitted (temperatures, scores, references)"


def _measured_then(manifest: Manifest) -> str:
    """Say that the results below are of the export: a later fit changed what follows the graphs, on other rows perhaps."""
    if _fitted_since(manifest):
        return " Measured below as exported, before it was fitted again: the results above are of today."
    return " Measured again below."


def _fitted_since(manifest: Manifest) -> bool:
    """Return whether the bundle, or one that it extends, was fitted again after its export."""
    return "recalibrated" in manifest.training or any(map(_fitted_before, manifest.training.get("extended", [])))


def _encoder_row(name: str, encoder: Mapping[str, Any]) -> str:
    before, now = (encoder["tried"][label] for label in ("fp32", encoder["chosen"]))
    speeds = ", ".join(f"{times:.2f}" for times in now["times_faster"].values())
    return f"| {name} | {encoder['chosen']} | {speeds} | {before['bytes']} | {now['bytes']} |"


def _change(found: Mapping[str, Any], condition: str, score: str, task: Task) -> str:
    return " -> ".join(cost_text(task, score, found[when][condition][score]) for when in ("before", "after"))


def _data(manifest: Manifest) -> str:
    about = manifest.about
    text = about.data or "The training data's source and licence were not given (`--about FILE` puts them here)."
    if about.licence:
        text += f"\n\nLicence: {about.licence}"
    held = {
        "training rows": f"`golden/` holds {len(manifest.golden)} training rows. They are replayed when the model starts, and anyone who can call the service can see them.",
        "generated": f"`golden/` holds {len(manifest.golden)} generated payloads, none of the training data.",
    }
    return f"## Data\n\n{text.strip()}\n\n{held[manifest.golden_source]}\n{_traces(manifest)}"


def _traces(manifest: Manifest) -> str:
    """Report what else of the training data is in the files of the bundle."""
    found = []
    if manifest.unfamiliar:
        found.append(
            f"`{manifest.unfamiliar}`, by which unfamiliar input is detected, holds features of up to a thousand training rows per "
            "modality, one vector each, or their means by class, or how often parts of texts occur together. A vector is not the row, but whoever has the file can test "
            "whether a given input was among the rows, and may recover parts of one."
        )
    if any("tokenizer" in modality.input for modality in manifest.modalities.values()):
        found.append(
            "The tokenizer's vocabulary holds words and parts of words that occur in the training texts at least three times."
        )
    if found:
        found.append("The service reads these files and does not give them out.")
    if any("columns" in modality.input for modality in manifest.modalities.values()):
        found.append(
            "`manifest.json` holds the smallest and the largest number and date of each column in training, and every category that "
            "occurs at least twice. GET /model gives them out."
        )
    if manifest.task["name"] == "number":
        found.append(
            "It also holds the smallest and the largest label of the training rows. GET /model gives them out."
        )
    if manifest.table:
        held = "held_out" in manifest.table
        found.append(
            "`manifest.json` also holds the names of the columns that the model reads, of the label and of those that name, group "
            f"or split the rows{', and the numbers of the rows that were held out' if held else ''}. It holds nothing of columns that "
            "training ignored."
        )
    return "\n".join(found)


def _training(manifest: Manifest) -> str:
    if "config" not in manifest.training:  # made by other means
        return ""
    config = manifest.training["config"]
    shown = (
        "strategy",
        "epochs",
        "batch_size",
        "lr",
        "weight_decay",
        "label_smoothing",
        "optimizer",
        "hgm",
        "heads",
        "width",
        "augment",
        "seed",
    )
    settings = ", ".join(f"{key} {config[key]}" for key in shown)
    notes = "\n".join(f"- {note}" for note in manifest.training["notes"])
    best = manifest.training["best"]
    parity = max(manifest.parity["largest_difference"].values())
    return f"""## Training

{settings}.
Checkpoint of epoch {best["epoch"]:.0f}, picked on validation (NLL averaged over conditions: {best["nll"]:.3f}).
{notes}

Graphs in fp32 differ from torch by at most {parity:.1g} (absolute plus relative, batches of 1, 2 and 7). Versions: {manifest.versions}.
"""


def _extended(manifest: Manifest) -> str:
    """Report which modalities were added later, and to which bundle; empty if none were."""
    parts = []
    kept = "were, until this was fitted again," if "recalibrated" in manifest.training else "are"
    for step in manifest.training.get("extended", []):
        config = step["config"]
        shown = ("encoders", "epochs", "batch_size", "lr", "weight_decay", "label_smoothing", "augment", "seed")
        settings = ", ".join(f"{key} {config[key]}" for key in shown if config[key] != [])
        notes = "\n".join(f"- {note}" for note in step["notes"])
        parts.append(f"""## Added later: {", ".join(step["added"])}

To {step["name"]} (sha256 {step["sha256"][:12]}), whose card is in `cards/`. Only the added encoders were trained, against the fixed head of that
model. Without the added modalities, answers {kept} those of {step["name"]} to the bit. {_fitted_before(step)}{settings}.
Checkpoint of epoch {step["best"]["epoch"]:.0f}, picked on validation.
{notes}
""")
    return "\n".join(parts)


def _fitted_before(step: Mapping[str, Any]) -> str:
    """Say whether the bundle had been fitted again before it was extended."""
    again = step.get("recalibrated")
    if not again:
        return ""
    return (
        f"After its own training it had been fitted again, on {date_text(again['fitted'])}, to {again['rows']:,} rows. "
    )


def _recalibrated(manifest: Manifest, task: Task) -> str:
    """Report that the bundle was fitted to rows after its training, and what it was worth; empty if it was not."""
    facts = manifest.training.get("recalibrated")
    if not facts:
        return ""
    scores = [score for score in (*task.shown_scores, *task.shown_set_scores) if score in facts["before"]["full"]]
    rows = "\n".join(_before_after(name, before, manifest, scores, task) for name, before in facts["before"].items())
    notes = "\n".join(f"- {note}" for note in facts["notes"])
    return f"""## Recalibrated

The bundle of {date_text(facts["created"])} (sha256 {facts["sha256"][:12]}) was fitted again by mla_serve {facts["versions"]["mla_serve"]}: to {facts["rows"]}
rows of split `{facts["split"]}`. Its graphs are unchanged.
{notes}

On {_rows_of(manifest.metrics)}, under the rule {DEFAULT_RULE}, before -> after:

| available | {" | ".join(task.title(score) for score in scores)} |
|---|{"---|" * len(scores)}
{rows}
"""


def _before_after(name: str, before: Mapping[str, float], manifest: Manifest, scores: Sequence[str], task: Task) -> str:
    after = manifest.metrics["conditions"][name][DEFAULT_RULE]
    return (
        f"| {name} | "
        + " | ".join(f"{score_cell(task, s, before)} -> {score_cell(task, s, after)}" for s in scores)
        + " |"
    )
