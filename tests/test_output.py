"""What commands may replace: nothing that is not theirs, and not without keeping it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_serve.bulk.run import score_table
from mla_serve.bulk.score import Ask
from mla_serve.bundle.manifest import MANIFEST, Bundle
from mla_serve.commands.tune import TuneConfig
from mla_serve.commands.tune import run as tune
from mla_serve.errors import ConfigError
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.output.replacing import exclusive, move_to_backup, staging_folder
from mla_serve.output.targets import RUN_FOLDER, bundle_called, check_target

Make = Callable[..., Path]
Tree = dict[str, bytes | str | None]


def tree(folder: Path) -> Tree:
    """Return all that a folder holds: the content of files, the targets of links, None for folders."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def work(tmp_path: Path, make_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with bundles, data and other things in it."""
    folder = tmp_path / "home" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make_bundle(folder / "models" / "ours", {"text": "text"})
    make_bundle(folder / "models" / "other", {"text": "text"})
    make_bundle(folder / "mixed" / "ours", {"text": "text"})
    (folder / "mixed" / "ours" / "notes.txt").write_text("mine")
    make_bundle(folder / "deep" / "ours", {"text": "text"})
    (folder / "deep" / "ours" / "empty").mkdir()
    make_bundle(folder / "occupied" / "ours", {"text": "text"})
    (folder / "occupied" / "ours.old").mkdir()
    (folder / "occupied" / "ours.old" / "notes.txt").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    (folder / "json").mkdir()
    (folder / "json" / MANIFEST).write_text('{"name": "ours"}')
    (folder / "list").mkdir()
    (folder / "list" / MANIFEST).write_text("[1]")
    (folder / "file").write_text("mine")
    (folder / "data").mkdir()
    (folder / "data" / "train.csv").write_text("label,text\n")
    for name, target in {"to_full": "full", "to_ours": "models/ours", "to_nothing": "gone"}.items():
        (folder / name).symlink_to(target)
    return folder


REFUSED = {
    "full": "holds notes.txt",
    "full/": "holds notes.txt",
    "data/../full": "holds notes.txt",
    "full/../full/.": "holds notes.txt",
    "models": "holds other, ours",
    "models/other": "is a bundle called other",
    "mixed/ours": "holds notes.txt, not listed",
    "deep/ours": "holds empty, not listed",
    "occupied/ours": "would be kept as ours.old, but that holds notes.txt",
    "json": "holds manifest.json",
    "list": "holds manifest.json",
    "file": "is a file",
    "file/below": "cannot be written (Not a directory",
    "to_full": "is a link to full",
    "to_ours": "is a link to models/ours",
    "to_nothing": "is a link to gone",
    ".": "is the current directory",
    "": "is the current directory",
    "models/..": "is the current directory",
    "..": "holds the current directory",
    "/": "holds the current directory",
    "data": "is the data folder",
    "data/new": "lies in the data folder",
    "/proc/nothing/here": "cannot be written",
}


@pytest.mark.parametrize("out", REFUSED)
def test_what_is_not_ours_is_refused_and_left_as_it_is(work: Path, out: str) -> None:
    before = tree(work)
    with pytest.raises(ConfigError) as refused:
        check_target("--out", Path(out), bundle_called("ours"), {"the data folder": work / "data"})
    said = str(refused.value)
    assert said.startswith(f"--out {Path(out)}") or said.startswith(f"--out {work}")
    assert REFUSED[out] in said
    assert "choose" in said
    assert "\n" not in said
    assert tree(work) == before


@pytest.mark.parametrize("out", ["full", "mixed/ours", "models/other", "occupied/ours", "to_ours", "file"])
def test_it_is_looked_at_again_at_the_rename(work: Path, out: str, tmp_path: Path) -> None:
    """What comes to lie there while a model trains is not lost either."""
    target = work / "late"

    def write() -> None:
        with staging_folder(target, "ours") as folder:
            (folder / "new").write_text("new")
            (work / out).rename(target)
            if out == "occupied/ours":
                (work / "occupied" / "ours.old").rename(work / "late.old")
            moved.update(tree(work))

    moved: Tree = {}
    with pytest.raises(ConfigError, match="--out"):
        write()
    staging = {name for name in moved if name.startswith(".late")}
    assert staging
    assert tree(work) == {name: content for name, content in moved.items() if name not in staging}


def test_what_is_put_into_an_empty_folder_meanwhile_is_not_lost(tmp_path: Path) -> None:
    target = tmp_path / "new"
    target.mkdir()

    def write() -> None:
        with staging_folder(target, "ours"):
            (target / "mine").write_text("mine")

    with pytest.raises(ConfigError, match="holds mine"):
        write()
    assert tree(tmp_path) == {"new": None, "new/mine": b"mine"}


@pytest.mark.parametrize("out", ["new", "new/deeper/", "empty", "models/../absent", "models/ours"])
def test_absent_empty_and_own_targets_are_taken(work: Path, out: str) -> None:
    (work / "empty").mkdir()
    before = {f"ours.old/{name}": content for name, content in tree(work / "models" / "ours").items()}
    said = check_target("--out", Path(out), bundle_called("ours"), {"the data folder": work / "data"})
    for word in ("new", "newer", "newest"):
        with staging_folder(Path(out), "ours") as folder:
            (folder / MANIFEST).write_text(json.dumps({"name": "ours", "files": {word: ""}}))
            (folder / word).write_text(word)
        assert (work / out / word).read_text() == word
        if out == "models/ours" and word == "new":
            assert said == "models/ours will be replaced; what it holds now is kept as ours.old"
            assert {n: c for n, c in tree(work / "models").items() if n.startswith("ours.old/")} == before
    assert (work / f"{Path(out)}.old" / "newer").read_text() == "newer"
    assert not list(work.rglob(".*"))
    Bundle.load(work / "models" / "other")


def test_when_a_rename_fails_all_is_as_it_was(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "models" / "other").rename(work / "away")
    with staging_folder(Path("models/ours"), "ours") as folder:
        (folder / MANIFEST).write_text('{"name": "ours", "files": {}}')
    before, rename = tree(work), Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "ours" and self.name != "ours.old":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match="busy"), staging_folder(Path("models/ours"), "ours"):
        pass
    assert tree(work) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from mla_serve.output.replacing import staging_folder
with staging_folder(Path(sys.argv[1]), "ours") as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def test_folders_of_killed_processes_go_and_those_in_use_stay(tmp_path: Path) -> None:
    target = tmp_path / "ours"
    command = [sys.executable, "-c", KILLED, str(target)]
    left = Path(subprocess.run([*command, "die"], capture_output=True, text=True, check=False).stdout.strip())
    assert (left / "half").exists()
    busy = subprocess.Popen([*command, "live"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert busy.stdout
    used = Path(busy.stdout.readline().strip())
    own = tmp_path / ".ours.staging"
    own.mkdir()
    (own / "mine").write_text("mine")
    with staging_folder(target, "ours") as folder:
        (folder / MANIFEST).write_text('{"name": "ours", "files": {}}')
        assert not left.exists()
        assert (used / "half").exists()
    assert (target / MANIFEST).exists()
    busy.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ours.staging", "ours", "ours.old"]
    assert (target / "half").exists()
    assert tree(own) == {"mine": b"mine"}


def write_run(folder: Path) -> Path:
    """Write what a run begins with."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"fingerprint": "x"}')
    (folder / "last.pt").touch()
    return folder


def test_a_run_is_kept_once_and_nothing_else_is_moved(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / "mail")
        (tmp_path / "mail" / "about.md").write_text(str(number))
        move_to_backup("--runs", tmp_path / "mail", RUN_FOLDER)
        assert not (tmp_path / "mail").exists()
        assert (tmp_path / "mail.old" / "about.md").read_text() == str(number)
    write_run(tmp_path / "mail")
    (tmp_path / "mail.old" / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"would be kept as mail.old, but that holds notes.txt"):
        move_to_backup("--runs", tmp_path / "mail", RUN_FOLDER)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds config.json, no run of mla_serve"):
        move_to_backup("--runs", tmp_path / "config", RUN_FOLDER)
    assert before.items() <= tree(tmp_path).items()


def test_a_run_that_cannot_be_renamed_costs_no_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "mail.old")
    write_run(tmp_path / "mail")
    before, rename = tree(tmp_path), Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self.name == "mail":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match="Permission denied"):
        move_to_backup("--runs", tmp_path / "mail", RUN_FOLDER)
    assert tree(tmp_path) == before


@pytest.fixture
def ask(tmp_path: Path, make_bundle: Make) -> Ask:
    return Ask(make_bundle(tmp_path / "model", {"text": "text"}), DEFAULT_RULE, None)


def write_rows(path: Path, words: list[str]) -> Path:
    """Write a table in the format of its suffix."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": words}), path)
    else:
        path.write_text("".join(json.dumps({"text": word}) + "\n" for word in words))
    return path


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("rows.parquet", "is the table"),
        ("../table/rows.parquet", "is the table"),
        ("other.parquet", "is another file, no answers"),
        ("text.parquet", "is another file, no answers"),
        ("link.parquet", "is a link to other.parquet"),
        ("../model/answers.parquet", "lies in the folder of the model"),
        ("folder.parquet", "is a folder"),
        ("parts.parquet", "parts.parquet.parts holds notes.txt"),
        ("loose.parquet", "loose.parquet.parts holds 00000000.parquet"),
        ("plan.parquet", "holds parts of another scoring"),
        ("torn.parquet", "remove the folder to start anew"),
        ("list.parquet", "remove the folder to start anew"),
    ],
)
def test_answers_are_written_over_nothing_else(tmp_path: Path, ask: Ask, out: str, says: str) -> None:
    folder = tmp_path / "table"
    for name in ("folder.parquet", "parts.parquet.parts", "loose.parquet.parts", "plan.parquet.parts"):
        (folder / name).mkdir(parents=True)
    (folder / "torn.parquet.parts").mkdir()
    (folder / "list.parquet.parts").mkdir()
    table = write_rows(folder / "rows.parquet", ["red", "blue"])
    write_rows(folder / "other.parquet", ["mine"])
    write_rows(folder / "loose.parquet.parts" / "00000000.parquet", ["mine"])
    (folder / "text.parquet").write_text("mine")
    (folder / "link.parquet").symlink_to("other.parquet")
    (folder / "parts.parquet.parts" / "notes.txt").write_text("mine")
    (folder / "plan.parquet.parts" / "plan.json").write_text('{"table": "mine"}')
    (folder / "torn.parquet.parts" / "plan.json").write_text('{"table": ')
    (folder / "list.parquet.parts" / "plan.json").write_text("[1]")
    before = tree(tmp_path)
    with pytest.raises(ConfigError) as refused:
        score_table(table, folder / out, ask, workers=1)
    assert says in str(refused.value)
    assert tree(tmp_path) == before


def test_older_answers_are_kept(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = write_rows(tmp_path / "rows.jsonl", ["red"]), tmp_path / "out.parquet"
    score_table(table, out, ask, workers=1)
    first = out.read_bytes()
    score_table(write_rows(table, ["red", "blue"]), out, ask, workers=1)
    assert (tmp_path / "out.parquet.old").read_bytes() == first
    assert "out.parquet will be replaced; what it holds now is kept as out.parquet.old" in capsys.readouterr().err
    score_table(table, out, ask, workers=1)
    assert (tmp_path / "out.parquet.old").read_bytes() != first
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.parquet", "out.parquet.old"]


def test_what_lies_among_the_parts_is_left_there(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from mla_serve.bulk.parts import Joined, Parts

    table, out, finish = write_rows(tmp_path / "rows.jsonl", ["red"]), tmp_path / "out.parquet", Parts.finish

    def late(self: Parts, count: int, *, flat: bool) -> Joined:
        (self.folder / "notes.txt").write_text("mine")
        return finish(self, count, flat=flat)

    monkeypatch.setattr(Parts, "finish", late)
    score_table(table, out, ask, workers=1)
    assert tree(tmp_path / "out.parquet.parts") == {"notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["notes.txt", "link.env"])
def test_settings_are_written_over_nothing_else(tmp_path: Path, tiny_bundle: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "link.env").symlink_to("notes.txt")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"tune did not write|is a link to notes.txt"):
        tune(TuneConfig(tiny_bundle, write=tmp_path / name))
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_mount_point_and_a_read_only_place_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    """They could not be renamed to, or written, after hours of training."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", mounted], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        with pytest.raises(ConfigError, match="is a mount point"):
            check_target("--out", mounted, bundle_called("ours"))
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        with pytest.raises(ConfigError, match=r"cannot be written \(Read-only file system"):
            check_target("--out", mounted / "new" / "ours", bundle_called("ours"))
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_two_processes_do_not_write_one_target_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from mla_serve.output.replacing import exclusive\nwith exclusive('--runs', Path({str(tmp_path)!r}) / 'mine'): pass"
    command = [sys.executable, "-c", code]
    with exclusive("--runs", tmp_path / "mine"):
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "mine: another process is writing it; wait until that ends" in refused.stderr
    subprocess.run(command, check=True)
    assert list(tmp_path.iterdir()) == []
