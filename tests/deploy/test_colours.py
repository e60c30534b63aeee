"""The dashboard of one model: each modality in the colour that it has on the page."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

from deploy.grafana import colours
from mla_serve import palette

NAMES = ["rear camera", "text", "<b>"]


def test_a_modality_has_its_hue_wherever_a_series_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"modalities": {name: {} for name in NAMES}}), encoding="utf-8")
    out = tmp_path / "dashboard.json"
    monkeypatch.setattr(sys, "argv", ["colours", "--model", str(tmp_path), "--out", str(out)])
    colours.main()
    made, before = (json.loads(path.read_text(encoding="utf-8")) for path in (out, colours.DASHBOARD))
    dark = {name: hue for name, (_, hue) in zip(NAMES, palette.hues(), strict=False)}
    touched = 0
    for panel in made["panels"]:
        found = panel["fieldConfig"]["overrides"]
        if any(target["legendFormat"] == "{{modality}}" for target in panel["targets"]):
            assert {one["matcher"]["options"]: one["properties"][0]["value"]["fixedColor"] for one in found} == dark
            touched += 1
        else:
            assert found == []
    assert touched >= 4
    for panel in made["panels"]:
        panel["fieldConfig"]["overrides"] = []
    assert made == before


def test_the_dashboard_that_is_given_is_left_as_it_is() -> None:
    dashboard = json.loads(colours.DASHBOARD.read_text(encoding="utf-8"))
    kept = copy.deepcopy(dashboard)
    colours.coloured(dashboard, NAMES)
    assert dashboard == kept
