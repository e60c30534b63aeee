"""A bundle that is missing or broken ends every command that reads one with exit code 2 and one line that names it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mla_serve.bundle.manifest import MANIFEST, Bundle, _digest
from mla_serve.errors import BundleError
from mla_serve.fusion.intervals import Intervals
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings
from tests.commands.test_commands import one_line, run

Break = Callable[[Path], object]


def edited(change: Callable[[dict[str, Any]], object]) -> Break:
    """Change the manifest, and its hashes with it: what a tool that writes bundles may get wrong."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text())
        change(content)
        (folder / MANIFEST).write_text(json.dumps(content))
        rehash(folder)

    return edit


def rewritten(name: str, content: bytes) -> Break:
    """Write other content to a file, with the right hash."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)
        rehash(folder)

    return write


def rehash(folder: Path) -> None:
    """Write the hashes of all files, and that of the manifest, into the manifest."""
    content = json.loads((folder / MANIFEST).read_text())
    if isinstance(content, dict) and "files" in content:
        for name in content["files"]:
            if (folder / name).is_file():
                content["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        content["sha256"] = _digest(content)
        (folder / MANIFEST).write_text(json.dumps(content))


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


def without_files(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


BREAKS: dict[str, Break] = {
    "missing": shutil.rmtree,
    "a file": replaced_by_a_file,
    "empty": without_files,
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "manifest is a folder": lambda folder: ((folder / MANIFEST).unlink(), (folder / MANIFEST).mkdir()),
    "manifest is empty": lambda folder: (folder / MANIFEST).write_text(""),
    "manifest is cut": lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:200]),
    "manifest is no text": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"),
    "manifest is a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "manifest is deep": lambda folder: (folder / MANIFEST).write_text("[" * 100_000),
    "other format": edited(lambda content: content.update(format=99)),
    "no format": edited(lambda content: content.pop("format")),
    "no classes": edited(lambda content: content["task"].pop("classes")),
    "classes are numbers": edited(lambda content: content["task"].update(classes=[1, 2, 3])),
    "unknown kind": edited(lambda content: content["modalities"]["text"].update(kind="scent")),
    "input lacks a field": edited(lambda content: content["modalities"]["text"]["input"].pop("length")),
    "input has a wrong field": edited(lambda content: content["modalities"]["image"]["input"].update(width="wide")),
    "input has another shape": edited(lambda content: content["modalities"]["image"]["input"].update(width=9)),
    "golden sample is gone": edited(lambda content: content["golden"][0]["payloads"].update(image="golden/none")),
    "golden sample is no file": edited(lambda content: content["golden"][0]["payloads"].update(image=[1.0])),
    "one class more": edited(lambda content: content["task"]["classes"].append("black")),
    "graph is missing": lambda folder: (folder / "text.onnx").unlink(),
    "graph is cut": lambda folder: (folder / "text.onnx").write_bytes((folder / "text.onnx").read_bytes()[:99]),
    "graph is garbage": rewritten("text.onnx", b"no graph"),
    "graph is empty": rewritten("text.onnx", b""),
    "graph of another modality": lambda folder: rewritten("text.onnx", (folder / "vector.onnx").read_bytes())(folder),
    "head is an encoder": lambda folder: rewritten("head.onnx", (folder / "vector.onnx").read_bytes())(folder),
    "tokenizer is garbage": rewritten("tokenizer.json", b"{}"),
    "tokenizer is missing": lambda folder: next(folder.glob("*token*")).unlink(),
}


@pytest.fixture
def broken(request: pytest.FixtureRequest, bundle_copy: Path) -> Path:
    BREAKS[request.param](bundle_copy)
    return bundle_copy


every_break = pytest.mark.parametrize("broken", BREAKS, indirect=True)


def flags(command: str, folder: Path) -> tuple[str, ...]:
    """Write what a command reads beside the bundle; returns its name and flags."""
    for name in ("train", "test", "rows"):
        (folder / f"{name}.jsonl").write_text('{"label": "red", "text": "a"}\n{"label": "blue", "text": "b"}\n')
    table = ("predict", "--table", str(folder / "rows.jsonl"), "--out", str(folder / "out.parquet"))
    others = {"predict": ("--text", "a"), "evaluate": ("--data", str(folder)), "tune": ()}
    return table if command == "table" else (command, *others[command])


@every_break
@pytest.mark.parametrize("command", ["predict", "table", "evaluate"])
def test_a_broken_bundle_is_one_line_and_the_code_of_what_can_be_mended(
    command: str, broken: Path, tmp_path: Path
) -> None:
    line = one_line(run(*flags(command, tmp_path), "--model", str(broken), code=2))
    assert str(broken) in line or MANIFEST in line


@pytest.mark.parametrize("broken", ["missing", "graph is missing", "graph is garbage"], indirect=True)
def test_a_broken_bundle_is_not_tuned(broken: Path, tmp_path: Path) -> None:
    assert str(broken) in one_line(run(*flags("tune", tmp_path), "--model", str(broken), code=2))


@every_break
def test_a_broken_bundle_is_not_served(broken: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_predictor(Settings(model=broken, device="cpu"))
    assert "\n" not in str(caught.value)


def test_a_golden_sample_that_cannot_be_read_is_not_served(bundle_copy: Path) -> None:
    edited(lambda content: content["golden"][0]["payloads"].update(image="text.onnx"))(bundle_copy)
    with pytest.raises(BundleError, match=r"a golden sample cannot be read \(image: .*expected PNG"):
        open_predictor(Settings(model=bundle_copy, device="cpu"))


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_thresholds_that_cannot_be_read_are_refused_by_the_name_of_their_file(
    make_bundle: Callable[..., Path], tmp_path: Path, content: bytes
) -> None:
    folder = make_bundle(tmp_path / "words", {"words": "text"}, intervals=Intervals())
    rewritten("intervals.npz", content)(folder)
    with pytest.raises(BundleError, match=r"intervals\.npz: cannot be used .*; export the bundle again"):
        Bundle.load(folder)


def test_thresholds_whose_file_is_not_listed_are_refused(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "words", {"words": "text"})
    edited(lambda manifest: manifest.update(intervals="intervals.npz"))(folder)
    with pytest.raises(BundleError, match=r"names 'intervals\.npz', which it does not list as a file"):
        Bundle.load(folder)
