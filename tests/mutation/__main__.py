"""Run mutmut over the modules that decide answers, and say which mutants no test noticed.

python -m tests.mutation                   all modules; goes on where it was stopped
python -m tests.mutation fusion joint      those whose path contains one of the words
python -m tests.mutation --report          what is known so far, without running anything
python -m tests.mutation --again fusion    forget what is known of them first

A mutant is one small change: `<` becomes `<=`, a number one more, an argument None or gone. It is killed when a test of its
module (modules.toml) fails or takes far too long. What is raised or logged is not changed: those are texts for people, and
their tests match a few words on purpose; that it is raised is a condition, and that is changed. mutmut leaves decorated
functions and code outside functions alone. Mutants that cannot be told from the original stand in equivalent.toml with the
reason; they count as survivors in the score all the same. Ends with 1 when the score is below 90 %, or when a survivor is
not listed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
WORK = ROOT / "runs" / "mutants"
LEAST = 0.9  # the share of the mutants that the tests have to kill
KILLED, TIMED_OUT = (1, 3), (-24, 24, 152, 255, 36)  # mutmut's codes; 0: survived, 5 and 33: no test runs it
TEXTS = [r"^\s*raise\b", r"\blog\.(debug|info|warning|error|exception)\(", r"\bwarnings\.warn\("]
COPIED = ["export", "benchmarks", "models"]  # beside the package and the tests, what tests import and read


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change: the module's path, the function, the changed lines as `- before` and `+ after`, mutmut's code."""

    module: str
    function: str
    change: str
    code: int | None


def modules() -> dict[str, list[str]]:
    """Read which tests belong to which module."""
    table: dict[str, list[str]] = tomllib.loads((HERE / "modules.toml").read_text(encoding="utf-8"))["modules"]
    return table


class Equivalents:
    """The mutants that nothing can tell from the original, and why: equivalent.toml."""

    def __init__(self) -> None:
        """Read them."""
        listed = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8"))
        self._kinds = listed.get("kind", [])
        self.listed = {
            (one["module"], one["function"], one["change"].strip()): one["reason"] for one in listed.get("mutant", [])
        }

    def reason(self, mutant: Mutant) -> str:
        """Say why a mutant cannot be told from the original; empty when nobody has said so."""
        own = self.listed.get((mutant.module, mutant.function, mutant.change))
        return own or next((kind["reason"] for kind in self._kinds if _is_of(kind, mutant.change)), "")

    def stale(self, found: Mapping[str, Sequence[Mutant]]) -> list[str]:
        """List entries of modules that were run in which no such mutant survived."""
        run = {module for module, all_ in found.items() if all_ and not any(one.code is None for one in all_)}
        there = {(one.module, one.function, one.change) for all_ in found.values() for one in all_ if survived(one)}
        return [f"{key[0]} {key[1]}\n{key[2]}" for key in self.listed if key[0] in run and key not in there]


def _is_of(kind: Mapping[str, Any], change: str) -> bool:
    before, _, after = change.partition("\n+ ")
    return any(before.removeprefix("- ").replace(kind["before"], text) == after for text in kind["after"])


def folder_of(module: str) -> Path:
    """Return the folder in which a module is mutated."""
    return WORK / module.removeprefix("mla_serve/").removesuffix(".py").replace("/", ".")


def prepare(module: str, tests: Sequence[str]) -> Path:
    """Lay out the project for mutmut, which works on copies in the folder that it is started in."""
    folder = folder_of(module)
    (folder / "mutants").mkdir(
        parents=True, exist_ok=True
    )  # before mutmut starts: Python forgets paths that are not there
    for name in ("mla_serve", "tests", *COPIED):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    shutil.rmtree(folder / "mutants" / "tests", ignore_errors=True)  # a test that was deleted must not stay
    # Which test reaches which function is found out anew: mutmut would ask new tests alone, also about new functions.
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    settings = {
        "source_paths": ["mla_serve"],
        "only_mutate": [module],
        "also_copy": COPIED,
        "pytest_add_cli_args_test_selection": list(tests),
        "pytest_add_cli_args": ["--hypothesis-seed=0", "-p", "no:cacheprovider", "-n", "0"],
        "do_not_mutate_patterns": TEXTS,
        "timeout_multiplier": 20.0,
        "timeout_constant": 3.0,  # seconds; the machine may be busy
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    own = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        own
        + "\n".join(
            ["\n[tool.mutmut]", *lines, "use_git_change_detection = false", 'on_dependency_change = "ignore"', ""]
        ),
        encoding="utf-8",
    )
    return folder


def ask_again(folder: Path) -> None:
    """Forget that a mutant survived, which a test written since may kill, or timed out, for which a busy machine suffices."""
    for path in folder.glob("mutants/mla_serve/**/*.meta"):
        content = json.loads(path.read_text(encoding="utf-8"))
        codes = content["exit_code_by_key"]
        content["exit_code_by_key"] = {key: code if code in KILLED else None for key, code in codes.items()}
        path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def mutate(module: str, tests: Sequence[str], processes: int) -> None:
    """Run mutmut over one module. Raises: SystemExit when it cannot run, with what it printed."""
    folder = prepare(module, tests)
    ask_again(folder)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(folder / "mutants"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(processes)]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        ended = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        print((folder / "log.txt").read_text(encoding="utf-8")[-4000:], file=sys.stderr)
        raise SystemExit(f"mutmut ended with {ended.returncode} on {module}; all that it printed: {folder / 'log.txt'}")


def mutants(module: str) -> Iterator[Mutant]:
    """List a module's mutants, with the changed lines of those that were not killed."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    folder = folder_of(module)
    path = folder / "mutants" / f"{module}.meta"
    if not path.exists():
        return
    with contextlib.chdir(folder):
        for key, code in json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].items():
            function, owner = orig_function_and_class_names_from_key(key)
            change = "" if code in KILLED else changed_lines(get_diff_for_mutant(key, path=module))
            yield Mutant(module, f"{owner}.{function}" if owner else function, change, code)


def changed_lines(diff: str) -> str:
    """Keep the lines of a unified diff that differ, without their indentation."""
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in diff.splitlines()[2:] if line[:1] in ("-", "+"))


def survived(mutant: Mutant) -> bool:
    """Whether its tests were run and none noticed."""
    return mutant.code is not None and mutant.code not in (*KILLED, *TIMED_OUT)


def report(chosen: Sequence[str]) -> list[str]:
    """Print the score of each module and every survivor; returns what is not as it should be."""
    equivalents = Equivalents()
    found = {module: [_settled(one, equivalents) for one in mutants(module)] for module in chosen}
    faults, every = [], [one for all_ in found.values() for one in all_]
    for one in every:
        if one.code in TIMED_OUT:
            print(f"{one.module} {one.function}\n{one.change}\n= killed: took far too long\n")
        elif survived(one):
            print(f"{one.module} {one.function}\n{one.change}\n= {equivalents.reason(one) or 'NO TEST NOTICED'}\n")
    print(f"{'module':42} mutants  killed  timeout  survived  of them equivalent  not run   score")
    for module, all_ in (*found.items(), ("all", every)):
        print(f"{module:42} {_row(all_, equivalents)}")
    unknown = sum(not equivalents.reason(one) for one in filter(survived, every))
    waiting = sum(one.code is None for one in every) + sum(not all_ for all_ in found.values())
    if unknown:
        faults.append(f"{unknown} mutants that no test noticed: write the test, or list them in equivalent.toml")
    if waiting:
        faults.append(f"{waiting} mutants or modules that were not run")
    faults += [f"equivalent.toml lists what no longer survives: {entry}" for entry in equivalents.stale(found)]
    if every and _share(every) < LEAST:
        faults.append(f"the tests kill {_share(every):.1%} of the mutants; at least {LEAST:.0%} are wanted")
    return faults


def _settled(mutant: Mutant, equivalents: Equivalents) -> Mutant:
    """Do not believe of an equivalent one that it was killed because its tests took long: the machine was busy."""
    slow = mutant.code in TIMED_OUT and equivalents.reason(mutant)
    return dataclasses.replace(mutant, code=0) if slow else mutant


def _share(all_: Sequence[Mutant]) -> float:
    return sum(one.code in (*KILLED, *TIMED_OUT) for one in all_) / max(len(all_), 1)


def _row(all_: Sequence[Mutant], equivalents: Equivalents) -> str:
    killed, timeout = (sum(one.code in codes for one in all_) for codes in (KILLED, TIMED_OUT))
    rest = list(filter(survived, all_))
    listed, waiting = sum(bool(equivalents.reason(one)) for one in rest), sum(one.code is None for one in all_)
    return f"{len(all_):7} {killed:7} {timeout:8} {len(rest):9} {listed:19} {waiting:8}  {_share(all_):6.1%}"


def main() -> None:
    """Run from the command line; ends with 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "words", nargs="*", help="only modules whose path in mla_serve contains one of these, such as fusion or table."
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="forget what is known of these modules")
    parser.add_argument("--report", action="store_true", help="run nothing, print what is known")
    given = parser.parse_args()
    chosen = {
        path: tests
        for path, tests in modules().items()
        if not given.words or any(w in folder_of(path).name for w in given.words)
    }
    for module, tests in chosen.items():
        if given.again:
            shutil.rmtree(folder_of(module), ignore_errors=True)
        if not given.report:
            began = time.monotonic()
            mutate(module, tests, given.processes)
            print(f"{module}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    faults = report(list(chosen))
    print(*faults, sep="\n")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
