"""Verdicts and report on made-up rows: every line of what was asked is judged, the worse side is missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import serve
from benchmarks.serving.report import markdown, merge_results, read_results, write_report, write_results
from benchmarks.serving.serve import ServeBenchConfig
from benchmarks.serving.verdicts import stray_stages, verdicts
from mla_serve.errors import ConfigError

ISSUE_FIELDS = {
    "system", "bundle", "subset_mix", "connections", "run", "rps", "p50_ms", "p95_ms", "p99_ms", "cpu_s_per_1000",
    "peak_mb", "ceiling_rps",
}  # fmt: skip
SUBSETS = ("image", "audio", "text", "image+audio", "image+text", "audio+text", "image+audio+text")
CEILING_RPS = 1000.0


def row(system: str, bundle: str, connections: int, run: int, rps: float) -> dict[str, Any]:
    heard = serve.LoadResult(1.0, {subset: [1.0, 2.0, 3.0] for subset in SUBSETS}, 0.01)
    made = serve._row(bundle, system, connections, run, heard, 0.02, 100.0)
    return made | {"rps": rps, "ceiling_rps": CEILING_RPS, "start_s": 3.0, "client_cpu_share": 0.1}


def results(ours: float = 950.0, crowded: float = 950.0, start: float = 1.0) -> dict[str, Any]:
    """Make a run of five repeats: the peers at 300, the repeats shifted a little, all alike."""
    rows = []
    for run in range(5):
        shift = 1 + run / 100
        for bundle in ("digits", "resnet18"):
            for connections in (1, 8, 32):
                for peer in ("litserve", "bentoml_typed", "torch_eager"):
                    rows.append(row(peer, bundle, connections, run, 300.0 * shift))
                rps = crowded if connections == 32 else ours
                rows.append(row("mla_serve", bundle, connections, run, rps * shift))
                rows.append(row("echo", bundle, connections, run, 5000.0))
            rows += [row("ceiling", bundle, processes, run, CEILING_RPS) for processes in (1, 2)]
    starts = [
        {"system": system, "run": run, "start_s": 3.0 + extra, "worker_mb": 150.0 + 50 * extra}
        for run in range(3)
        for system, extra in (("mla_serve", start), ("bentoml_empty", 0.0))
    ]
    named = {subset: [f"decode-{name}" for name in subset.split("+")] + ["fuse"] for subset in SUBSETS}
    run = {
        "bundles": ["digits", "resnet18"], "date": "2026-11-25",
        "command": "make bench-serve", "quick": False, "config": {"repeats": 5}, "machine": "a machine, 2 cores",
        "versions": {"python": "3.11"}, "environment": {}, "load_before": [0.1, 0.1, 0.1], "busy": False, "took_s": 900,
    }  # fmt: skip
    return {
        "runs": [run], "starts": starts, "settings": {"digits": {"mla_serve": "usual"}}, "probes": [],
        "torch_weights": {"digits": "bundle"}, "stages": {"digits": named, "resnet18": dict(named)}, "rows": rows,
    }  # fmt: skip


def judged(given: dict[str, Any]) -> dict[str, bool]:
    return {verdict.asked: verdict.met for verdict in verdicts(given)}


def test_rows_have_the_fields_that_were_asked_for() -> None:
    made = row("mla_serve", "digits", 8, 0, 100.0)
    assert set(made) >= ISSUE_FIELDS
    assert made["p50_ms"] == 2.0
    assert made["cpu_s_per_1000"] == pytest.approx(1000 * 0.02 / 21, abs=1e-3)
    assert set(made["subsets"]) == set(SUBSETS)


def test_all_that_was_asked_is_judged_and_can_be_met() -> None:
    met = judged(results())
    assert len(met) == 13
    assert all(met.values())


@pytest.mark.parametrize(
    ("worse", "part"),
    [
        ({"ours": 850.0, "crowded": 850.0}, "3 x bentoml_typed"),
        ({"ours": 550.0, "crowded": 550.0}, "2 x litserve"),
        ({"ours": 850.0, "crowded": 850.0}, "90 % of the ceiling"),
        ({"ours": 250.0, "crowded": 250.0}, "more than torch_eager"),
        ({"crowded": 800.0}, "digits, 32 connections"),
        ({"start": 2.5}, "at most 2 s"),
        ({"start": 1.7}, "at most 80 MB"),
    ],
)
def test_what_falls_short_is_missed(worse: dict[str, float], part: str) -> None:
    found = [met for asked, met in judged(results(**worse)).items() if part in asked]
    assert found == [False]


def test_ratios_are_taken_within_a_repeat() -> None:
    ratio = next(verdict for verdict in verdicts(results()) if "bentoml_typed" in verdict.asked)
    assert list(ratio.values) == pytest.approx([950 / 300] * 5)  # the shift of each repeat cancels


def test_the_tail_is_that_of_the_worst_subset() -> None:
    given = results()
    for each in given["rows"]:
        if (each["system"], each["bundle"], each["connections"]) == ("mla_serve", "digits", 8):
            each["subsets"]["audio+text"]["p99_ms"] = 9.0
    tail = next(verdict for verdict in verdicts(given) if "p99" in verdict.asked)
    assert (tail.median, tail.met) == (4.5, False)
    assert "audio+text" in tail.note


def test_a_stage_of_what_was_not_sent_is_found_and_so_is_a_missing_one() -> None:
    given = results()
    given["stages"]["digits"]["text"] = ["decode-text", "encode-image"]
    given["stages"]["digits"]["audio"] = []
    assert stray_stages(given) == {"digits text": ["encode-image"], "digits audio": ["no stage of audio"]}
    assert "**missed**" in markdown(given)


def test_the_report_is_written_from_the_file_alone(tmp_path: Path) -> None:
    write_results(results(), tmp_path)
    assert json.loads((tmp_path / "serve.json").read_text())["rows"] == results()["rows"]
    write_report(read_results(tmp_path), tmp_path)
    text = (tmp_path / "serve.md").read_text()
    assert "missed" not in text
    assert text.count("| met |") == 14
    assert "2 processes" in text
    assert (tmp_path / "serve.svg").read_text().startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["serve.json", "serve.md", "serve.svg"]


def test_few_repeats_and_a_quick_run_are_told() -> None:
    given = results()
    given["runs"][0] |= {"quick": True, "busy": True, "config": {"repeats": 2}}
    assert "the numbers mean nothing" in markdown(given)
    assert "The machine was busy" in markdown(given)
    assert "Only 2 repeats" in markdown(given)


def test_a_report_without_results_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="measure first"):
        serve.run(ServeBenchConfig(report=True, out=tmp_path))


@pytest.mark.parametrize("given", [{"repeats": 0}, {"seconds": 0.0}, {"large_seconds": -1.0}, {"warm_up": -0.1}])
def test_settings_that_measure_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given)).replace("_", "-")):
        serve.run(ServeBenchConfig(**given))


def test_a_bundle_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="--only vgg: expected digits or resnet18"):
        serve.subjects(ServeBenchConfig(only=("vgg",)))


def test_a_bundle_measured_again_takes_the_place_of_its_rows_alone(tmp_path: Path) -> None:
    first = results()
    assert merge_results(first, tmp_path) == first, "there is nothing to put it beside"
    write_results(first, tmp_path)
    again = results(ours=1900.0)
    again["rows"] = [row for row in again["rows"] if row["bundle"] == "digits"]
    again["stages"], again["torch_weights"] = {"digits": {}}, {"digits": "random"}
    again["runs"][0] |= {"bundles": ["digits"], "date": "2026-12-01", "machine": "another machine", "busy": True}
    together = merge_results(again, tmp_path)
    assert [r for r in together["rows"] if r["bundle"] == "digits"] == again["rows"]
    assert [r for r in together["rows"] if r["bundle"] == "resnet18"] == [
        r for r in first["rows"] if r["bundle"] == "resnet18"
    ]
    assert together["stages"] == {"digits": {}, "resnet18": first["stages"]["resnet18"]}
    assert together["torch_weights"] == {"digits": "random"}
    assert [run["bundles"] for run in together["runs"]] == [["resnet18"], ["digits"]]
    text = markdown(together)
    assert "resnet18: `make bench-serve` on 2026-11-25, 5 repeats in 15.0 minutes.\na machine, 2 cores" in text
    assert "digits: `make bench-serve` on 2026-12-01, 5 repeats in 15.0 minutes.\nanother machine" in text
    assert text.count("was busy") == 1, "of one run alone"
    write_results(together, tmp_path)
    assert [run["bundles"] for run in merge_results(again, tmp_path)["runs"]] == [["resnet18"], ["digits"]]
    again["starts"] = again["starts"][:2]
    assert merge_results(again, tmp_path)["starts"] == first["starts"], "fewer starts do not take the place of more"
