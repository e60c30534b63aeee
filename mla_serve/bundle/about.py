"""What people should know about a model: its purpose, what not to use it for, its data, its licence.

It is written in Markdown (`--about FILE`) under the headings of SECTIONS. Text under no heading, or under another one, is
about the data. A title above all is left out.
"""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

SECTIONS = {
    "purpose": "purpose",
    "do not use it for": "limits",
    "limits": "limits",
    "data": "data",
    "licence": "licence",
    "license": "licence",
}
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$")
ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,2}[.)])\s+")


class About(BaseModel):
    """What people should know about a model. purpose, data and licence are Markdown; limits has one for each entry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: str = ""
    limits: list[str] = []
    data: str = ""
    licence: str = ""


def parse_about(text: str) -> About:
    """Read Markdown with any of the headings of SECTIONS; an unknown heading below the title stays in the text on the data."""
    parts: dict[str, list[str]] = {"purpose": [], "limits": [], "data": [], "licence": []}
    current, fenced = "data", False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else HEADING.match(line)
        if heading and (known := SECTIONS.get(heading[1].strip().rstrip(":").lower())):
            current = known
            continue
        if heading and line.startswith("# ") and not any(map("".join, parts.values())):
            continue  # the title of the file
        if heading:
            current = "data"
        parts[current].append(line)
    purpose, data, licence = ("\n".join(parts[name]).strip() for name in ("purpose", "data", "licence"))
    return About(purpose=purpose, limits=_items(parts["limits"]), data=data, licence=licence)


def _items(lines: list[str]) -> list[str]:
    """Join the lines of each list item or paragraph."""
    items: list[list[str]] = [[]]
    for line in lines:
        if ITEM.match(line) or not line.strip():
            items.append([])
        if stripped := ITEM.sub("", line).strip():
            items[-1].append(stripped)
    return [" ".join(item) for item in items if item]
