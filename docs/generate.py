"""Write what can be computed into the documentation: settings, errors, flags, measured results, real answers.

    python docs/generate.py                    # writes; needs models/digits for results and answers
    python docs/generate.py --check            # writes nothing; exit code 1 when something is out of date

`<!-- settings -->` ... `<!-- end -->` marks a block of a page: the text between the marks is replaced. The pages of
WHOLE_PAGES are generated from the first line to the last.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
MODEL = ROOT / "models" / "digits"
PLACE = re.compile(r"<!-- ([a-z]+)(?:: ([^\n]*?))? -->\n(.*?)<!-- end -->", re.DOTALL)
FROM_BUNDLE = ("results", "answer")
CONDITIONS = {
    "full": "everything",
    "missing20": "20 % missing at random",
    "missing50": "50 % missing",
    "missing80": "80 % missing",
}
SCORES = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE"}
RULES = ("calibrated", "paper")


def settings(_: str) -> str:
    """Tabulate the operator's settings."""
    from mla_serve.serve.settings import PREFIX, Settings

    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default in (None, "") else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def errors(_: str) -> str:
    """Tabulate the problems that the service answers with, and what the Python client raises for each."""
    from mla_serve.client.errors import from_response
    from mla_serve.errors import InputError
    from mla_serve.serve.problems import PROBLEM_KINDS, Problem

    lines = ["| status | type | meaning | the Python client raises |", "|---|---|---|---|"]
    for cls, kind in sorted(PROBLEM_KINDS.items(), key=lambda item: (item[1].status, item[1].slug)):
        problem = Problem(kind.type, kind.title, kind.status, "...", "..." if issubclass(cls, InputError) else None)
        raised = type(from_response(kind.status, json.dumps(problem.to_dict()).encode())).__name__
        lines.append(f"| {kind.status} | `{kind.type}` | {kind.title} | `{raised}` |")
    return "\n".join(lines)


def formats(_: str) -> str:
    """Tabulate the formats of files that are read, and those that are named with a command that converts them."""
    from mla_serve.inputs.audio import FORMATS as SOUNDS
    from mla_serve.inputs.image import FORMATS as IMAGES
    from mla_serve.inputs.media.formats import BRANDS, MARKUP, STARTS

    own = [name for name in IMAGES if name != "HEIF"]
    read = {"HEIC", "HEIF", *IMAGES}
    every = {known.name: known for _, known in (*BRANDS, *STARTS, *MARKUP) if known.step == "convert it"}
    named = [
        known for name, known in every.items() if name.upper() not in read and name.split()[0] not in {*SOUNDS, "Ogg"}
    ]
    lines = ["| modality | read | recognised, and refused with the command that converts it |", "|---|---|---|"]
    images = [known.name for known in named if known.to_image and not known.to_sound]
    lines.append(f"| image | {', '.join(own)}; HEIC with `pip install 'mla_serve[heif]'` | {', '.join(images)} |")
    sounds = [known.name for known in named if known.to_sound and not known.to_image]
    lines.append(f"| audio | {', '.join(SOUNDS)} | {', '.join(sounds)} |")
    films = [known.name for known in named if known.to_sound and known.to_image]
    lines.append(f"| both | | {', '.join(films)} |")
    return "\n".join(lines)


def flags(command: str) -> str:
    """Quote the help of a command."""
    from mla_serve.__main__ import COMMANDS
    from mla_serve.console import parse

    output = io.StringIO()
    os.environ |= {"COLUMNS": "110", "NO_COLOR": "1"}
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(output):
        parse(COMMANDS[command].load(command)[1], ["--help"], f"mla-serve {command}")
    lines = [line.rstrip() for line in output.getvalue().strip().splitlines()]
    return "\n".join(["```text", *lines, "```"])


def commands(_: str) -> str:
    """Tabulate the commands."""
    from mla_serve.__main__ import COMMANDS

    lines = ["| command | what it does | extra to install |", "|---|---|---|"]
    lines += [f"| `{name}` | {each.does} | {each.needs or 'cpu or gpu'} |" for name, each in COMMANDS.items()]
    return "\n".join(lines)


def flags_page() -> str:
    """Write the page with the help of every command."""
    from mla_serve.__main__ import COMMANDS

    parts = ["# Flags of each command", *(f"## {name}\n\n{flags(name)}" for name in COMMANDS)]
    return "\n\n".join(parts) + "\n"


def results(extent: str) -> str:
    """Tabulate what was measured when the bundle was exported; `short` leaves out NLL and the pairs of modalities."""
    from mla_serve.bundle.manifest import Bundle

    manifest = Bundle.load(MODEL).manifest
    shown = ("accuracy", "ece") if extent == "short" else ("accuracy", "nll", "ece")
    lines = [f"| sent | {' | '.join(f'{rule}: {SCORES[score]}' for rule in RULES for score in shown)} |"]
    lines.append("|---" * (1 + len(shown) * len(RULES)) + "|")
    for name, scores in manifest.metrics["conditions"].items():
        if name == "+".join(manifest.modalities) or (extent == "short" and "+" in name):
            continue
        cells = [f"{scores[rule][score]:.3f}" for rule in RULES for score in shown]
        lines.append(f"| {_condition(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _condition(name: str) -> str:
    return CONDITIONS.get(name, name.replace("+", " and ") if "+" in name else f"{name} alone")


def answer(asked: str) -> str:
    """Quote the service's answer to golden sample 7, digits cut to four."""
    from mla_serve.bundle.manifest import Bundle
    from mla_serve.bundle.predictor import Predictor

    bundle = Bundle.load(MODEL)
    words = dict(word.partition("=")[::2] for word in asked.split())
    top_k = int(words.pop("top_k", len(bundle.manifest.classes)))
    sample: dict[str, Any] = {
        name: value or (MODEL / "golden" / f"7.{name}").read_bytes() for name, value in words.items()
    }
    prediction = Predictor(bundle).predict([sample], top_k=top_k)[0].to_dict()
    content = prediction | {"model": {"name": bundle.manifest.name, "sha256": bundle.manifest.sha256}}
    short = json.loads(json.dumps(content), parse_float=lambda text: float(f"{float(text):.4g}"))
    return "\n".join(["```json", *_layout(short), "```"])


def _layout(content: dict[str, Any]) -> Iterator[str]:
    """Write JSON with one line for each entry, and one for each modality."""
    yield "{"
    for at, (name, value) in enumerate(content.items()):
        comma = "," if at < len(content) - 1 else ""
        if name == "modalities":
            yield f" {json.dumps(name)}: {{"
            inner = [f"  {json.dumps(key)}: {json.dumps(each, ensure_ascii=False)}" for key, each in value.items()]
            yield ",\n".join(inner)
            yield f" }}{comma}"
        else:
            yield f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}{comma}"
    yield "}"


WRITERS: dict[str, Callable[[str], str]] = {
    writer.__name__: writer for writer in (settings, errors, formats, commands, results, answer)
}
WHOLE_PAGES: dict[str, Callable[[], str]] = {"docs/reference/flags.md": flags_page}


def fill(text: str, with_bundle: bool) -> str:
    """Fill every marked block of a page."""

    def write(place: re.Match[str]) -> str:
        name, argument, old = place.group(1), place.group(2) or "", place.group(3)
        if name in FROM_BUNDLE and not with_bundle:
            return place.group(0)
        head = f"<!-- {name}{f': {argument}' if argument else ''} -->"
        return f"{head}\n{WRITERS[name](argument)}\n<!-- end -->" if name in WRITERS else f"{head}\n{old}<!-- end -->"

    return PLACE.sub(write, text)


def pages() -> list[Path]:
    """List the README and the pages under docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def stale(with_bundle: bool) -> Iterator[tuple[Path, str, str]]:
    """Give each page that is out of date: path, old text, new text."""
    for path in pages():
        old = path.read_text(encoding="utf-8")
        new = fill(old, with_bundle)
        if new != old:
            yield path, old, new
    for name, write in WHOLE_PAGES.items():
        path = ROOT / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (new := write()) != old:
            yield path, old, new


def main() -> None:
    """Write the pages, or say which are out of date."""
    check = "--check" in sys.argv
    for path, old, new in stale((MODEL / "manifest.json").is_file()):
        print(path.relative_to(ROOT))
        if check:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True)))
        else:
            path.write_text(new, encoding="utf-8")
    if check and list(stale((MODEL / "manifest.json").is_file())):
        sys.exit(1)


if __name__ == "__main__":
    main()
