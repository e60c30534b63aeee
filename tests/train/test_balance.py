"""Skewed classes: what each method of --balance does to the loss, the batches, the heads and the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.errors import ConfigError
from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.rules import RULES, fuse
from mla_serve.tasks import Classes, Labels, Number, Task
from mla_serve.tasks.base import log_softmax
from mla_serve.train.balance import Balance, make_balance
from mla_serve.train.config import BALANCE
from mla_serve.train.data.order import epoch_order
from mla_serve.train.data.samples import Samples
from mla_serve.train.strategies import STRATEGIES, Strategy

METHODS = [method for method in BALANCE if method not in ("auto", "none")]
counts = st.lists(st.integers(1, 200), min_size=2, max_size=6)


@given(counts)
def test_the_shift_is_the_log_of_equal_shares_over_the_shares_of_training(counted: list[int]) -> None:
    shares = np.array(counted) / sum(counted)
    for method in METHODS:
        assert Balance(method, tuple(counted)).prior_shift == pytest.approx(np.log(1 / len(shares) / shares))
    assert Balance("none", tuple(counted)).prior_shift == []


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_shifts_its_answer_once_however_many_modalities_there_are(rule: str) -> None:
    generator = np.random.default_rng(0)
    logits, shift = generator.normal(size=(3, 5, 4)), generator.normal(size=4)
    for present in (np.ones((3, 5), bool), np.array([[True], [False], [True]]) & np.ones((3, 5), bool)):
        plain = Fusion.paper(("a", "b", "c"))
        before = fuse(logits, present, plain, rule).answers
        after = fuse(logits, present, Fusion(plain.temperatures, prior_shift=shift.tolist()), rule).answers
        assert after == pytest.approx(log_softmax(before + shift), abs=1e-12)


def test_answers_do_not_change_where_training_had_equal_frequencies() -> None:
    shift = Balance("prior", (7, 7, 7)).prior_shift
    assert shift == pytest.approx([0, 0, 0], abs=1e-12)
    logits, present = np.random.default_rng(1).normal(size=(2, 50, 3)), np.ones((2, 50), bool)
    plain = Fusion.paper(("a", "b"))
    before, after = (
        fuse(logits, present, one).answers for one in (plain, Fusion(plain.temperatures, prior_shift=shift))
    )
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def test_a_class_without_a_row_is_not_favoured() -> None:
    shift = Balance("prior", (90, 10, 0)).prior_shift
    assert shift[2] == shift[0] < shift[1]


def test_classes_that_differ_tenfold_are_named_and_the_way_out() -> None:
    labels = ["a"] * 50 + ["b"] * 5
    balance, notes = make_balance("none", labels, Classes(("a", "b")))
    assert balance == Balance("none", (50, 5))
    assert notes[0].startswith("class 'a' has 10 times the training rows of class 'b'; with --balance none, ")
    assert "--balance prior" in notes[0]
    assert make_balance("none", ["a"] * 49 + ["b"] * 5, Classes(("a", "b"))) == (Balance("none", (49, 5)), [])
    balance, notes = make_balance("prior", labels, Classes(("a", "b")))
    assert balance.method == "prior"
    assert "equally frequent" in notes[0]


@given(counts)
def test_class_weights_have_mean_1_over_the_rows_and_the_same_sum_for_each_class(counted: list[int]) -> None:
    weights = np.array(Balance("weights", tuple(counted)).class_weights)
    assert (weights * counted).sum() / sum(counted) == pytest.approx(1)
    assert weights * counted == pytest.approx(np.full(len(counted), sum(counted) / len(counted)))


def test_weights_of_equal_classes_leave_the_loss_as_it_is(make_strategy: Callable[..., Strategy]) -> None:
    strategy = make_strategy("mla")
    logits, labels = torch.randn(9, 3), torch.arange(9) % 3
    plain = strategy.mean_loss(logits, labels, 12)
    strategy.weight_classes(Balance("weights", (3, 3, 3)).class_weights)
    assert strategy.mean_loss(logits, labels, 12).item() == pytest.approx(plain.item(), abs=1e-6)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_takes_the_class_weights(
    name: str,
    make_strategy: Callable[..., Strategy],
    make_samples: Callable[..., Samples],
    fixed_batch: Callable[..., object],
) -> None:
    """Every loss of rows whose class has a weight of 0 is 0."""
    strategy, samples = make_strategy(name), make_samples()
    strategy.weight_classes([3.0, 0.0, 0.0])
    strategy.start_epoch()
    for loss, rows in ((False, samples.targets != 0), (True, samples.targets == 0)):
        logged = strategy.step(fixed_batch(samples, rows.nonzero().squeeze(1)))
        losses = [value for key, value in logged.items() if key.startswith("loss/")]
        assert losses
        assert [value > 0 for value in losses] == [loss] * len(losses)
    assert not any("class_weights" in key for key in strategy.state_dict())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 9))
def test_the_sampler_takes_each_class_and_each_row_of_a_class_equally_often(counted: list[int], seed: int) -> None:
    labels = torch.arange(len(counted)).repeat_interleave(torch.tensor(counted))
    order = epoch_order(labels, torch.Generator().manual_seed(seed), balanced=True)
    assert len(order) == len(labels)
    by_class = Counter(labels[order].tolist())
    assert max(by_class.values()) - min(by_class[c] for c in range(len(counted))) <= 1
    by_row = Counter(order.tolist())
    for label in range(len(counted)):
        drawn = [by_row[row] for row in (labels == label).nonzero().squeeze(1).tolist()]
        assert max(drawn) - min(drawn) <= 1


def test_without_a_sampler_each_row_comes_once() -> None:
    order = epoch_order(torch.zeros(20, dtype=torch.int64), torch.Generator().manual_seed(0), balanced=False)
    assert sorted(order.tolist()) == list(range(20))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_head_shift_reaches_every_modality_and_counts_once_in_a_sum(
    name: str, make_strategy: Callable[..., Strategy], make_samples: Callable[..., Samples]
) -> None:
    strategy, samples, shift = make_strategy(name).eval(), make_samples(), [1.0, 0.0, -1.0]
    with torch.no_grad():
        before = {one: strategy.opinions(one, samples.columns[one].windows) for one in ("a", "b")}
        strategy.shift_heads(shift)
        after = {one: strategy.opinions(one, samples.columns[one].windows) for one in ("a", "b")}
    for one in ("a", "b"):
        assert after[one].numpy() == pytest.approx((before[one] + torch.tensor(shift)).numpy(), abs=1e-6)
    if strategy.native == "sum_logit":
        fusion = Fusion({"a": 1.0, "b": 1.0}, bias=strategy.native_bias())
        stacked = np.stack([after[one].numpy() for one in ("a", "b")])
        summed = fuse(stacked, np.ones(stacked.shape[:2], bool), fusion, "sum_logit").answers
        separate = sum(before[one].numpy() for one in ("a", "b"))
        bias = np.array(fusion.bias) - shift  # what the heads shared before
        assert summed == pytest.approx(log_softmax(separate - bias + shift), abs=1e-5)


@pytest.mark.parametrize("task", [Labels(("a", "b")), Number("price")])
def test_only_classes_are_balanced(task: Task) -> None:
    assert make_balance("none", [], task) == (Balance("none", ()), [])
    with pytest.raises(
        ConfigError, match=r"--balance prior: balances classes, and (any of 2 labels|the number price) "
    ):
        make_balance("prior", [], task)
    balance = Balance("none", ())
    assert (balance.class_weights, balance.head_shift, balance.prior_shift) == ([], [], [])
