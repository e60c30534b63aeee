"""A model that changes while it is served."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mla_serve.errors import BundleError
from mla_serve.serve.models.current_model import CurrentModel
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.models.watch import LONGEST_AGAIN_S, ModelWatch, fingerprint
from mla_serve.serve.settings import Settings

TEXT = [("text", (None, b"abc"))]


class Place:
    """A link to one of two bundles, what serves it and what watches it."""

    def __init__(self, folder: Path, make_bundle: Callable[..., Path]) -> None:
        self.folder = folder
        self.bundles = [make_bundle(folder / f"tiny_{seed}", seed=seed) for seed in (0, 1)]
        self.link = folder / "current"
        self.point(self.bundles[0])
        settings = Settings(model=self.link, device="cpu")
        self.model = CurrentModel(settings)
        self.model.open()
        self.watch = ModelWatch(settings, self.model)
        self.client = TestClient(self.model)

    def point(self, target: Path) -> None:
        new = self.folder / "new"
        new.symlink_to(target)
        new.replace(self.link)

    def look(self) -> None:
        asyncio.run(self.watch.look())

    def served(self) -> str:
        name: str = self.client.post("/predict", files=TEXT).json()["model"]["name"]
        return name

    def refusal(self) -> Any:
        return self.client.get("/model").json()["update_refused"]


@pytest.fixture
def place(tmp_path: Path, make_bundle: Callable[..., Path]) -> Place:
    return Place(tmp_path, make_bundle)


def test_a_new_bundle_is_taken_up(place: Place) -> None:
    assert place.served() == "tiny_0"
    place.look()
    assert place.served() == "tiny_0"
    place.point(place.bundles[1])
    place.look()
    assert place.served() == "tiny_1"
    assert place.client.get("/model").json()["name"] == "tiny_1"
    assert place.refusal() is None


def test_a_keys_file_that_is_being_written_refuses_no_new_model(
    tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, key = tmp_path / "keys", "k" * 24
    keys.write_text(key)
    model = CurrentModel(Settings(model=make_bundle(tmp_path / "one", seed=0), device="cpu", api_keys_file=keys))
    model.open()
    keys.write_text("")
    model.serve(open_predictor(Settings(model=make_bundle(tmp_path / "two", seed=1), device="cpu")))
    client = TestClient(model)
    monkeypatch.setattr("mla_serve.serve.http.guard.RELOAD_S", -1.0)
    model.keys.reload()  # type: ignore[union-attr]
    assert client.get("/model", headers={"Authorization": f"Bearer {key}"}).status_code == 503
    keys.write_text(key)
    assert client.get("/model").status_code == 401
    assert client.get("/model", headers={"Authorization": f"Bearer {key}"}).json()["name"] == "two"


def test_a_request_that_is_running_ends_with_the_model_it_began_with(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    predictor = place.model._now.routes.answerer.predictor  # type: ignore[union-attr]
    decode_one = predictor.decode_one

    def decode_slowly(name: str, payload: Any) -> Any:
        inside.set()
        assert go_on.wait(30)
        return decode_one(name, payload)

    monkeypatch.setattr(predictor, "decode_one", decode_slowly)
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(place.served()))
    thread.start()
    assert inside.wait(30)
    place.point(place.bundles[1])
    place.look()
    assert place.served() == "tiny_1"
    go_on.set()
    thread.join(30)
    assert answers == ["tiny_0"]


def test_the_old_graphs_are_let_go_though_the_worker_froze_them(place: Place) -> None:
    old = weakref.ref(place.model._now.routes.answerer.predictor)  # type: ignore[union-attr]
    gc.freeze()
    try:
        place.point(place.bundles[1])
        place.look()
        assert old() is None
    finally:
        gc.unfreeze()


def go_round(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.with_name("back"))
    folder.with_name("back").symlink_to(folder)


def put_a_loop_in(folder: Path) -> None:
    (folder / "head.onnx").unlink()
    (folder / "head.onnx").symlink_to(folder / "head.onnx")


def put_a_pipe_in(folder: Path) -> None:
    (folder / "head.onnx").unlink()
    os.mkfifo(folder / "head.onnx")


def damage(folder: Path) -> None:
    (folder / "audio.onnx").write_bytes((folder / "audio.onnx").read_bytes()[:-100])


def drop_a_file(folder: Path) -> None:
    (folder / "head.onnx").unlink()


def cut_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes()[:300])


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "harm", [damage, drop_a_file, cut_the_manifest, remove_all, go_round, put_a_loop_in, put_a_pipe_in]
)
def test_a_bad_bundle_leaves_the_old_one_serving_and_says_so(
    place: Place, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    harm(place.bundles[1])
    place.point(place.bundles[1])
    with caplog.at_level(logging.ERROR):
        place.look()
    assert place.served() == "tiny_0"
    assert place.refusal()["reason"]
    assert str(place.folder) not in place.refusal()["reason"]
    assert "the new bundle is refused" in caplog.text
    assert gauge() == 1.0


def gauge() -> float:
    from prometheus_client import REGISTRY

    value = REGISTRY.get_sample_value("mla_model_update_refused")
    assert value is not None
    return value


def test_a_bundle_that_answers_otherwise_here_is_refused(place: Place, change_manifest: Callable[..., None]) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["golden"][0]["answer"] = [1.0, 0.0, 0.0]

    change_manifest(place.bundles[1], edit)
    place.point(place.bundles[1])
    place.look()
    assert "golden samples differ" in place.refusal()["reason"]
    assert place.served() == "tiny_0"


def test_a_half_copied_bundle_is_taken_up_once_it_is_whole(place: Place) -> None:
    half = place.folder / "half"
    half.mkdir()
    shutil.copy(place.bundles[1] / "manifest.json", half)
    place.point(half)
    place.look()
    assert place.served() == "tiny_0"
    assert place.refusal() is not None
    shutil.copytree(place.bundles[1], half, dirs_exist_ok=True)
    place.look()
    assert place.served() == "tiny_1"
    assert place.refusal() is None
    assert gauge() == 0.0


def test_going_back_to_the_model_that_is_served_clears_the_refusal(place: Place) -> None:
    remove_all(place.bundles[1])
    place.point(place.bundles[1])
    place.look()
    assert place.refusal()
    place.point(place.bundles[0])
    place.look()
    assert place.refusal() is None


def test_a_bug_while_loading_leaves_the_old_model_serving(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr("mla_serve.serve.models.watch.open_predictor", fail)
    place.point(place.bundles[1])
    place.look()
    assert place.served() == "tiny_0"
    assert place.refusal()["reason"] == "it cannot be loaded; the log says why"


def test_looking_goes_on_after_a_bug(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    async def look() -> None:
        looks.append(1)
        raise RuntimeError("a bug")

    monkeypatch.setattr(place.watch, "look", look)

    async def watch() -> None:
        watching = asyncio.ensure_future(place.watch.watch(0.01))
        while len(looks) < 3:
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(watch(), 30))


def test_a_folder_without_a_manifest_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.walk", lambda *_: pytest.fail("it was walked"))
    (tmp_path / "file").write_text("x")
    assert fingerprint(tmp_path) == (str(tmp_path), ())


def test_a_bad_bundle_is_not_read_again_and_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(place.bundles[1])
    place.point(place.bundles[1])
    place.look()
    monkeypatch.setattr("mla_serve.serve.models.watch.open_predictor", lambda *_: pytest.fail("it was read again"))
    place.look()


def test_a_fingerprint_changes_with_anything_in_the_folder(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle(tmp_path / "tiny")
    seen = [fingerprint(folder)]
    (folder / "more").write_text("x")
    seen.append(fingerprint(folder))
    os.utime(folder / "head.onnx", ns=(1, 1))
    seen.append(fingerprint(folder))
    (folder / "audio.onnx").unlink()
    seen.append(fingerprint(folder))
    (tmp_path / "link").symlink_to(folder)
    assert len(set(seen)) == 4
    assert fingerprint(tmp_path / "link") == seen[-1]
    assert fingerprint(tmp_path / "nothing") == (str(tmp_path / "nothing"), ())


def test_a_bundle_of_other_modalities_brings_its_own_fields(place: Place, make_bundle: Callable[..., Path]) -> None:
    place.point(make_bundle(place.folder / "words", {"words": "text"}))
    place.look()
    assert place.client.post("/predict", files=TEXT).status_code == 400
    assert place.client.post("/predict", files=[("words", (None, b"abc"))]).status_code == 200


def test_a_bundle_that_changes_while_a_worker_starts_is_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is looked at before it is read, and not when the worker is done with that."""

    def open_and_change(settings: Settings) -> Any:
        predictor = open_predictor(settings)
        place.point(place.bundles[1])
        return predictor

    monkeypatch.setattr("mla_serve.serve.models.current_model.open_predictor", open_and_change)
    model = CurrentModel(place.watch._settings)
    model.open()
    first = model.sha256
    watch = ModelWatch(place.watch._settings, model, model.kept, model.seen, model.failure)
    asyncio.run(watch.look())
    assert model.sha256 != first


def test_a_thread_that_is_stuck_in_a_model_that_was_retired_is_still_seen(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request has long been answered, with 504."""
    inside, go_on = threading.Event(), threading.Event()
    settings = Settings(model=place.link, device="cpu", request_timeout_s=0.2)
    model = CurrentModel(settings)
    model.open()
    predictor = model.routes.answerer.predictor  # type: ignore[union-attr]

    def be_stuck(name: str, payload: Any) -> Any:
        inside.set()
        assert go_on.wait(30)

    monkeypatch.setattr(predictor, "decode_one", be_stuck)
    assert TestClient(model).post("/predict", files=TEXT).status_code == 504
    assert inside.is_set()
    model.serve(open_predictor(Settings(model=place.bundles[1], device="cpu")))
    assert model.longest() > 0
    time.sleep(0.05)
    assert model.longest() >= 0.05
    go_on.set()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError(), PermissionError(13, "no")])
def test_what_failed_for_a_moment_is_tried_again_ever_more_rarely(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[float] = []
    now = 1000.0
    monkeypatch.setattr("mla_serve.serve.models.watch.time.monotonic", lambda: now)

    def fail(*_: Any) -> Any:
        tried.append(now)
        raise error

    monkeypatch.setattr("mla_serve.serve.models.watch.open_predictor", fail)
    place.point(place.bundles[1])
    while now < 2000:
        place.look()
        now += 1
    gaps = [after - before for before, after in itertools.pairwise(tried)]
    assert gaps[:4] == [2, 4, 8, 16]
    assert max(gaps) <= LONGEST_AGAIN_S
    assert len(tried) < 15
    assert caplog.text.count("the new bundle is refused") == 1, "said once, not at each time"
    assert place.refusal()
    monkeypatch.setattr("mla_serve.serve.models.watch.open_predictor", open_predictor)
    now += LONGEST_AGAIN_S
    place.look()
    assert place.served() == "tiny_1"
    assert place.refusal() is None


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a folder that the workers of a service share."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("harm", [damage, drop_a_file, cut_the_manifest, remove_all, go_round])
def test_a_worker_that_starts_while_the_bundle_is_broken_serves_what_the_others_do(
    shared: Path, place: Place, harm: Callable[[Path], None]
) -> None:
    others = CurrentModel(place.watch._settings, shared)
    others.open()
    harm(place.bundles[0])
    late = CurrentModel(place.watch._settings, shared)
    late.open()
    assert late.sha256 == others.sha256
    watch = ModelWatch(place.watch._settings, late, late.kept, late.seen, late.failure)
    refused = TestClient(late).get("/model").json()["update_refused"]
    assert refused["reason"]
    assert str(place.folder) not in refused["reason"]
    assert gauge() == 1.0
    place.point(place.bundles[1])
    asyncio.run(watch.look())
    assert TestClient(late).get("/model").json()["name"] == "tiny_1"
    assert gauge() == 0.0


def test_the_bundle_that_was_taken_last_is_kept_and_no_other(shared: Path, place: Place) -> None:
    model = CurrentModel(place.watch._settings, shared)
    model.open()
    watch = ModelWatch(place.watch._settings, model, model.kept, model.seen, model.failure)
    place.point(place.bundles[1])
    asyncio.run(watch.look())
    assert [path.name for path in (shared / "bundle").iterdir()] == [model.sha256]
    remove_all(place.bundles[1])
    late = CurrentModel(place.watch._settings, shared)
    late.open()
    assert late.sha256 == model.sha256


def test_a_copy_that_was_changed_is_not_served(shared: Path, place: Place) -> None:
    model = CurrentModel(place.watch._settings, shared)
    model.open()
    damage(shared / "bundle" / model.sha256)
    remove_all(place.bundles[0])
    with pytest.raises(BundleError, match=r"audio\.onnx.*sha256"):
        CurrentModel(place.watch._settings, shared).open()


def test_without_room_for_a_copy_the_model_is_served(
    shared: Path, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    model = CurrentModel(place.watch._settings, shared)
    model.open()
    assert model.is_open
    assert "no copy of the bundle is kept" in caplog.text
    assert list((shared / "bundle").iterdir()) == []
    assert model.kept.find() is None
