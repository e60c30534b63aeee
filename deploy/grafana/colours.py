"""Give each modality of a bundle its colour in the dashboard, the same as on the page and in the report.

    python -m deploy.grafana.colours --model models/digits --out dashboard.json

The dashboard is for any model, so it knows no modality by name, and Grafana chooses colours. What this writes is for one model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mla_serve import palette

DASHBOARD = Path(__file__).with_name("mla_serve.json")
BY_MODALITY = "{{modality}}"  # the legend of a series of one modality
DARK = 1  # Grafana's own ground


def coloured(dashboard: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the dashboard with a fixed colour for each modality wherever a panel has a series for each.

    Args: names, in the order of the model.
    """
    hues = palette.hues()
    overrides = [_override(name, hues[at % len(hues)][DARK]) for at, name in enumerate(names)]
    panels = [
        panel | {"fieldConfig": panel["fieldConfig"] | {"overrides": overrides}} if _by_modality(panel) else panel
        for panel in dashboard["panels"]
    ]
    return dashboard | {"panels": panels}


def _by_modality(panel: dict[str, Any]) -> bool:
    return any(target["legendFormat"] == BY_MODALITY for target in panel["targets"])


def _override(name: str, colour: str) -> dict[str, Any]:
    value = {"mode": "fixed", "fixedColor": colour}
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": value}]}


def main() -> None:
    """Read a bundle's modalities and write the dashboard."""
    parser = argparse.ArgumentParser(description="Give each modality of a bundle its colour in the dashboard.")
    parser.add_argument("--model", type=Path, required=True, help="the folder of the bundle")
    parser.add_argument("--out", type=Path, required=True, help="the dashboard to import in Grafana")
    options = parser.parse_args()
    names = list(json.loads((options.model / "manifest.json").read_text(encoding="utf-8"))["modalities"])
    dashboard = coloured(json.loads(DASHBOARD.read_text(encoding="utf-8")), names)
    options.out.write_text(json.dumps(dashboard, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
