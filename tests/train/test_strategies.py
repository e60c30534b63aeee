"""What every strategy promises, and what MLA does turn by turn."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mla_serve.errors import ConfigError
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.samples import Samples
from mla_serve.train.losses import LEAST, loss_of_rows
from mla_serve.train.strategies import STRATEGIES, Part, Strategy
from mla_serve.train.strategies.joint import JointSum, JointUnimodal
from mla_serve.train.strategies.mla import Mla

spec = importlib.util.spec_from_file_location("train_conftest", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
FixedBatch = helpers.FixedBatch

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))
LEARNED = [(name, task) for name, strategy in sorted(STRATEGIES.items()) for task in strategy.tasks]
every_task = pytest.mark.parametrize(("name", "task"), LEARNED)
Make = Callable[..., Strategy]
MakeSamples = Callable[..., Samples]


def train(strategy: Strategy, samples: Samples, steps: int) -> list[dict[str, float]]:
    torch.manual_seed(0)
    strategy.start_epoch()
    return [strategy.step(FixedBatch(samples, torch.arange(len(samples)))) for _ in range(steps)]


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@every_task
def test_the_loss_falls_on_samples_that_can_be_learned(
    name: str, task: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy, samples = make_strategy(name, task=task), make_samples(task=task)
    before = loss_of_opinions(strategy, samples)
    train(strategy, samples, 60)
    assert loss_of_opinions(strategy, samples) < 0.6 * before


def loss_of_opinions(strategy: Strategy, samples: Samples) -> float:
    """Return how far the modalities' opinions are from the truth, summed: nats, or the squared error of numbers."""
    strategy.eval()
    with torch.no_grad():
        opinions = [strategy.opinions(name, column.windows[:]) for name, column in samples.columns.items()]
    strategy.train()
    if strategy.task.name == "number":
        return sum(float((one[:, 0] - samples.targets).square().mean()) for one in opinions)
    return sum(float(loss_of_rows(strategy.task.name, one, samples.targets).mean()) for one in opinions)


@every_strategy
def test_bf16_is_for_encoders_while_training_alone(name: str, make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy, samples = make_strategy(name, precision="bf16"), make_samples()
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for layer in strategy.encoders["a"].modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda one, _, output: seen[one.training].add(output.dtype))
    logged = train(strategy, samples, 40)
    strategy.eval()
    strategy.opinions("a", samples.columns["a"].windows)
    assert seen[True] == {torch.bfloat16}
    assert seen[False] == {torch.float32}
    assert {parameter.dtype for parameter in strategy.parameters()} == {torch.float32}
    assert logged[-1]["loss/a"] < logged[0]["loss/a"]


def test_a_bottlenecks_divergence_is_summed_in_fp32(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy = make_strategy("mib", precision="bf16")
    train(strategy, make_samples(), 1)
    assert strategy.encoders["a"].divergence.dtype == torch.float32


@every_task
def test_same_seed_same_weights(name: str, task: str, make_strategy: Make, make_samples: MakeSamples) -> None:
    first, second, other = (make_strategy(name, task=task, seed=seed) for seed in (0, 0, 1))
    for strategy in (first, second, other):
        train(strategy, make_samples(task=task), 5)
    assert same(first, snapshot(second))
    assert not same(first, snapshot(other))


@every_task
def test_rows_with_missing_modalities_are_learned_from(
    name: str, task: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy = make_strategy(name, names=("a", "b", "c"), task=task)
    logged = train(strategy, make_samples(("a", "b", "c"), missing=0.6, task=task), 40)
    assert all(torch.isfinite(value).all() for value in strategy.state_dict().values())
    assert logged[-1]["loss/a"] < logged[0]["loss/a"]


@every_strategy
def test_a_modality_that_no_row_has_changes_nothing_of_its_own(
    name: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy = make_strategy(name)
    samples = make_samples()
    column = samples.columns["b"]
    column.count.zero_()
    before = snapshot(strategy.encoders["b"])
    logged = train(strategy, samples, 3)
    assert same(strategy.encoders["b"], before)
    assert "loss/b" not in logged[0]


@every_task
def test_a_resumed_strategy_goes_on_bit_for_bit(
    name: str, task: str, make_strategy: Make, make_samples: MakeSamples, tmp_path: Path
) -> None:
    whole, first, second = (make_strategy(name, task=task) for _ in range(3))
    samples = make_samples(task=task)
    train(whole, samples, 4)
    train(first, samples, 4)
    torch.save({"weights": first.state_dict(), "training": first.training_state()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(state["weights"])
    second.load_training_state(state["training"])
    train(whole, samples, 4)
    train(second, samples, 4)
    assert same(second, snapshot(whole))


@pytest.mark.parametrize(("name", "task"), [(n, task) for n, task in LEARNED if issubclass(STRATEGIES[n], Mla)])
def test_in_a_turn_every_other_encoder_stays_bitwise_unchanged(
    name: str, task: str, make_strategy: Make, make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = make_strategy(name, names=("a", "b", "c"), task=task, weight_decay=0.5)
    samples = make_samples(("a", "b", "c"), task=task)
    train(strategy, samples, 3)  # momentum is on by now
    turn, seen = strategy._turn, []

    def watched(name: str, part: Part) -> dict[str, float]:
        before = {other: snapshot(encoder) for other, encoder in strategy.encoders.items()}
        logged = turn(name, part)
        moved = [other for other, encoder in strategy.encoders.items() if not same(encoder, before[other])]
        seen.append((name, moved))
        return logged

    monkeypatch.setattr(strategy, "_turn", watched)
    train(strategy, samples, 1)
    assert seen == [("a", ["a"]), ("b", ["b"]), ("c", ["c"])]


def test_a_modality_is_encoded_inside_its_own_turn(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy, order = make_strategy("mla"), []
    for name, encoder in strategy.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: order.append(f"encode {name}"))
        optimizer = strategy.schedules[name].optimizer
        optimizer.register_step_post_hook(lambda *_, name=name: order.append(f"step {name}"))
    train(strategy, make_samples(), 1)
    assert order == ["encode a", "step a", "encode b", "step b"]


def test_nothing_of_a_turn_is_left_in_memory_when_the_next_begins(
    make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy, features, seen = make_strategy("mla", names=("a", "b", "c")), [], []

    def before(*_: object) -> None:
        gradients = [name for name, value in strategy.named_parameters() if value.grad is not None]
        seen.append((gradients, [name for name, value in features if value() is not None]))

    for name, encoder in strategy.encoders.items():
        encoder.register_forward_pre_hook(before)
        encoder.register_forward_hook(lambda *args, name=name: features.append((name, weakref.ref(args[2]))))
    train(strategy, make_samples(("a", "b", "c")), 2)
    assert seen == [([], [])] * 6


class Work(TorchDispatchMode):
    """Count the operations on tensors, and the elements that they read and write."""

    operations = elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        self.elements += sum(leaf.numel() for leaf in tree_leaves((args, result)) if isinstance(leaf, torch.Tensor))
        return result


@pytest.mark.parametrize("name", ["mla", "joint_concat"])
def test_the_work_of_a_step_is_linear_in_the_number_of_modalities(
    name: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    operations, elements = [], []
    for modalities in (2, 17, 32):
        names = tuple(map(str, range(modalities)))
        strategy, samples = make_strategy(name, names=names), make_samples(("0",))
        samples.columns.update(dict.fromkeys(names, samples.columns["0"]))
        train(strategy, samples, 2)  # optimisers and the projector have begun
        with Work() as work:
            strategy.step(FixedBatch(samples, torch.arange(len(samples))))
        operations.append(work.operations)
        elements.append(work.elements)
    assert operations[2] - operations[1] == operations[1] - operations[0]
    assert elements[2] - elements[1] == elements[1] - elements[0]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("hgm", ["epoch", "no-reset", "5"])
def test_the_heads_step_is_nearly_orthogonal_to_the_previous_turns_mean(
    hgm: str, optimizer: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    moved, features = step_of_b(make_strategy("mla", hgm=hgm, optimizer=optimizer, lr=0.01), make_samples())
    mean = features.mean(0)
    assert (moved @ mean).norm() < 0.2 * moved.norm() * mean.norm()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_heads_step_hardly_changes_the_others_logits(
    optimizer: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    """The directions left to the step hold 10 % of the squares of the other's features, so logits change by sqrt(.1) at most."""
    disturbed = {}
    for hgm in ("subspace", "off"):
        moved, features = step_of_b(make_strategy("mla", hgm=hgm, optimizer=optimizer, lr=0.01), make_samples())
        disturbed[hgm] = float((moved @ features.T).norm() / (moved.norm() * features.norm()))
    assert disturbed["subspace"] < min(0.1**0.5 + 0.05, 0.8 * disturbed["off"])  # features of training vary by dropout


def step_of_b(strategy: Strategy, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Train; returns the head's step in the last turn of b (C, D), and the features of a in the turn before (B, D)."""
    train(strategy, samples, 3)
    features: dict[str, torch.Tensor] = {}
    strategy.encoders["a"].register_forward_hook(lambda *args: features.update(a=args[2].detach().double()))
    weights: list[torch.Tensor] = []
    strategy.encoders["b"].register_forward_hook(
        lambda *_: weights.append(strategy.heads["head"].weight.detach().clone())
    )
    strategy.step(FixedBatch(samples, torch.arange(len(samples))))
    moved = (strategy.heads["head"].weight.detach() - weights[0]).double()
    assert moved.norm() > 0
    return moved, features["a"]


def test_with_separate_heads_and_no_hgm_mla_is_the_ensemble(make_strategy: Make, make_samples: MakeSamples) -> None:
    mla, ensemble = make_strategy("mla", heads="separate", hgm="off"), make_strategy("ensemble")
    for strategy in (mla, ensemble):
        train(strategy, make_samples(missing=0.3), 6)
    assert same(mla, snapshot(ensemble))


def test_an_ensembles_member_does_not_notice_the_others(make_strategy: Make, make_samples: MakeSamples) -> None:
    both, alone = make_strategy("ensemble"), make_strategy("ensemble")
    samples = make_samples()
    alone.encoders["a"].load_state_dict(both.encoders["a"].state_dict())
    muted = make_samples()
    muted.columns["b"].count.zero_()
    for strategy, data in ((both, samples), (alone, muted)):
        strategy.eval()  # no dropout: its random numbers are shared
        train(strategy, data, 3)
    assert same(alone.encoders["a"], snapshot(both.encoders["a"]))


def test_one_modality_alone_is_plain_training(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy = make_strategy("mla", names=("a",))
    assert strategy.projector is None
    logged = train(strategy, make_samples(("a",)), 2)
    assert set(logged[0]) == {"loss/a"}


def test_a_turn_with_one_row_is_skipped_where_the_encoder_normalises_over_the_batch(
    make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy, samples = make_strategy("mla"), make_samples()
    samples.columns["b"].count[1:] = 0
    logged = strategy.step(FixedBatch(samples, torch.arange(len(samples))))
    assert "loss/a" in logged
    assert "loss/b" not in logged


@pytest.mark.parametrize("options", [{"hgm": "sometimes"}, {"heads": "both"}])
def test_an_unknown_option_names_the_choices(options: dict[str, str], make_strategy: Make) -> None:
    with pytest.raises(ConfigError, match="expected"):
        make_strategy("mla", **options)


def test_an_unknown_strategy_names_the_choices(make_strategy: Make) -> None:
    with pytest.raises(ConfigError, match="mla"):
        make_strategy("alternating")


def test_a_concat_heads_slices_sum_to_the_head_on_concatenated_features(
    make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy, samples = make_strategy("joint_concat"), make_samples()
    train(strategy, samples, 3)
    strategy.eval()
    batch = FixedBatch(samples, torch.arange(len(samples)))
    features = torch.cat([strategy.encoders[n](batch.inputs(n)) for n in "ab"], dim=1)
    weight = torch.cat([strategy.heads[f"head_{n}"].weight for n in "ab"], dim=1)
    unimodal = strategy.unimodal_logits(batch)
    joint, outputs = strategy.fuse(batch, unimodal, strategy.kept(batch, unimodal))
    torch.testing.assert_close(joint, features @ weight.T + strategy.shared_bias())
    assert outputs.all()


def test_a_missing_modality_counts_as_zero_features_in_a_concat_head(
    make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy, samples = make_strategy("joint_concat").eval(), make_samples(missing=0.5)
    batch = FixedBatch(samples, torch.arange(len(samples)))
    unimodal = strategy.unimodal_logits(batch)
    joint, _ = strategy.fuse(batch, unimodal, strategy.kept(batch, unimodal))
    only_a = batch.present["a"] & ~batch.present["b"]
    torch.testing.assert_close(joint[only_a], unimodal["a"][only_a[batch.present["a"]]])
    assert only_a.any()


def test_the_help_names_every_strategy() -> None:
    documented = (
        Path(inspect.getfile(TrainConfig)).read_text(encoding="utf-8").split("strategy: str")[1].split('"""')[1]
    )
    assert set(STRATEGIES) <= set(re.findall(r"\w+", documented))


def test_joint_dropout_leaves_every_row_something(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy, samples = make_strategy("joint_dropout", names=("a", "b", "c")), make_samples(("a", "b", "c"), rows=300)
    batch = FixedBatch(samples, torch.arange(300))
    torch.manual_seed(0)
    kept = strategy.kept(batch, strategy.unimodal_logits(batch))
    shares = torch.stack([rows.float().mean() for rows in kept.values()])
    assert torch.stack(list(kept.values())).any(dim=0).all()
    assert ((shares > 0.55) & (shares < 0.75)).all()


def test_ogm_slows_only_the_modality_that_is_ahead(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy, samples = make_strategy("ogm_ge", optimizer="sgd"), make_samples()
    batch = FixedBatch(samples, torch.arange(len(samples)))
    sure = torch.nn.functional.one_hot(samples.targets, 3) * 5.0
    scales = strategy.scales(batch, {"a": sure, "b": torch.zeros(len(samples), 3)})
    assert scales["b"] == 1
    assert 0 < scales["a"] < 1


def test_qmf_ranks_energies_against_hardness(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy, samples = make_strategy("qmf"), make_samples()
    rows, u = torch.arange(len(samples)), torch.zeros(len(samples))
    u[0] = 2.0
    assert strategy.ranking("a", rows, u) == 0  # nothing accumulated yet
    strategy.epochs = 2
    strategy.kappa["a"][0] = 1.0  # the hardest sample, and the surest
    strategy.kappa["a"][1] = 0.5
    wrong = strategy.ranking("a", rows, u)
    u[0] = 0.0
    assert wrong > strategy.ranking("a", rows, u)


def test_mmpareto_averages_agreeing_gradients_and_shortens_opposed_ones() -> None:
    from mla_serve.train.strategies.mmpareto import MAGNITUDE, _combine

    a, b = [torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 1.0])]
    mixed = _combine(a, b)[0]
    torch.testing.assert_close(mixed / mixed.norm(), torch.tensor([2.0, 1.0]) / 5**0.5)
    assert mixed.norm() == pytest.approx(MAGNITUDE * 5**0.5)
    opposed = _combine([torch.tensor([1.0, 0.2])], [torch.tensor([-1.0, 0.2])])[0]
    assert abs(opposed[0]) < 1e-6
    antiparallel = _combine([torch.tensor([1.0])], [torch.tensor([-2.0])])[0]
    assert antiparallel < 0


def test_dus_draws_fewer_rows_for_the_modality_that_is_ahead(make_strategy: Make) -> None:
    strategy = make_strategy("dus")
    strategy.confidence = {"a": 0.9, "b": 0.3}
    assert strategy.rows_for("b", 64) == 64
    assert 16 <= strategy.rows_for("a", 64) < 64


def test_mib_adds_noise_in_training_only(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy, samples = make_strategy("mib"), make_samples()
    windows = FixedBatch(samples, torch.arange(len(samples))).inputs("a")
    strategy.eval()
    assert torch.equal(strategy.opinions("a", windows), strategy.opinions("a", windows))
    logged = train(strategy.train(), samples, 2)
    assert logged[0]["divergence"] > 0


def test_with_turns_weak_a_modality_far_ahead_sits_out_every_second_batch(
    make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy, samples = make_strategy("mla", turns="weak"), make_samples()
    train(strategy, samples, 2)
    strategy.running = {"a": 0.3, "b": 2.0}
    logged = train(strategy, samples, 4)
    assert [("loss/a" in record) for record in logged] == [True, False, True, False]
    assert all("loss/b" in record for record in logged)


@pytest.mark.parametrize("task", ["classes", "labels"])
def test_turns_weak_fires_where_one_modality_says_all_and_the_other_nothing(
    task: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    """Label smoothing keeps the loss of both above half of their mean."""
    strategy = make_strategy("mla", turns="weak", task=task, label_smoothing=0.2, lr=0.02)
    samples = make_samples(rows=60, task=task)
    noise = torch.randn(samples.columns["b"].windows[:].shape, generator=torch.Generator().manual_seed(1))
    samples.columns["b"] = dataclasses.replace(samples.columns["b"], windows=noise)  # type: ignore[index]
    logged = train(strategy, samples, 60)
    assert 0 < sum("loss/a" not in record for record in logged) <= 30
    assert all("loss/b" in record for record in logged)


def test_turns_weak_is_refused_for_numbers_with_the_choices(make_strategy: Make) -> None:
    with pytest.raises(ConfigError, match=r"--turns weak: .* choose all or shuffled"):
        make_strategy("mla", turns="weak", task="number")


def test_no_loss_is_below_its_least_value() -> None:
    targets = torch.tensor([0, 2])
    ideal = torch.log(torch.full((2, 4), 0.05) + 0.8 * torch.eye(4)[targets])
    losses = loss_of_rows("classes", ideal, targets, 0.2)
    torch.testing.assert_close(losses, torch.full((2,), LEAST["classes"](4, 0.2)))
    assert LEAST["classes"](4, 0.0) == LEAST["labels"](4, 0.2) == 0


@every_task
def test_a_strategy_can_begin_at_the_base_rates(
    name: str, task: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    """Without any evidence, the features being 0, the fused answer is the prior."""
    strategy, samples = make_strategy(name, task=task), make_samples(rows=23, task=task)
    prior = strategy.task.prior_of(samples.targets.numpy())
    outputs = torch.tensor(strategy.task.prior_outputs(prior), dtype=torch.float32)
    strategy.begin_at(outputs.tolist())
    biases = torch.stack([strategy.heads[strategy.head_of[one]].bias.detach() for one in "ab"])
    summed = biases.sum(0) - strategy.shared_bias() if isinstance(strategy, JointSum) else None
    exported_alone = not isinstance(strategy, JointSum) or isinstance(strategy, JointUnimodal)
    torch.testing.assert_close(biases[0] if exported_alone else summed, outputs)
    answers = strategy.task.answers(strategy.task.natural(outputs.double().numpy()[None]))
    expected = strategy.task.answers(strategy.task.prior_parameters(prior)[None])
    assert answers == pytest.approx(expected, abs=1e-5)


def test_with_turns_shuffled_each_modality_is_sometimes_the_first(
    make_strategy: Make, make_samples: MakeSamples
) -> None:
    first = {
        turns: {next(iter(logged)) for logged in train(make_strategy("mla", turns=turns), make_samples(), 20)}
        for turns in ("all", "shuffled")
    }
    assert first == {"all": {"loss/a"}, "shuffled": {"loss/a", "loss/b"}}


@pytest.mark.parametrize("name", [name for name, kind in sorted(STRATEGIES.items()) if issubclass(kind, JointSum)])
def test_the_shared_bias_is_where_the_heads_are(name: str, make_strategy: Make) -> None:
    """Zeros on the CPU cannot be added to logits on a GPU. The device `meta` stands for one here."""
    strategy = make_strategy(name)
    assert isinstance(strategy, JointSum)
    strategy.heads.to("meta")
    assert strategy.shared_bias().device.type == "meta"
