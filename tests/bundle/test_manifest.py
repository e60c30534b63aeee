"""The bundle: what was written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mla_serve.bundle.about import About
from mla_serve.bundle.manifest import MANIFEST, Bundle, Golden, Manifest, _read_manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import BundleError
from mla_serve.output.replacing import staging_folder

Change = Callable[..., None]


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_what_was_written_is_read(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    files = content_of(tiny_bundle)
    assert set(bundle.manifest.files) == set(files) - {MANIFEST}
    assert all(bundle.read(name) == files[name] for name in bundle.manifest.files)
    assert bundle.manifest.digest() == bundle.manifest.sha256
    assert {name: reader.kind for name, reader in bundle.inputs.items()} == {
        name: modality.kind for name, modality in bundle.manifest.modalities.items()
    }
    assert bundle.fusion.sharpness == 1.5
    assert bundle.golden_answers().shape == (2, 3)


def test_golden_samples_are_as_a_caller_sends_them(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    for sample in bundle.golden_samples():
        assert {name: type(payload) for name, payload in sample.items()} == {
            "image": bytes,
            "audio": bytes,
            "text": str,
            "vector": list,
        }
        for name, payload in sample.items():
            bundle.inputs[name].decode(payload, name)


def test_inputs_decode_as_those_that_were_written(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    first = Bundle.load(make_bundle(tmp_path / "one"))
    again = Bundle.load(make_bundle(tmp_path / "two"))
    assert first.inputs == again.inputs
    payload = first.inputs["text"].generate(np.random.default_rng(0))
    np.testing.assert_array_equal(
        first.inputs["text"].decode(payload, "text"), again.inputs["text"].decode(payload, "text")
    )


def test_a_bundle_of_format_1_is_read(format_1: Callable[[Path], Path], tmp_path: Path) -> None:
    bundle = Bundle.load(format_1(tmp_path / "old"))
    assert bundle.task.names == ("red", "green", "blue")
    assert (bundle.manifest.format, bundle.manifest.intervals, bundle.manifest.about) == (2, None, About())
    assert [one.truth for one in bundle.manifest.golden] == [None, None]
    predictor = Predictor(bundle)
    assert predictor.verify() < 1e-6
    reply = predictor.predict([{"words": "abc"}], coverage=0.5)[0].to_dict()
    assert reply["prediction_set"]["rows"] == 3


def test_a_changed_manifest_of_format_1_is_refused(format_1: Callable[[Path], Path], tmp_path: Path) -> None:
    path = format_1(tmp_path / "old") / MANIFEST
    path.write_text(path.read_text().replace('"red"', '"rot"'))
    assert_refused(path.parent, "does not match its sha256")


def test_many_numbers_of_a_golden_sample_are_in_a_file(bundle_copy: Path, change_manifest: Change) -> None:
    numbers = Bundle.load(bundle_copy).golden_samples()[0]["vector"]
    name = "golden/0.vector"
    (bundle_copy / name).write_text(json.dumps(numbers))

    def name_file(content: dict[str, Any]) -> None:
        content["golden"][0]["payloads"]["vector"] = name
        content["files"][name] = hashlib.sha256((bundle_copy / name).read_bytes()).hexdigest()

    change_manifest(bundle_copy, name_file)
    bundle = Bundle.load(bundle_copy)
    assert bundle.golden_samples()[0]["vector"] == numbers
    assert Predictor(bundle).verify() < 1e-6
    change_manifest(bundle_copy, lambda content: content["golden"][0]["payloads"].update(vector="golden/none"))
    assert_refused(bundle_copy, "golden/none")


def test_a_flipped_byte_in_any_file_is_refused_by_name(bundle_copy: Path) -> None:
    for name, content in content_of(bundle_copy).items():
        path = bundle_copy / name
        for at in {0, len(content) // 2, len(content) - 2}:
            damaged = bytearray(content)
            damaged[at] ^= 1
            path.write_bytes(damaged)
            assert_refused(bundle_copy, name)
        path.write_bytes(content)
    assert Bundle.load(bundle_copy)


def test_a_file_that_grew_shrank_or_is_missing_is_refused_by_name(bundle_copy: Path) -> None:
    for name, content in content_of(bundle_copy).items():
        path = bundle_copy / name
        for changed in (content + b"x", content[:-2], b""):
            path.write_bytes(changed)
            assert_refused(bundle_copy, name)
        path.unlink()
        assert_refused(bundle_copy, name)
        path.write_bytes(content)
    assert Bundle.load(bundle_copy)


def test_a_folder_that_is_no_bundle_says_what_one_is(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", MANIFEST, "mla-serve export")
    (tmp_path / MANIFEST).write_text("[]")
    assert_refused(tmp_path, MANIFEST)
    (tmp_path / MANIFEST).write_bytes(b"\xff")
    assert_refused(tmp_path, MANIFEST)


def test_a_graph_in_the_place_of_a_file_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "head.onnx").unlink()
    (bundle_copy / "head.onnx").mkdir()
    assert_refused(bundle_copy, "head.onnx")


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_an_unknown_version_is_refused(bundle_copy: Path, change_manifest: Change, version: object) -> None:
    change_manifest(bundle_copy, lambda manifest: manifest.update(format=version), seal=False)
    assert_refused(bundle_copy, MANIFEST, f"format {version!r}")


def test_an_edited_manifest_is_refused(bundle_copy: Path, change_manifest: Change) -> None:
    original = (bundle_copy / MANIFEST).read_bytes()
    edits: list[Callable[[dict[str, Any]], object]] = [
        lambda manifest: manifest["task"].update(classes=["red", "blue", "green"]),
        lambda manifest: manifest["fusion"].update(sharpness=2.0),
        lambda manifest: manifest["modalities"]["image"]["input"].update(max_pixels=10**12),
        lambda manifest: manifest["golden"].clear(),
        lambda manifest: manifest.update(sha256=""),
    ]
    for edit in edits:
        change_manifest(bundle_copy, edit, seal=False)
        assert_refused(bundle_copy, MANIFEST, "sha256")
        (bundle_copy / MANIFEST).write_bytes(original)


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda manifest: manifest.update(surprise=1), "surprise"),
        (lambda manifest: manifest.pop("task"), "task"),
        (lambda manifest: manifest.update(modalities={}), "modalities"),
        (lambda manifest: manifest.pop("tolerance"), "tolerance"),
        (lambda manifest: manifest["modalities"].update({"../up": manifest["modalities"]["text"]}), "modalities"),
        (lambda manifest: manifest["fusion"]["temperatures"].update(text=0), "temperatures"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(
    bundle_copy: Path, change_manifest: Change, edit: Callable[[dict[str, Any]], object], word: str
) -> None:
    change_manifest(bundle_copy, edit, seal=False)
    assert_refused(bundle_copy, MANIFEST, word)


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda manifest: manifest["modalities"]["text"].update(kind="video"), "video"),
        (lambda manifest: manifest["modalities"]["text"].update(encoder="none.onnx"), "none.onnx"),
        (lambda manifest: manifest["modalities"]["text"].update(head="other"), "other"),
        (lambda manifest: manifest["modalities"]["text"]["input"].update(colour="red"), "colour"),
        (lambda manifest: manifest["modalities"]["text"]["input"].update(tokenizer="none.json"), "text"),
        (lambda manifest: manifest["fusion"]["temperatures"].pop("text"), "temperatures"),
        (lambda manifest: manifest["fusion"].update(prior_once=True), "prior"),
        (lambda manifest: manifest["golden"][0]["answer"].pop(), "golden"),
        (lambda manifest: manifest["golden"][0]["payloads"].update(video="x"), "golden"),
        (lambda manifest: manifest["golden"][0]["payloads"].clear(), "golden"),
    ],
)
def test_a_manifest_whose_parts_do_not_fit_is_refused_although_its_hash_does(
    bundle_copy: Path, change_manifest: Change, edit: Callable[[dict[str, Any]], object], word: str
) -> None:
    change_manifest(bundle_copy, edit)
    assert_refused(bundle_copy, word)


@pytest.mark.parametrize("outside", ["../secret", "golden/../../secret", "/etc/hostname"])
def test_a_path_that_leaves_the_folder_is_refused(bundle_copy: Path, change_manifest: Change, outside: str) -> None:
    (bundle_copy.parent / "secret").write_text("secret")
    change_manifest(bundle_copy, lambda manifest: manifest["files"].update({outside: "0" * 64}))
    assert_refused(bundle_copy, "leaves the bundle's folder")


def test_a_link_out_of_the_folder_is_refused(bundle_copy: Path) -> None:
    path = bundle_copy / "text.onnx"
    outside = bundle_copy.parent / "text.onnx"
    path.rename(outside)
    path.symlink_to(outside)
    assert_refused(bundle_copy, "text.onnx", "leaves the bundle's folder")


def test_a_bundle_may_itself_be_reached_by_a_link(bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle_copy)
    assert Bundle.load(tmp_path / "current").manifest.name == "tiny"


def write_half(target: Path) -> None:
    with staging_folder(target, target.name) as folder:
        (folder / "half").write_text("half")
        raise RuntimeError("half way")


def test_staged_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        write_half(tmp_path / "models" / "new")
    assert list((tmp_path / "models").iterdir()) == []


def test_staged_leaves_the_old_bundle_when_it_fails(bundle_copy: Path) -> None:
    before = content_of(bundle_copy)
    with pytest.raises(RuntimeError, match="half way"):
        write_half(bundle_copy)
    assert content_of(bundle_copy) == before
    assert [path.name for path in bundle_copy.parent.iterdir()] == ["tiny"]


def test_staged_replaces_the_old_bundle_as_a_whole_and_keeps_it(bundle_copy: Path) -> None:
    before = content_of(bundle_copy)
    with staging_folder(bundle_copy, "tiny") as folder:
        (folder / "new").write_text("new")
        assert (bundle_copy / MANIFEST).exists()
    assert content_of(bundle_copy) == {"new": b"new"}
    assert content_of(bundle_copy.with_name("tiny.old")) == before
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["tiny", "tiny.old"]


def test_the_manifest_is_plain_json_that_reads_back(tiny_bundle: Path) -> None:
    content = json.loads((tiny_bundle / MANIFEST).read_text(encoding="utf-8"))
    assert Manifest.model_validate(content) == Bundle.load(tiny_bundle).manifest


ANY_TEXT = st.one_of(st.text(), st.from_regex(r"[a\[\] \n\t,.eE+\-0-9\"\\]{1,12}", fullmatch=True))


@given(text=ANY_TEXT, labels=st.lists(ANY_TEXT, min_size=2, max_size=4, unique=True))
@example(text="see [ 3 ] and [ ... ]", labels=["[ - ]", "[  ]", "[\n3,\n4\n]", "[ 1, 2 ]"])
def test_a_manifest_with_any_label_and_golden_text_reads_back(
    text: str, labels: list[str], tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    manifest = Bundle.load(tiny_bundle).manifest
    golden = Golden(payloads={"text": text}, answer=[0.25] * len(labels))
    task = {"name": "classes", "classes": labels}
    folder = tmp_path_factory.mktemp("written")
    written = write_manifest(folder, manifest.model_copy(update={"task": task, "golden": [golden]}))
    assert _read_manifest(folder) == written
    lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    assert any(f"[{', '.join(['0.25'] * len(labels))}]" in line for line in lines)
