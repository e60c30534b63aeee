"""Training under torchrun: several processes take the steps of one, outlive each other, and one of them speaks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from mla_serve.bundle.manifest import Bundle
from mla_serve.errors import ConfigError
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.decode import DecodedTable
from mla_serve.train.device import pick_norm
from mla_serve.train.distributed import collectives
from mla_serve.train.distributed.local_rows import LocalRows, RowDropout, draw_per_row, use_row_dropout
from mla_serve.train.distributed.rendezvous import name_attempt, name_call
from mla_serve.train.encoders.blocks import group_normed
from mla_serve.train.run_folder import BEST, LAST, METRICS, RunFolder
from mla_serve.train.strategies import STRATEGIES
from tests.train.distributed.launch import ENVIRONMENT, torchrun

RANKS = str(Path(__file__).with_name("ranks.py"))
CASES = [*STRATEGIES, *(f"mla hgm={hgm}" for hgm in ("off", "epoch", "no-reset", "3"))]
CASES += ["mla turns=shuffled", "mla turns=weak", "mla sgd"]


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process logged, and each of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    subprocess.run([sys.executable, RANKS, "losses", one], env=ENVIRONMENT, check=True, timeout=300)
    done = torchrun(RANKS, "losses", two)
    assert done.returncode == 0, done.stderr
    return json.loads((one / "0.json").read_text()), [json.loads((two / f"{r}.json").read_text()) for r in range(2)]


Logged = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_steps_of_one(case: str, one_and_two: Logged) -> None:
    one, (first, second) = one_and_two
    assert len(one[case]["records"]) == 20
    for single, shared in zip(one[case]["records"], first[case]["records"], strict=True):
        assert shared == pytest.approx(single, abs=1e-9)
    pairs = [(a[key], b[key]) for a, b in zip(one[case]["records"], first[case]["records"], strict=True) for key in a]
    print(f"{case}: losses of 20 steps differ by at most {max(abs(a - b) for a, b in pairs):.1e}")
    assert first[case]["weights"] == pytest.approx(one[case]["weights"], rel=1e-9)
    assert first[case] == second[case]  # weights and P are the same on all ranks, to the bit


def test_rows_of_a_rare_modality_come_together_for_all_processes(one_and_two: Logged) -> None:
    counts = one_and_two[0]["mla"]["rare"]
    assert 0 in counts
    assert min(filter(None, counts)) == 2  # each process has one, or one process has both
    assert one_and_two[1][0]["mla"]["rare"] == counts
    learned = ["loss/rare" in record for record in one_and_two[1][0]["mla"]["records"]]
    assert learned == [count > 0 for count in counts]
    print(f"rows with the rare modality, of all processes together, in each batch: {counts}")


def test_a_strong_modality_sits_out_for_all_processes(one_and_two: Logged) -> None:
    usual, weak = (one_and_two[1][0][case]["records"] for case in ("mla", "mla turns=weak"))
    assert sum(map(len, weak)) < sum(map(len, usual))


def test_varied_samples_differ_by_process_and_steps_do_not(one_and_two: Logged) -> None:
    one, (first, second) = one_and_two
    assert first["augmented"] == second["augmented"]
    single, shared = (each["augmented"]["records"][0]["loss/picture"] for each in (one, first))
    assert abs(single - shared) > 1e-6


def test_reductions(one_and_two: Logged) -> None:
    one, (first, second) = one_and_two[0]["reductions"], [each["reductions"] for each in one_and_two[1]]
    assert [each["found"] for each in (one, first, second)] == [False, False, True]
    for key, value in {
        "sum": [[3.0] * 3] * 2,
        "values": {"a": 2.0, "b": 1.0},
        "mean": 0.0,  # of rank 1's only value: rank 0 has none, and a mean of the processes' means would be nan
        "lined up": [0.0, 10.0, 20.0, 30.0],
        "weight": [0.0, 0.0],
        "made": 0,
    }.items():
        assert first[key] == second[key] == value, key
    assert (first["rows"], second["rows"]) == ([0, 2, 4, 6], [1, 3, 5])
    assert (first["at"], second["at"], one["at"]) == ([0, 1, 2, 3], [], [0, 1, 2, 3])
    assert (first["gradient"], second["gradient"]) == ([1.0] * 4, [])
    assert first["drawn"] == one["drawn"]
    assert second["drawn"] == {"0": one["drawn"]["0"]}  # a lent row, which does not count
    assert one["sum"] == [[1.0] * 3] * 2


def read(runs: Path) -> dict[str, Any]:
    """What a run of the driver ended with."""
    folder = RunFolder(runs / "small")
    weights = {name: folder.load(name)["weights"] for name in (BEST, LAST)}
    return {"weights": weights, "metrics": (folder.path / METRICS).read_text(), "fusion": folder.read_json()["fusion"]}


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_after_kill_9_a_run_goes_on_and_ends_as_if_nothing_had_happened(
    write_table: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_table()
    before = RunFolder(tmp_path / "killed" / "small")  # an older, finished run of the same name
    before.write_json("config.json", {"fingerprint": "x"})
    before.write_json("run.json", {"mine": True})
    before.save(LAST, {"weights": {}})
    whole = torchrun(RANKS, "run", data, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    # Before the folder is begun (step 0); before there is a checkpoint; in the third epoch, after a resumed one.
    killed = torchrun(RANKS, "run", data, tmp_path / "killed", "0:0", "1:2", "2:10", restarts=3)
    assert killed.returncode == 0, killed.stderr
    assert killed.stderr.count("exitcode: -9") == 3
    assert killed.stdout.split("epoch ")[1:] == ["1\n", "2\n", "3\n", "4\n"]
    first, second = read(tmp_path / "whole"), read(tmp_path / "killed")
    last = [[json.loads(line) for line in each["metrics"].splitlines()][-1] for each in (first, second)]
    print("last epoch, undisturbed and killed three times:", *({k: r[k] for k in r if "loss" in k} for r in last))
    assert first["metrics"] == second["metrics"]
    assert first["fusion"] == second["fusion"]
    assert all(same(first["weights"][name], second["weights"][name]) for name in (BEST, LAST))
    assert json.loads((tmp_path / "killed" / "small.old" / "run.json").read_text()) == {"mine": True}


def test_one_process_writes_and_speaks_and_the_bundle_answers(write_table: Callable[..., Path], tmp_path: Path) -> None:
    flags = ("--epochs", 2, "--batch-size", 16, "--width", 16, "--device", "cpu", "--precision", "fp32")
    done = torchrun("-m", "mla_serve.train", "--data", write_table(), "--name", "mine", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1", "2"]
    assert sum("is ready" in line for line in lines) == 1
    assert "2 processes share each batch; built-in encoders use group normalisation" in done.stdout
    facts = RunFolder(tmp_path / "runs" / "mine").read_json()
    assert (facts["processes"], facts["recipe"]["norm"], facts["config"]["norm"]) == (2, "group", "group")
    assert len((tmp_path / "runs" / "mine" / METRICS).read_text().splitlines()) == 2
    assert Bundle.load(tmp_path / "models" / "mine").manifest.classes == ["blau", "gruen", "rot"]
    inputs = RunFolder(tmp_path / "runs" / "mine").read_recipe().inputs
    for name in inputs:  # each value is decoded once, for both processes
        store = DecodedTable(tmp_path / "runs" / ".cache", inputs, {}).store(name)
        assert 0 < len(store) == len(store.entries)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--norm", "batch"), "batch normalisation would differ between the processes"),
        (("--strategy", "hope"), "--strategy hope: expected one of"),
        (("--epoch", "1"), "perhaps you meant"),
        (("--device", "tpu9"), "expected cpu, cuda or auto"),
        (("--weight-decay", "1e20", "--optimizer", "sgd", "--batch-size", "8"), "the loss is no longer finite"),
    ],
)
def test_an_error_of_the_user_is_reported_once(
    flags: tuple[str, ...], message: str, write_table: Callable[..., Path], tmp_path: Path
) -> None:
    done = torchrun("-m", "mla_serve.train", "--data", write_table(), *flags, cwd=tmp_path)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(told) == 1, done.stderr
    assert message in told[0]
    assert "a bug of mla_serve" not in done.stderr


def test_a_process_that_loses_another_waits_for_torchrun_and_says_nothing_itself(tmp_path: Path) -> None:
    done = torchrun(RANKS, "alone", tmp_path)
    assert done.returncode != 0
    assert "the one at fault" in done.stderr
    assert "cannot be reached" not in done.stderr


def test_processes_meet_although_dead_ones_have_been_there() -> None:
    store = torch.distributed.HashStore()
    names = []

    for attempt in range(3):
        store.set("mla_serve/rank/2", f"dead {attempt}")  # it has said that it is there, and is never heard of again
        with ThreadPoolExecutor(3) as pool:
            met = set(pool.map(lambda rank: name_attempt(store, rank, 3), (2, 0, 1)))
        assert len(met) == 1
        names += met
    assert len(set(names)) == 3
    assert name_call(store) == name_call(store)


def test_a_share_is_what_one_process_would_have_drawn() -> None:
    local = LocalRows(torch.tensor([1, 4]), 6)
    torch.manual_seed(0)
    whole = torch.rand(6, 2)
    torch.manual_seed(0)
    assert torch.equal(local.draw(lambda n: torch.rand(n, 2)), whole[[1, 4]])
    torch.manual_seed(0)
    with local.encoding():
        assert torch.equal(draw_per_row(lambda n: torch.rand(n, 2), 2), whole[[1, 4]])
    assert local.weight == pytest.approx(1 / 3)
    assert (local.first(3).positions.tolist(), local.first(3).total) == ([1], 3)
    assert local.first(1).encoded.tolist() == [0]


def test_row_dropout_drops_what_dropout_drops() -> None:
    x = torch.randn(6, 3, 4)
    plain, ours = torch.nn.Sequential(torch.nn.Dropout(0.4)), torch.nn.Sequential(torch.nn.Dropout(0.4))
    use_row_dropout(ours)
    assert isinstance(ours[0], RowDropout)
    torch.manual_seed(0)
    whole = plain(x)
    torch.manual_seed(0)
    assert torch.equal(ours(x), whole)
    torch.manual_seed(0)
    with LocalRows(torch.tensor([0, 5]), 6).encoding():
        assert torch.equal(ours(x[[0, 5]]), whole[[0, 5]])
    assert torch.equal(ours.eval()(x), x)


def test_with_group_normalisation_a_sample_does_not_see_its_batch() -> None:
    layers = [torch.nn.Conv2d(1, 12, 3), torch.nn.BatchNorm2d(12), torch.nn.Flatten(), torch.nn.BatchNorm1d(432)]
    model = group_normed(torch.nn.Sequential(*layers)).train()
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(model(x)[:2], model(x[:2]))
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())


def test_without_torchrun_nothing_is_shared_and_norm_is_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (collectives.world_size(), collectives.rank(), collectives.is_main()) == (1, 0, True)
    assert pick_norm(TrainConfig(device="cpu")) == "batch"
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    assert pick_norm(TrainConfig(device="cpu")) == "group"
    assert not collectives.is_main()


def test_each_process_gets_a_gpu_of_its_own_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert collectives.local_device(torch.device("cuda")) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="a GPU of its own"):
        collectives.local_device(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="--nproc-per-node=1 or fewer"):
        collectives.local_device(torch.device("cuda"))
