"""The report and the model card, for every task."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mla_serve.bundle.manifest import Bundle, Manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation import analysis
from mla_serve.evaluation.splits import SHOWN_RULES, SplitRun, score_split
from mla_serve.export import report
from mla_serve.export.card import COSTS, EXPECT, PRIORS, PROMISES, PURPOSES, model_card
from mla_serve.export.report import gather, write_report
from mla_serve.export.sections import SECTIONS
from mla_serve.export.wording import SHARES, likely_text, score_cell, share_of_rows
from mla_serve.fusion.intervals import Intervals, Thresholds
from mla_serve.tasks import TASKS
from tests.evaluation.rows import run_generated_rows

NAMES = ("image", "audio", "text", "vector")


@pytest.fixture(scope="module")
def task_run(task_predictor: Predictor) -> SplitRun:
    return run_generated_rows(task_predictor)


@pytest.fixture(scope="module")
def manifest(task_predictor: Predictor, task_run: SplitRun) -> Manifest:
    metrics = score_split(task_predictor, task_run, 1, SHOWN_RULES)
    return task_predictor.bundle.manifest.model_copy(update={"metrics": metrics})


def epochs() -> list[dict[str, Any]]:
    val = dict.fromkeys(("full", *NAMES), 0.5)
    return [{"epoch": number, "val": val} | {f"kept/{name}": 0.9 for name in NAMES} for number in (1, 2)]


def write(folder: Path, predictor: Predictor, run: SplitRun, manifest: Manifest, *, samples: bool) -> tuple[Any, str]:
    write_report(folder, gather(predictor, run), predictor, run, manifest, epochs(), samples=samples)
    return json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


def test_every_task_has_its_sections_and_sentences() -> None:
    for registry in (SECTIONS, PURPOSES, PRIORS, EXPECT, COSTS, PROMISES):
        assert registry.keys() == TASKS.keys()


def test_a_report_shows_the_scores_of_its_task(
    task_predictor: Predictor, task_run: SplitRun, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SEVERITIES", (5,))
    results, page = write(tmp_path, task_predictor, task_run, manifest, samples=True)
    task = task_predictor.task
    assert task.title(task.main_scores[0]).lower() in page.lower()
    assert SECTIONS[task.name].wrongest in page
    assert task.describe() in page
    assert (re.search("accuracy", page, re.IGNORECASE) is not None) == (task.name == "classes")
    for case in results["wrongest"]:
        assert case["label"] in page
    assert page.count('<svg class="plot"') >= 6
    assert {*re.findall(r"<(svg|script|link|iframe)", page)} == {"svg"}
    own = SECTIONS[task.name]
    assert page.index("Do not use it for") < page.index(own.how_good) < page.index("All numbers")


def cells_of(row: str) -> list[str]:
    cells = re.findall(r'<t[hd](?! class="drawn")[^>]*>(.*?)</t[hd]>', row)
    return [html.unescape(re.sub(r"<[^>]+>", "", cell)).replace("\xa0", " ") for cell in cells]


def test_every_number_by_what_is_sent_is_that_of_report_json(
    task_predictor: Predictor, task_run: SplitRun, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SEVERITIES", (5,))
    results, page = write(tmp_path, task_predictor, task_run, manifest, samples=True)
    task, score, metrics = task_predictor.task, SECTIONS[task_predictor.task.name].score, results["metrics"]
    part = page[page.index(">sent</th>") : page.index("</section>", page.index(">sent</th>"))]
    shown = {tuple(cells[0].split()): cells[1:] for cells in map(cells_of, re.findall(r"<tr>(.*?)</tr>", part))}
    sets = [name for name in metrics["conditions"] if not name.startswith("missing") and name != "full"]
    assert shown.keys() == {tuple(name.split("+")) for name in sets}
    for name in sets:
        value, rows = metrics["conditions"][name]["calibrated"][score], metrics["condition_rows"][name]
        ends = results["intervals"][name]["calibrated"][score]
        right = share_of_rows(score, value, rows) if score in SHARES else task.shown(score, value)
        assert shown[tuple(name.split("+"))] == [right, likely_text(task, score, value, ends), f"{rows:,}"]
    bars = [float(width) for width in re.findall(r'class="fill" x="0.0%" width="([\d.]+)%"', part)]
    values = [metrics["conditions"]["+".join(names)]["calibrated"][score] for names in shown]
    assert bars == pytest.approx([max(bars) / max(values) * value for value in values], abs=0.11)


def test_every_number_of_the_whole_table_is_that_of_report_json(
    task_predictor: Predictor, task_run: SplitRun, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SEVERITIES", (5,))
    results, page = write(tmp_path, task_predictor, task_run, manifest, samples=True)
    task = task_predictor.task
    part = page[page.index("Every combination of inputs and every rule") :]
    part = part[part.index("<table") : part.index("</table>")]
    keys = list(results["metrics"]["conditions"]["full"]["calibrated"])
    rows = [cells_of(row) for row in re.findall(r"<tr>(.*?)</tr>", part)][1:]
    found, names = {}, ""
    for condition, rules, *cells in rows:
        names = condition or names
        found |= {(name, rule): cells for name in names.split(", ") for rule in rules.split(", ")}
    assert found == {
        (name, rule): [score_cell(task, key, scores) for key in keys]
        for name, rules in results["metrics"]["conditions"].items()
        for rule, scores in rules.items()
    }


def test_a_report_that_must_not_show_rows_has_no_values_of_them(
    task_predictor: Predictor, task_run: SplitRun, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SEVERITIES", (5,))
    results, page = write(tmp_path, task_predictor, task_run, manifest, samples=False)
    assert results["wrongest"] == []
    assert "speaker 1" not in page + json.dumps(results)
    assert "a dot on the diagonal" not in page
    assert results.get("residuals", {"rows": {"points": []}})["rows"]["points"] == []


def test_the_card_says_what_is_answered_and_how_well(task_predictor: Predictor, manifest: Manifest) -> None:
    card, task = model_card(manifest), task_predictor.task
    first = {
        "classes": "Classifies any non-empty subset of image, audio, text, vector into 3 classes:\nred, green, blue.",
        "labels": "Labels, and the probability from which each is answered: red (30.0 %), green (50.0 %), blue (70.0 %).",
        "number": "Estimates the number price in EUR from any non-empty subset of image, audio, text, vector.",
    }
    assert first[task.name] in card
    assert PRIORS[task.name] in card
    row = next(line for line in card.splitlines() if line.startswith("| image+audio |"))
    scores = manifest.metrics["conditions"]["image+audio"]["calibrated"]
    assert [cell.strip() for cell in row.split("|")[2 : 2 + len(task.shown_scores)]] == [
        score_cell(task, score, scores) for score in task.shown_scores
    ]
    assert ("accuracy" in card) == (task.name == "classes")


def test_the_card_begins_with_what_it_is_for_and_has_the_numbers_of_the_report(
    task_predictor: Predictor, task_run: SplitRun, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SEVERITIES", (5,))
    about = manifest.about.model_copy(update={"purpose": "Sorts **things**.", "limits": ["Other things.", "<b>"]})
    results = gather(task_predictor, task_run)
    intervals = {name: rules["calibrated"] for name, rules in results["intervals"].items()}
    manifest = manifest.model_copy(update={"about": about, "metrics": manifest.metrics | {"intervals": intervals}})
    card, (_, page) = model_card(manifest), write(tmp_path, task_predictor, task_run, manifest, samples=True)
    start = f"# {manifest.name}\n\n## Purpose\n\nSorts **things**.\n\n## Do not use it for\n\n- Other things.\n- <b>\n\nMade on "
    assert card.startswith(start)
    part = page[page.index(">sent</th>") : page.index("</section>", page.index(">sent</th>"))]
    cells = {tuple(found[0].split()): found[1:] for found in map(cells_of, re.findall(r"<tr>(.*?)</tr>", part))}
    score = SECTIONS[task_predictor.task.name].score
    table = [[cell.strip() for cell in line.split("|")] for line in card[card.index("| available") :].splitlines()]
    at, rows_of = table[0].index(task_predictor.task.title(score)), {row[1]: row for row in table if len(row) > 2}
    for names, (value, likely, rows) in cells.items():
        told = rows_of["+".join(names)]
        assert told[-3:-1] == [likely, rows]
        assert told[at] == value or (value, told[at]) == (f"{rows} of {rows}", "100.0 %")


def test_the_card_says_what_sets_promise_and_which_rest_on_other_rows(
    task_bundle: Path, task_run: SplitRun, manifest: Manifest
) -> None:
    """Validation had many rows with everything there, and 4 with audio alone."""
    assert "coverage of" not in model_card(manifest)
    predictor = Predictor(Bundle.load(task_bundle))
    task, outputs, everything = predictor.task, task_run.outputs, "+".join(NAMES)
    answers = analysis.fused_answers(predictor, outputs, "calibrated", outputs.present)
    scores, weights = (each.reshape(-1) for each in task.nonconformity(answers, task_run.targets))
    few = Thresholds.of(scores[:4], weights[:4])
    thresholds = {rule: {everything: Thresholds.of(scores, weights), "audio": few} for rule in SHOWN_RULES}
    predictor.bundle.intervals = Intervals(task, thresholds)
    metrics = score_split(predictor, task_run, 1, SHOWN_RULES)
    json.dumps(metrics, allow_nan=False)
    assert metrics["conditions"][everything]["calibrated"]["pooled"] == 0
    assert metrics["conditions"]["audio"]["calibrated"]["pooled"] == 1
    card = model_card(manifest.model_copy(update={"metrics": metrics}))
    promised = {
        "classes": "A prediction set for a coverage of 90 % contains the true class in 90 % of the cases.",
        "labels": "A set for a coverage of 90 % contains 90 % of the labels of a row, on average.",
        "number": "An interval for a coverage of 90 % contains the true value in 90 % of the cases.",
    }
    assert promised[task.name] in card
    assert "This holds on average over rows like those of validation" in card
    (shared,) = (line for line in card.splitlines() if "too few rows" in line)
    assert "audio" in shared
    assert everything not in shared
    (head,) = (line for line in card.splitlines() if line.startswith("| available"))
    assert head.count("coverage") == (task.name == "number")
    size = PROMISES[task.name][1][1]
    assert f"{task.title(size)} {task.shown(size, metrics['conditions']['full']['calibrated'][size])}" in card
