"""Training, extending and exporting destroy nothing that is not theirs, whatever --out, --runs and --name say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.commands.export import ExportConfig
from mla_serve.commands.export import run as export
from mla_serve.commands.train import TrainFlags
from mla_serve.commands.train import run as train
from mla_serve.errors import ConfigError
from mla_serve.train.config import TrainConfig
from mla_serve.train.paths import default_name
from tests.test_output import tree

Make = Callable[..., Path]
FLAGS = {"data": Path("mail"), "epochs": 1, "batch_size": 16, "width": 8, "device": "cpu"}


@pytest.fixture
def work(tmp_path: Path, make_bundle: Make, write_table: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with data, bundles, runs and files of the user's."""
    folder = tmp_path / "home" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_table(60, "home/work/mail")
    make_bundle(folder / "models" / "mail", {"text": "text"})
    make_bundle(folder / "models" / "other", {"text": "text"})
    for name in ("full", "crowded/mail", "held/mail.old"):
        (folder / name).mkdir(parents=True)
        (folder / name / "notes.txt").write_text("mine")
    make_bundle(folder / "held" / "mail", {"text": "text"})
    (folder / "link").symlink_to("full")
    (folder / "about.md").write_text("mine")
    return folder


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"out": Path()}, "is the current directory"),
    ({"out": Path("..")}, "holds the current directory"),
    ({"out": Path("mail")}, "is the data folder"),
    ({"out": Path("mail/")}, "is the data folder"),
    ({"out": Path("full/../mail")}, "is the data folder"),
    ({"out": Path("models")}, "holds mail, other"),
    ({"out": Path("models/other")}, "is a bundle called other"),
    ({"name": "new", "out": Path("models/mail")}, "is a bundle called mail; only a bundle called new"),
    ({"out": Path("full")}, "holds notes.txt"),
    ({"out": Path("link")}, "is a link to full"),
    ({"out": Path("about.md")}, "is a file"),
    ({"about": Path("about.md"), "out": Path("about.md")}, "is the file of --about"),
    ({"out": Path("held/mail")}, "would be kept as mail.old, but that holds notes.txt"),
    ({"out": Path("runs")}, "holds the folder of the run"),
    ({"out": Path("runs/mail")}, "is the folder of the run"),
    ({"out": Path("runs/mail/bundle")}, "lies in the folder of the run"),
    ({"out": Path("runs/.cache")}, "is the cache"),
    ({"runs": Path("crowded")}, "holds notes.txt"),
    ({"runs": Path()}, "--runs mail: is the data folder"),
    ({"runs": Path("about.md")}, "cannot be written (Not a directory"),
    ({"out": Path("/proc/bundle")}, "cannot be written"),
]


@pytest.mark.parametrize(("flags", "says"), REFUSED)
def test_nothing_is_lost_and_nothing_is_trained(
    work: Path, flags: dict[str, object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mla_serve.train.run.train_as_planned", lambda *_: pytest.fail("it was trained"))
    before = tree(work)
    with pytest.raises(ConfigError) as refused:
        train(TrainFlags(**{**FLAGS, **flags}))  # type: ignore[arg-type]
    said = str(refused.value)
    assert says in said
    assert "\n" not in said
    assert "choose" in said
    assert tree(work) == before


def test_the_folder_of_the_data_may_be_the_current_one(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tree(work / "mail")
    monkeypatch.chdir(work / "mail")
    train(TrainFlags(**{**FLAGS, "data": Path()}))  # type: ignore[arg-type]
    assert Bundle.load(work / "mail" / "models" / "mail").manifest.name == "mail"
    assert data.items() <= tree(work / "mail").items()


def test_what_is_trained_and_exported_again_is_kept_and_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over a bundle that was there, then over its own; then exported over it; every time the one before is kept."""
    others = {name: content for name, content in tree(work).items() if not name.startswith("models/mail")}
    kept = tree(work / "models" / "mail")
    for number in range(3):
        if number < 2:
            train(TrainFlags(**FLAGS))  # type: ignore[arg-type]
        else:
            export(ExportConfig(Path("runs/mail")))
        said = capsys.readouterr()
        assert "models/mail will be replaced; what it holds now is kept as mail.old" in said.out + said.err
        again = "runs/mail, a finished run, is trained again; the old one is kept as mail.old"
        assert (again in said.out) == (number == 1)
        assert tree(work / "models" / "mail.old") == kept
        kept = tree(work / "models" / "mail")
        Bundle.load(work / "models" / "mail")
        assert others.items() <= tree(work).items()
    assert sorted(path.name for path in (work / "models").iterdir()) == ["mail", "mail.old", "other"]
    assert sorted(path.name for path in (work / "runs").iterdir()) == [".cache", "mail", "mail.old"]
    for out, says in (("mail", "is the data folder"), ("runs/mail", "is the folder of the run"), ("full", "notes.txt")):
        before = tree(work)
        with pytest.raises(ConfigError, match=says):
            export(ExportConfig(Path("runs/mail"), Path(out)))
        assert tree(work) == before


INTERRUPT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background ignores it
from mla_serve.train import loop
keep = loop.Trainer._save_checkpoints
def stop(self, *args, **kwargs):
    keep(self, *args, **kwargs)
    os.kill(os.getpid(), signal.SIGINT)
loop.Trainer._save_checkpoints = stop
sys.argv = ["mla-serve", *sys.argv[1:]]
from mla_serve.__main__ import main
main()
"""


def test_an_interrupted_run_says_the_command_that_goes_on(work: Path) -> None:
    args = ["train", "--data", "mail", "--name", "my-mail", "--epochs", "3", "--device", "cpu", "--width", "8"]
    done = subprocess.run([sys.executable, "-c", INTERRUPT, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    told = f"interrupted; to continue: mla-serve {' '.join(args)} --resume"
    assert told in done.stderr
    assert json.loads((work / "runs" / "my-mail" / "config.json").read_text())["name"] == "my-mail"


@pytest.mark.parametrize(
    ("file", "name"), [("Sales_2024.csv", "sales_2024"), ("a b.csv.gz", "a_b"), ("x.y.csv", "x_y")]
)
def test_a_model_is_named_after_its_table(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).touch()
    assert default_name(TrainConfig(data=tmp_path / file)) == name
