"""What one step of each strategy does, against its equations written out. Linear encoders: no noise but the strategy's own."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mla_serve.errors import ConfigError
from mla_serve.inputs import VectorInput
from mla_serve.tasks import Classes
from mla_serve.train.data.samples import Samples
from mla_serve.train.distributed.local_rows import LocalRows
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.losses import LEAST
from mla_serve.train.strategies import STRATEGIES, Options, Part, Strategy
from mla_serve.train.strategies.mib import Bottleneck

spec = importlib.util.spec_from_file_location("train_conftest", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)

SIZE, WIDTH, CLASSES = helpers.SIZE, helpers.WIDTH, helpers.CLASSES
SMOOTHING = 0.1
MakeSamples = Callable[..., Samples]
Losses = dict[str, Tensor]


class LinearEncoder(Encoder):
    """One linear layer, which also keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(VectorInput(SIZE), WIDTH)
        self.layer = nn.Linear(SIZE, WIDTH)
        self.told: list[Any] = []

    def forward(self, windows: Tensor) -> Tensor:
        features: Tensor = self.layer(windows)
        return features

    def measure(self, windows: Tensor) -> None:
        self.told.append(windows)

    def set_backbone(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:
        self.told.append((backbone, cache, device))

    def precompute(self, windows: Tensor) -> Tensor:
        return windows + 1

    def finished(self, weights: Any) -> Encoder:
        self.told.append(weights)
        return self


def make(name: str, names: tuple[str, ...] = ("a", "b"), rows: int = 24, seed: int = 0, **options: Any) -> Strategy:
    torch.manual_seed(seed)
    given = Options(**({"label_smoothing": SMOOTHING, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0} | options))
    strategy = STRATEGIES[name].build(
        {each: LinearEncoder() for each in names}, Classes(tuple(map(str, range(CLASSES)))), given
    )
    strategy.prepare(100, rows)
    for parameter in strategy.parameters():  # biases that begin at zero would hide what becomes of them
        nn.init.normal_(parameter, std=0.5)
    return strategy


def batch_of(samples: Samples, without: Mapping[str, list[int]] | None = None) -> Any:
    """Take all rows as one batch, and take modalities away from some of them."""
    for name, rows in (without or {}).items():
        samples.columns[name].count[rows] = 0
    return helpers.FixedBatch(samples, torch.arange(len(samples)))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def joint_logits(strategy: Strategy, batch: Any, heads: Mapping[str, nn.Linear], bias: Tensor | None = None) -> Tensor:
    """Sum W_m h_m and the heads' own biases over what each row has, or one bias that they share: (B, C)."""
    total = torch.zeros(len(batch.targets), CLASSES) + (0 if bias is None else bias)
    for name, head in heads.items():
        features = torch.zeros(len(batch.targets), WIDTH)
        features[batch.present[name]] = strategy.encoders[name](batch.inputs(name))
        own = torch.zeros(CLASSES) if bias is not None else head.bias
        total = total + features @ head.weight.T + own * batch.present[name][:, None]
    return total


def heads_of(strategy: Strategy) -> dict[str, nn.Linear]:
    return {name: strategy.heads[strategy.head_of[name]] for name in strategy.encoders}  # type: ignore[misc]


def own_losses(strategy: Strategy, batch: Any) -> Losses:
    return {
        name: cross_entropy(head(strategy.encoders[name](batch.inputs(name))), batch.targets[batch.present[name]])
        for name, head in heads_of(strategy).items()
    }


def gradients_of(strategy: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*strategy.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


def gradients_in(strategy: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in strategy.named_parameters() if value.grad is not None}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], **tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance.get("rtol", 1e-4), atol=tolerance.get("atol", 1e-6)
        )


def doubled(tensors: list[Tensor]) -> None:
    """Stand for the sum over two processes that have the same rows."""
    with torch.no_grad():
        for tensor in tensors:
            tensor.mul_(2)


def learn(strategy: Strategy, batch: Any) -> dict[str, float]:
    logged: dict[str, float] = strategy.learn(batch, strategy.unimodal_logits(batch))  # type: ignore[operator]
    return logged


MISSING = {"a": [0, 1, 2, 23], "b": [0, 5, 9]}
"""Row 0 has nothing at all."""


@pytest.mark.parametrize("name", ["joint_sum", "joint_concat"])
@pytest.mark.parametrize("without", [{}, MISSING], ids=["complete", "missing"])
def test_a_joint_step_learns_the_mean_loss_of_the_rows_that_have_anything(
    name: str, without: dict[str, list[int]], make_samples: MakeSamples
) -> None:
    strategy, batch = make(name), batch_of(make_samples(), without)
    bias = strategy.shared_bias() if name == "joint_concat" else None  # type: ignore[operator]
    some = batch.present["a"] | batch.present["b"]
    loss = cross_entropy(joint_logits(strategy, batch, heads_of(strategy), bias)[some], batch.targets[some])
    expected, own = gradients_of(strategy, loss), own_losses(strategy, batch)
    logged = learn(strategy, batch)
    assert_same(gradients_in(strategy), expected)
    assert logged == pytest.approx(
        {"loss/joint": loss.item()} | {f"loss/{n}": value.item() for n, value in own.items()}
    )


@pytest.mark.parametrize("name", ["joint_sum", "joint_concat"])
def test_a_joint_step_moves_against_the_gradients_and_says_the_losses(name: str, make_samples: MakeSamples) -> None:
    strategy, again, batch = make(name), make(name), batch_of(make_samples())
    before = {key: value.detach().clone() for key, value in strategy.named_parameters()}
    expected, rate = learn(again, batch), rates(strategy)[0]
    assert strategy.step(batch) == expected
    moved = {key: value.detach() - before[key] for key, value in strategy.named_parameters()}
    assert_same(moved, {key: -rate * value for key, value in gradients_in(again).items()}, rtol=1e-3)


def test_a_concat_head_has_one_bias_for_all_slices_and_says_it_as_numbers() -> None:
    strategy = make("joint_concat", ("a", "b", "c"))
    biases = {id(head.bias) for head in heads_of(strategy).values()}
    assert len(biases) == 1
    assert strategy.native_bias() == pytest.approx(next(iter(heads_of(strategy).values())).bias.tolist())
    assert make("joint_sum").native_bias() == []
    assert (
        STRATEGIES["joint_concat"]
        .build({"a": LinearEncoder()}, Classes(tuple(map(str, range(CLASSES)))), Options())
        .native_bias()
        == [0.0] * CLASSES
    )


def test_joint_dropout_keeps_each_modality_by_chance_and_all_of_a_row_that_would_lose_them(
    make_samples: MakeSamples,
) -> None:
    names, rows = ("a", "b", "c"), 6000
    strategy, batch = make("joint_dropout", names, rows), batch_of(make_samples(names, rows), {"a": list(range(3000))})
    torch.manual_seed(1)
    kept = strategy.kept(batch, dict.fromkeys(names, torch.zeros(0)))  # type: ignore[operator]
    assert not kept["a"][:3000].any()  # what is missing stays missing
    counts = torch.stack([kept[name] for name in names]).sum(dim=0)
    two, three = counts[:3000], counts[3000:]
    shares = {
        "two of two": ((two == 2), 0.6**2 + 0.4**2),
        "one of two": ((two == 1), 2 * 0.6 * 0.4),
        "three of three": ((three == 3), 0.6**3 + 0.4**3),
        "two of three": ((three == 2), 3 * 0.6**2 * 0.4),
        "one of three": ((three == 1), 3 * 0.6 * 0.4**2),
    }
    for what, (found, expected) in shares.items():
        assert found.float().mean() == pytest.approx(expected, abs=0.03), what
    first, second = kept["b"][3000:], kept["c"][3000:]
    assert (first & second).float().mean() == pytest.approx(0.6**2 + 0.4**3, abs=0.03)  # drawn apart
    again = strategy.kept(batch, dict.fromkeys(names, torch.zeros(0)))  # type: ignore[operator]
    assert not torch.equal(again["b"], kept["b"])  # and anew for each batch


def test_joint_dropout_learns_from_what_it_kept(make_samples: MakeSamples) -> None:
    strategy, batch = make("joint_dropout"), batch_of(make_samples())
    torch.manual_seed(3)
    kept = strategy.kept(batch, {"a": torch.zeros(0), "b": torch.zeros(0)})  # type: ignore[operator]
    bias, total = strategy.shared_bias(), torch.zeros(24, CLASSES)  # type: ignore[operator]
    for name, head in heads_of(strategy).items():
        total = total + (strategy.encoders[name](batch.inputs(name)) @ head.weight.T) * kept[name][:, None]
    expected = gradients_of(strategy, cross_entropy(total + bias, batch.targets))
    torch.manual_seed(3)
    learn(strategy, batch)
    assert_same(gradients_in(strategy), expected)


@pytest.mark.parametrize("name", ["joint_sum", "joint_unimodal", "mmpareto"])
def test_a_batch_in_which_nobody_has_anything_moves_only_the_schedule(name: str, make_samples: MakeSamples) -> None:
    strategy = make(name)
    before = {key: value.clone() for key, value in strategy.state_dict().items()}
    batch = batch_of(make_samples(), {"a": list(range(24)), "b": list(range(24))})
    rate = strategy.schedules["all"].optimizer.param_groups[0]["lr"]
    assert strategy.step(batch) == {}
    assert_same(strategy.state_dict(), before, rtol=0, atol=0)
    assert strategy.schedules["all"].optimizer.param_groups[0]["lr"] > rate  # a one-cycle rate rises at first


@pytest.mark.parametrize("without", [{}, MISSING], ids=["complete", "missing"])
def test_joint_unimodal_learns_the_sum_of_the_joint_and_each_own_loss(
    without: dict[str, list[int]], make_samples: MakeSamples
) -> None:
    strategy, batch = make("joint_unimodal"), batch_of(make_samples(), without)
    some = batch.present["a"] | batch.present["b"]
    joint = cross_entropy(joint_logits(strategy, batch, dict(strategy.joint.items()))[some], batch.targets[some])  # type: ignore[operator, union-attr]
    own = own_losses(strategy, batch)
    expected = gradients_of(strategy, joint + own["a"] + own["b"])
    before = {key: value.detach().clone() for key, value in strategy.named_parameters()}
    rate = strategy.schedules["all"].optimizer.param_groups[0]["lr"]
    logged = strategy.step(batch)
    assert logged == pytest.approx({"loss/joint": joint.item(), "loss/a": own["a"].item(), "loss/b": own["b"].item()})
    moved = {key: value.detach() - before[key] for key, value in strategy.named_parameters()}
    assert_same(moved, {key: -rate * value for key, value in expected.items()}, rtol=1e-3)


def shortest(a: Tensor, b: Tensor) -> Tensor:
    """Find the shortest vector on the segment from a to b by trying."""
    shares = torch.linspace(0, 1, 20_001)[:, None]
    points = shares * a + (1 - shares) * b
    return points[points.norm(dim=1).argmin()]


def pareto(a: Tensor, b: Tensor) -> Tensor:
    """Combine a joint and a unimodal gradient: Wei and Hu, ICML 2024; see MmPareto."""
    mixed = (a + b) / 2 if a @ b > 0 else shortest(a, b)
    return 1.5 * (a + b).norm() * mixed / mixed.norm()


@pytest.mark.parametrize("seed", range(6))
def test_mmpareto_combines_the_gradients_of_each_encoder_apart(seed: int, make_samples: MakeSamples) -> None:
    strategy, batch = make("mmpareto", seed=seed), batch_of(make_samples(seed=seed), MISSING)
    some = batch.present["a"] | batch.present["b"]
    joint = cross_entropy(joint_logits(strategy, batch, dict(strategy.joint.items()))[some], batch.targets[some])  # type: ignore[operator, union-attr]
    own = own_losses(strategy, batch)
    plain = gradients_of(strategy, joint + own["a"] + own["b"])
    strategy.backward(*strategy.losses(batch, strategy.all_features(batch)))  # type: ignore[operator]
    found = gradients_in(strategy)
    for name in "ab":
        keys = [key for key in plain if key.startswith(f"encoders.{name}.")]
        a, b = (gradients_of(strategy, loss) for loss in (joint, own[name]))
        expected = pareto(*(torch.cat([one[key].flatten() for key in keys]) for one in (a, b)))
        torch.testing.assert_close(torch.cat([found[key].flatten() for key in keys]), expected, rtol=1e-2, atol=1e-4)
    rest = [key for key in plain if not key.startswith("encoders.")]
    assert_same({key: found[key] for key in rest}, {key: plain[key] for key in rest})


def test_mmpareto_leaves_frozen_parameters_alone(make_samples: MakeSamples) -> None:
    strategy, batch = make("mmpareto"), batch_of(make_samples())
    strategy.encoders["a"].layer.weight.requires_grad_(False)
    strategy.backward(*strategy.losses(batch, strategy.all_features(batch)))  # type: ignore[operator]
    assert strategy.encoders["a"].layer.weight.grad is None
    assert strategy.encoders["a"].layer.bias.grad is not None


def test_mmpareto_combines_gradients_that_are_summed_over_the_processes(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with the same rows: both gradients are twice as long, and so is what they are combined into."""
    strategy, batch = make("mmpareto"), batch_of(make_samples())
    strategy.backward(*strategy.losses(batch, strategy.all_features(batch)))  # type: ignore[operator]
    alone = gradients_in(strategy)
    strategy.zero_grad()
    monkeypatch.setattr("mla_serve.train.distributed.collectives.all_reduce", doubled)
    strategy.backward(*strategy.losses(batch, strategy.all_features(batch)))  # type: ignore[operator]
    assert_same(gradients_in(strategy), {name: 2 * value for name, value in alone.items()}, rtol=1e-3)


def test_mmpareto_counts_a_parameter_that_no_loss_reaches_as_still(make_samples: MakeSamples) -> None:
    strategy, batch = make("mmpareto"), batch_of(make_samples())
    strategy.encoders["a"].spare = nn.Parameter(torch.ones(3))
    strategy.backward(*strategy.losses(batch, strategy.all_features(batch)))  # type: ignore[operator]
    assert torch.equal(strategy.encoders["a"].spare.grad, torch.zeros(3))


def test_mmpareto_combines_where_one_loss_does_not_reach_a_parameter() -> None:
    from mla_serve.train.strategies.mmpareto import _combine, _filled

    like = [torch.zeros(2), torch.zeros(2, 2)]
    filled = _filled([None, torch.ones(2, 2)], like)
    assert [one.tolist() for one in filled] == [[0, 0], [[1, 1], [1, 1]]]
    parts = _combine(filled, [torch.ones(2), torch.zeros(2, 2)])
    assert [part.shape for part in parts] == [one.shape for one in like]
    expected = pareto(torch.tensor([0.0, 0, 1, 1, 1, 1]), torch.tensor([1.0, 1, 0, 0, 0, 0]))
    torch.testing.assert_close(torch.cat([part.flatten() for part in parts]), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([3.0, 0.0], [-1.0, 1.0]),
        ([-1.0, 1.0], [3.0, 0.0]),
        ([1.0, 0.0], [0.0, 2.0]),
        ([-4.0, 1.0], [1.0, 0.0]),
        ([0.1, 0.1], [-5.0, 4.0]),
        ([1e-4, 0.0], [0.0, 2e-4]),
    ],
)
def test_mmpareto_takes_the_shortest_vector_between_gradients_that_do_not_agree(a: list[float], b: list[float]) -> None:
    from mla_serve.train.strategies.mmpareto import _combine

    both = torch.tensor(a), torch.tensor(b)
    size = max(one.norm() for one in both)
    expected = pareto(both[0] / size, both[1] / size) * size
    found = _combine([both[0]], [both[1]])[0]
    torch.testing.assert_close(found / size, expected / size, rtol=1e-2, atol=1e-3)


def test_mmpareto_takes_the_own_gradient_where_the_two_cancel_out_and_nothing_where_both_are_zero() -> None:
    from mla_serve.train.strategies.mmpareto import _combine

    found = _combine([torch.tensor([3.0, 0.0])], [torch.tensor([-1.0, 0.0])])[0]
    torch.testing.assert_close(found, torch.tensor([-3.0, 0.0]))  # the direction of b, 1.5 times as long as a + b
    assert _combine([torch.zeros(2)], [torch.zeros(2)])[0].tolist() == [0, 0]


def confidence(strategy: Strategy, batch: Any, unimodal: Mapping[str, Tensor]) -> dict[str, float]:
    """Compute the mean probability of the truth, with each slice's share of the bias."""
    bias = strategy.shared_bias() / len(unimodal)  # type: ignore[operator]
    sure = {}
    for name, head in heads_of(strategy).items():
        p = (strategy.encoders[name](batch.inputs(name)) @ head.weight.T + bias).softmax(1)
        sure[name] = p[torch.arange(len(p)), batch.targets[batch.present[name]]].mean().item()
    return sure


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_ogm_slows_a_modality_by_how_far_its_confidence_is_ahead_of_the_others(
    names: tuple[str, ...], make_samples: MakeSamples
) -> None:
    strategy, batch = make("ogm_ge", names), batch_of(make_samples(names), {"b": [0, 4, 5]})
    unimodal = strategy.unimodal_logits(batch)  # type: ignore[operator]
    sure = confidence(strategy, batch, unimodal)
    expected = {}
    for name, own in sure.items():
        others = [value for other, value in sure.items() if other != name]
        rho = own / (sum(others) / len(others))
        expected[name] = 1 - math.tanh(0.3 * rho) if rho > 1 else 1.0
    assert strategy.scales(batch, unimodal) == pytest.approx(expected)  # type: ignore[operator]
    assert 0 < sum(value < 1 for value in expected.values()) < len(names)
    assert make("ogm_ge", ("a",)).scales(batch, {"a": unimodal["a"]}) == {"a": 1.0}  # type: ignore[operator]


def test_ogm_scales_the_gradient_of_the_encoder_that_is_ahead_and_adds_noise_to_both(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, batch = make("ogm_ge"), batch_of(make_samples())
    loss = cross_entropy(
        joint_logits(strategy, batch, heads_of(strategy), strategy.shared_bias()),  # type: ignore[operator]
        batch.targets,
    )
    plain = gradients_of(strategy, loss)
    monkeypatch.setattr(strategy, "scales", lambda *_: {"a": 0.25, "b": 1.0})
    key, other, residuals, biases = "encoders.a.layer.weight", "encoders.b.layer.weight", [], []
    for seed in range(40):
        strategy.zero_grad()
        torch.manual_seed(seed)
        learn(strategy, batch)
        found = gradients_in(strategy)
        residuals.append((found[key] - 0.25 * plain[key]) / plain[key].std(correction=0))
        residuals.append((found[other] - plain[other]) / plain[other].std(correction=0))
        biases.append(found["encoders.a.layer.bias"] - 0.25 * plain["encoders.a.layer.bias"])
        rest = [name for name in plain if name.startswith("heads.")]
        assert_same({name: found[name] for name in rest}, {name: plain[name] for name in rest})
    noise = torch.stack(residuals)
    assert noise.mean() == pytest.approx(0, abs=0.1)
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert (noise[0] * noise[1]).mean() == pytest.approx(0, abs=0.6)
    own_spread = plain["encoders.a.layer.bias"].std(correction=0)  # each parameter has noise of its own size
    assert torch.stack(biases).std() / own_spread == pytest.approx(1, abs=0.2)


def test_ogm_leaves_parameters_without_a_gradient_alone(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, batch = make("ogm_ge"), batch_of(make_samples())
    strategy.encoders["a"].layer.weight.requires_grad_(False)
    monkeypatch.setattr(strategy, "scales", lambda *_: {"a": 0.25, "b": 1.0})
    learn(strategy, batch)
    assert strategy.encoders["a"].layer.weight.grad is None


def test_ogm_adds_no_noise_to_a_gradient_of_one_number(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One number has no spread, and must not become NaN."""
    strategy, batch = make("ogm_ge"), batch_of(make_samples())
    encoder = strategy.encoders["a"]
    encoder.gain = nn.Parameter(torch.ones(1))
    encoder.forward = lambda windows: encoder.gain * encoder.layer(windows)
    loss = cross_entropy(
        joint_logits(strategy, batch, heads_of(strategy), strategy.shared_bias()),  # type: ignore[operator]
        batch.targets,
    )
    plain = gradients_of(strategy, loss)["encoders.a.gain"]
    monkeypatch.setattr(strategy, "scales", lambda *_: {"a": 0.25, "b": 1.0})
    learn(strategy, batch)
    torch.testing.assert_close(encoder.gain.grad, 0.25 * plain)


def energy(z: Tensor) -> Tensor:
    return 0.1 * z.logsumexp(1)


def ranking_of(kappa: Tensor, u: Tensor) -> Tensor:
    """Sum over pairs i and i - 1 what the energies fall short of the order of hardness, over the number of pairs."""
    hard = (kappa - kappa.min()) / (kappa.max() - kappa.min())
    total, pairs = torch.zeros(()), 0
    for i in range(len(u)):
        difference = hard[i] - hard[i - 1]
        if difference != 0:
            wanted = (
                -difference if difference > 0 else difference
            )  # the harder one has the lower energy, by the difference
            shift = u[i] - u[i - 1] if difference > 0 else u[i - 1] - u[i]
            total, pairs = total + (shift + wanted).clamp_min(0), pairs + 1
    return total / max(pairs, 1)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_step_of_qmf_adds_the_energy_weighted_loss_each_own_loss_and_the_ranking(
    epoch: int, make_samples: MakeSamples
) -> None:
    strategy, batch = make("qmf"), batch_of(make_samples(), MISSING)
    for _ in range(epoch):
        strategy.start_epoch()
    for seed, kappa in enumerate(strategy.kappa.values()):  # type: ignore[operator, union-attr]
        kappa.copy_(1 + torch.rand(24, generator=torch.Generator().manual_seed(seed)).round(decimals=1) * 3)
    before = {name: kappa.clone() for name, kappa in strategy.kappa.items()}  # type: ignore[operator, union-attr]
    z = {n: head(strategy.encoders[n](batch.inputs(n))) for n, head in heads_of(strategy).items()}
    fused, rows = torch.zeros(24, CLASSES), {name: batch.present[name].nonzero().squeeze(1) for name in "ab"}
    for name, logits in z.items():
        fused = fused.index_add(0, rows[name], energy(logits).detach()[:, None] * logits)
    some = batch.present["a"] | batch.present["b"]
    own = {name: cross_entropy(logits, batch.targets[rows[name]]) for name, logits in z.items()}
    ranking = sum(_ranked(before[name], rows[name], z[name]) for name in "ab") if epoch > 1 else torch.zeros(())
    loss = cross_entropy(fused[some], batch.targets[some]) + own["a"] + own["b"] + ranking
    expected = gradients_of(strategy, loss)
    logged = learn(strategy, batch)
    assert logged == pytest.approx({"loss/joint": loss.item(), "loss/a": own["a"].item(), "loss/b": own["b"].item()})
    assert_same(gradients_in(strategy), expected)
    for name, logits in z.items():
        added = torch.zeros(24)
        added[rows[name]] = F.cross_entropy(logits.detach(), batch.targets[rows[name]], reduction="none")
        torch.testing.assert_close(strategy.kappa[name], before[name] + added)  # type: ignore[index]


def _ranked(kappa: Tensor, rows: Tensor, logits: Tensor) -> Tensor:
    """Rank as the strategy does: hardness is scaled by all rows of the training split, not by those of the batch."""
    spread = kappa.max() - kappa.min()
    hard, u = ((kappa - kappa.min()) / spread)[rows], energy(logits)
    ends = torch.tensor([0.0, 1.0])  # ranking_of scales again: two rows that are no pair of the batch's fix the scale
    assert hard.min() == ends[0]
    assert hard.max() == ends[1]
    return ranking_of(hard, u)


def test_qmf_lines_values_up_over_the_processes_by_each_modalitys_rows(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, batch = make("qmf"), batch_of(make_samples(), MISSING)
    unimodal, totals = strategy.unimodal_logits(batch), []  # type: ignore[operator]

    def gather_rows(values: Tensor, local: LocalRows) -> Tensor:
        totals.append((len(values), local.total))
        return values

    monkeypatch.setattr("mla_serve.train.distributed.collectives.gather_rows", gather_rows)
    strategy.learn(batch, unimodal)  # type: ignore[operator]
    assert totals == [(20, 20)] * 3 + [(21, 21)] * 3  # rows, energies and losses


def test_qmf_ranks_nothing_where_all_rows_are_as_hard() -> None:
    strategy = make("qmf")
    strategy.epochs = 5
    strategy.kappa["a"].fill_(2.0)  # type: ignore[index]
    assert strategy.ranking("a", torch.arange(24), torch.rand(24)) == 0  # type: ignore[operator]
    strategy.kappa["a"][3] = 4.0  # type: ignore[index]
    assert strategy.ranking("a", torch.tensor([1, 2]), torch.tensor([5.0, 1.0])) == 0  # type: ignore[operator]


def test_qmf_starts_with_nothing_accumulated_and_counts_epochs() -> None:
    strategy = make("qmf", rows=7)
    assert strategy.epochs == 0
    assert {name: kappa.tolist() for name, kappa in strategy.kappa.items()} == {"a": [0.0] * 7, "b": [0.0] * 7}  # type: ignore[operator, union-attr]
    strategy.start_epoch()
    strategy.start_epoch()
    assert strategy.epochs == 2


@pytest.mark.parametrize(
    ("sure", "count", "expected"),
    [
        ({}, 64, 64),
        ({"a": 0.6, "b": 0.6}, 64, 64),
        ({"a": 0.3, "b": 0.9}, 64, 64),
        ({"a": 0.9, "b": 0.3}, 64, round(64 * (1 - math.tanh(0.5)))),
        ({"b": 0.3}, 64, 64),
        ({"a": 0.0, "b": 0.0}, 64, 64),
        ({"a": 0.9, "b": 0.001, "c": 0.001}, 64, 16),
        ({"a": 0.9, "b": 0.001, "c": 0.001}, 4, 2),
        ({"a": 0.9, "b": 0.001, "c": 0.001}, 1, 1),
    ],
)
def test_dus_draws_fewer_rows_the_further_a_modality_is_ahead(
    sure: dict[str, float], count: int, expected: int
) -> None:
    strategy = make("dus", ("a", "b", "c"))
    strategy.confidence = sure
    assert strategy.rows_for("a", count) == expected  # type: ignore[operator]


def test_dus_follows_the_probability_of_the_truth_after_each_turn(make_samples: MakeSamples) -> None:
    strategy, samples = make("dus"), make_samples()
    expected: dict[str, float] = {}
    for _ in range(4):
        rows = {name: strategy.rows_for(name, 24) for name in "ab"}  # type: ignore[operator]
        logged = strategy.step(batch_of(samples))
        assert logged["rows/a"] == rows["a"]
        assert set(logged) >= {"loss/a", "loss/b", "rows/a", "rows/b"}
    # One more step, with the head held still by a rate of zero, so that what is measured can be computed beforehand.
    for schedule in strategy.schedules.values():
        for group in schedule.optimizer.param_groups:
            group["lr"] = 0.0
    before, batch = dict(strategy.confidence), batch_of(samples)  # type: ignore[arg-type]
    for name in "ab":
        drawn = strategy.rows_for(name, 24) if name == "a" else None  # type: ignore[operator]
        strategy._turn(name, strategy.part(batch, name))  # type: ignore[operator]
        count = drawn or round(logged_rows(strategy, before, expected, name))
        p = strategy.opinions(name, batch.inputs(name)[:count]).softmax(1)
        truth = p[torch.arange(count), batch.targets[:count]].mean().item()
        expected[name] = 0.9 * before[name] + 0.1 * truth
        assert strategy.confidence[name] == pytest.approx(expected[name])  # type: ignore[index]


def test_a_turn_of_dus_learns_from_the_first_of_the_rows_alone(make_samples: MakeSamples) -> None:
    strategy, batch = make("dus"), batch_of(make_samples(), {"a": [0, 5]})
    strategy.confidence = {"a": 0.9, "b": 0.3}
    count = round(22 * (1 - math.tanh(0.5)))
    rows = [row for row in range(24) if row not in (0, 5)][:count]
    logits = strategy.opinions("a", batch.inputs("a")[:count])
    loss = cross_entropy(logits, batch.targets[rows])
    logged = strategy.step(batch)
    assert logged["rows/a"] == count
    assert logged["loss/a"] == pytest.approx(loss.item())


def logged_rows(strategy: Strategy, before: dict[str, float], now: dict[str, float], name: str) -> float:
    """Compute how many rows `name` drew once the means of those before it had moved."""
    sure = before | now
    ahead = sure[name] / (sum(sure.values()) / len(sure)) - 1
    return 24 * min(max(1 - math.tanh(ahead), 0.25), 1.0)


def test_dus_is_in_training_again_after_it_has_measured(make_samples: MakeSamples) -> None:
    strategy = make("dus").train()
    strategy.step(batch_of(make_samples()))
    assert strategy.encoders["a"].training
    strategy.eval()
    strategy.step(batch_of(make_samples()))
    assert not strategy.encoders["a"].training


def bottleneck(log_sigma: float) -> Bottleneck:
    torch.manual_seed(0)
    made = Bottleneck(LinearEncoder())
    nn.init.zeros_(made.log_sigma.weight)
    nn.init.constant_(made.log_sigma.bias, log_sigma)
    return made.train()


@pytest.mark.parametrize(("given", "held"), [(-0.7, -0.7), (0.4, 0.4), (-40.0, -10.0), (40.0, 5.0)])
def test_a_bottleneck_adds_noise_of_sigma_and_keeps_twice_the_divergence_to_the_unit_normal(
    given: float, held: float
) -> None:
    made, windows = bottleneck(given), torch.randn(4000, SIZE)
    mean, sigma = made.mean(made.encoder(windows)), math.exp(held)
    features = made(windows)
    noise = ((features - mean) / sigma).detach()
    slack = max(0.05, 1e-5 / sigma)
    assert noise.mean() == pytest.approx(0, abs=slack)
    assert noise.std() == pytest.approx(1, abs=slack)
    here = torch.distributions.Normal(mean, sigma)
    divergence = torch.distributions.kl_divergence(here, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(made.divergence, 2 * divergence, rtol=1e-4, atol=1e-4)
    assert torch.equal(made.eval()(windows), mean)


def test_a_bottleneck_passes_on_what_its_encoder_is_told(tmp_path: Path) -> None:
    encoder = LinearEncoder()
    made, windows, backbone = Bottleneck(encoder), torch.zeros(2, SIZE), nn.Linear(1, 1)
    assert made.spec is encoder.spec
    assert made.divergence == 0  # before the first batch, and for a modality that no batch has had
    device = torch.device("cpu")
    made.measure(windows)
    made.set_backbone(backbone, tmp_path, device)
    assert encoder.told[0] is windows
    assert encoder.told[1] == (backbone, tmp_path, device)
    assert torch.equal(made.precompute(windows), windows + 1)
    weights = dict
    assert made.finished(weights) is made
    assert made.encoder is encoder
    assert encoder.told[2] is weights
    assert not made.precomputes
    assert not made.normalises_over_batch


def test_mib_adds_the_loss_of_each_modality_and_half_of_beta_times_each_divergence(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, batch = make("mib").train(), batch_of(make_samples(), {"a": [0, 1, 2], "b": [4]})
    monkeypatch.setattr(torch, "randn", lambda *size, **_: torch.zeros(*size))  # the noise is tested above
    monkeypatch.setattr(strategy.schedules["all"], "step", lambda: None)
    joint = cross_entropy(joint_logits(strategy, batch, strategy.joint), batch.targets)  # type: ignore[arg-type]
    alone = own_losses(strategy, batch)
    divergence = torch.zeros(())
    for name in "ab":
        strategy.encoders[name](batch.inputs(name))
        divergence = divergence + strategy.encoders[name].divergence
    expected = gradients_of(strategy, joint + sum(alone.values()) + 1e-3 / 2 * divergence)
    logged = strategy.step(batch)
    assert_same(gradients_in(strategy), expected)
    assert logged == pytest.approx(
        {"loss/joint": joint.item(), "divergence": divergence.item()}
        | {f"loss/{name}": loss.item() for name, loss in alone.items()}
    )


def test_mib_weighs_a_process_by_its_share_of_the_rows(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The divergence that is logged is a sum over processes; one that has half of the rows adds half of its own."""
    strategy, batch = make("mib").train(), batch_of(make_samples())
    monkeypatch.setattr(
        "mla_serve.train.distributed.collectives.local_rows", lambda there: LocalRows(torch.arange(24), 48)
    )
    logged = strategy.step(batch)
    whole = sum(float(strategy.encoders[name].divergence.detach()) for name in "ab")
    assert logged["divergence"] == pytest.approx(whole / 2)


def test_the_first_rows_of_a_part_are_those_of_the_batch_that_this_process_has() -> None:
    windows, labels = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 2])
    first = Part(windows, labels, LocalRows(torch.tensor([0, 2, 4]), 6)).first(3)
    assert torch.equal(first.windows, windows[:2])
    assert torch.equal(first.targets, labels[:2])
    assert first.local.positions.tolist() == [0, 2]
    assert first.local.total == 3


class NormalisingEncoder(LinearEncoder):
    """One that needs two rows at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)


class SlowEncoder(LinearEncoder):
    """One whose weight learns at a tenth of the rate, and whose bias does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.layer.bias.requires_grad_(False)

    def relative_learning_rates(self) -> Mapping[int, float]:
        return {id(self.layer.weight): 0.1}


def rates(strategy: Strategy, name: str = "all") -> list[float]:
    return [group["lr"] for group in strategy.schedules[name].optimizer.param_groups]


@pytest.mark.parametrize("seed", range(2))
def test_a_step_of_mla_takes_turns_and_projects_the_heads_step_past_the_means_of_the_turns_before(
    seed: int, make_samples: MakeSamples
) -> None:
    names = ("a", "b", "c")
    strategy = make("mla", names, seed=seed, hgm="epoch")
    batch = batch_of(make_samples(names), {"a": [0, 1], "c": [5, 6, 7]})
    head, rate = strategy.heads["head"], rates(strategy, "head")[0]
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    momentum = strategy.schedules["head"].optimizer.param_groups[0]["momentum"]
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)  # of the optimiser, which steps in every turn
    p, expected, shares = torch.eye(WIDTH, dtype=torch.float64), {}, {}
    for name in names:
        layer = strategy.encoders[name].layer
        features = batch.inputs(name) @ layer.weight.T + layer.bias
        weight.requires_grad_()
        bias.requires_grad_()
        loss = cross_entropy(features @ weight.T + bias, batch.targets[batch.present[name]])
        expected[f"loss/{name}"] = loss.item()
        g_weight, g_bias, *own = torch.autograd.grad(loss, [weight, bias, layer.weight, layer.bias])
        expected_layer = [value.detach() - rate * g for value, g in zip((layer.weight, layer.bias), own, strict=True)]
        shares[name] = expected_layer
        speed, bias_speed = momentum * speed + g_weight, momentum * bias_speed + g_bias
        step = (-rate * speed).double() @ p
        expected[f"kept/{name}"] = float(step.norm() / (rate * speed).double().norm())
        weight, bias = weight.detach() + step.float(), bias.detach() - rate * bias_speed
        r = features.detach().double().mean(0)
        q = p @ r
        p = p - torch.outer(q, q) / (0.1 + r @ q)
    assert strategy.step(batch) == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(head.weight.detach(), weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.bias.detach(), bias, rtol=1e-4, atol=1e-5)
    for name in names:
        torch.testing.assert_close(strategy.encoders[name].layer.weight.detach(), shares[name][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(strategy.encoders[name].layer.bias.detach(), shares[name][1], rtol=1e-4, atol=1e-5)


def test_with_turns_shuffled_every_order_comes_up_and_nobody_is_left_out(make_samples: MakeSamples) -> None:
    names = ("a", "b", "c")
    strategy, samples = make("mla", names, turns="shuffled"), make_samples(names)
    torch.manual_seed(0)
    orders = {tuple(key[-1] for key in strategy.step(batch_of(samples)) if key.startswith("loss")) for _ in range(40)}
    assert orders == set(itertools.permutations(names))


@pytest.mark.parametrize("turns", ["all", "weak"])
def test_turns_are_in_the_order_of_the_table_unless_shuffled(turns: str, make_samples: MakeSamples) -> None:
    strategy, samples = make("mla", ("c", "a", "b"), turns=turns), make_samples(("a", "b", "c"))
    for _ in range(6):
        assert [key[-1] for key in strategy.step(batch_of(samples)) if key.startswith("loss")] == ["c", "a", "b"]


def test_a_turn_of_mla_takes_the_step_of_gradients_that_are_summed_over_the_processes(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = []
    for sum_ in (lambda tensors: None, doubled):
        monkeypatch.setattr("mla_serve.train.distributed.collectives.all_reduce", sum_)
        strategy = make("mla", ("a",))
        before = {key: value.detach().clone() for key, value in strategy.named_parameters()}
        strategy.step(batch_of(make_samples(("a",))))
        moved.append({key: value.detach() - before[key] for key, value in strategy.named_parameters()})
    assert_same(moved[1], {key: 2 * value for key, value in moved[0].items()}, rtol=1e-3)


def test_a_turn_protects_the_features_of_the_others_alone(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, batch = make("mla"), batch_of(make_samples())
    used: list[Tensor] = []
    features: dict[str, Tensor] = {}

    def note(weight: Tensor, before: Tensor, projector: Tensor) -> float:
        used.append(projector)
        return 1.0

    monkeypatch.setattr("mla_serve.train.strategies.mla.project_step", note)
    for name, encoder in strategy.encoders.items():
        encoder.register_forward_hook(lambda *a, name=name: features.update({name: a[2].detach().double()}))
    strategy.step(batch)
    first = features["a"]
    strategy.step(batch)
    moments = {"b": first.T @ first / first.square().sum()}
    moments["a"] = features["b"].T @ features["b"] / features["b"].square().sum()
    identity = torch.eye(WIDTH, dtype=torch.float64)
    torch.testing.assert_close(used[0], identity)
    held = [float((p @ moments[name]).trace()) for p, name in ((used[1], "b"),)]
    assert held[0] < 0.3  # at most half of the directions are protected
    assert float((used[2] @ moments["a"]).trace()) < 0.3
    assert float((used[2] @ moments["b"]).trace()) > held[0]


def test_an_ensemble_has_a_head_for_each_modality_and_protects_none() -> None:
    ensemble = make("ensemble")
    assert ensemble.head_of == {"a": "head_a", "b": "head_b"}
    assert set(ensemble.heads) == {"head_a", "head_b"}
    assert ensemble.projector is None


def test_with_hgm_epoch_an_epoch_begins_with_nothing_protected(make_samples: MakeSamples) -> None:
    strategy, batch = make("mla", hgm="epoch"), batch_of(make_samples())
    strategy.step(batch)
    assert strategy.step(batch)["kept/a"] < 1
    strategy.start_epoch()
    assert strategy.step(batch)["kept/a"] == pytest.approx(1)
    make("mla", hgm="off").start_epoch()  # nothing to forget


def test_mla_shares_one_head_unless_told_otherwise() -> None:
    shared, separate = make("mla"), make("mla", heads="separate")
    assert shared.head_of == {"a": "head", "b": "head"}
    assert {name: tuple(head.weight.shape) for name, head in shared.heads.items()} == {"head": (CLASSES, WIDTH)}  # type: ignore[union-attr]
    assert separate.head_of == {"a": "head_a", "b": "head_b"}
    assert {tuple(head.weight.shape) for head in separate.heads.values()} == {(CLASSES, WIDTH)}  # type: ignore[union-attr]
    assert set(shared.schedules) == {"a", "b", "head"}
    assert set(separate.schedules) == {"a", "b", "head_a", "head_b"}
    assert (shared.task.outputs, shared.width) == (CLASSES, WIDTH)


@pytest.mark.parametrize(
    ("names", "options", "protects"),
    [
        (("a", "b"), {}, True),
        (("a",), {}, False),
        (("a", "b"), {"heads": "separate"}, False),
        (("a",), {"heads": "separate"}, False),
        (("a", "b"), {"hgm": "off"}, False),
        (("a", "b"), {"hgm": "7"}, True),
    ],
)
def test_a_head_is_protected_where_several_modalities_share_it(
    names: tuple[str, ...], options: dict[str, str], protects: bool
) -> None:
    assert (make("mla", names, **options).projector is not None) is protects


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("hgm", "sometimes", "subspace, off, epoch, no-reset or a number of turns"),
        ("hgm", "-3", "subspace, off, epoch, no-reset or a number of turns"),
        ("heads", "both", "shared or separate"),
        ("turns", "random", "all, shuffled or weak"),
    ],
)
def test_an_option_that_does_not_exist_is_named_with_its_flag_and_the_choices(
    option: str, value: str, choices: str
) -> None:
    with pytest.raises(ConfigError, match=rf"--{option} {value}: expected (one of )?{choices}"):
        make("mla", **{option: value})


def test_the_running_loss_of_a_modality_is_nine_tenths_of_itself_and_one_of_the_new(make_samples: MakeSamples) -> None:
    strategy, batch = make("mla"), batch_of(make_samples())
    first, second = strategy.step(batch), strategy.step(batch)
    for name in "ab":
        expected = 0.9 * first[f"loss/{name}"] + 0.1 * second[f"loss/{name}"]
        assert strategy.running[name] == pytest.approx(expected)  # type: ignore[index]
    assert strategy.batches == 2


@pytest.mark.parametrize(
    ("running", "batches", "turns", "passed_over"),
    [
        ({"a": 0.2, "b": 2.0}, 1, "weak", True),
        ({"a": 0.2, "b": 2.0}, 2, "weak", False),
        ({"a": 0.2, "b": 2.0}, 3, "weak", True),
        ({"a": 0.2, "b": 2.0}, 1, "all", False),
        ({"a": 0.7, "b": 2.0}, 1, "weak", False),  # half of the mean is 0.675
        ({"a": 0.66, "b": 2.0}, 1, "weak", True),
        ({"a": 1.001, "b": 3.0}, 1, "weak", False),
        ({"a": 0.2}, 1, "weak", False),  # the other has had no turn yet
    ],
)
def test_with_turns_weak_a_modality_below_half_of_the_mean_excess_loss_sits_out_odd_batches(
    running: dict[str, float],
    batches: int,
    turns: str,
    passed_over: bool,
    make_samples: MakeSamples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy = make("mla", turns=turns)
    least = math.log(CLASSES)  # any number: what a loss is above is what counts
    monkeypatch.setitem(LEAST, "classes", lambda count, smoothing: least)
    strategy.running, strategy.batches = {name: least + excess for name, excess in running.items()}, batches
    logged = strategy.step(batch_of(make_samples()))
    assert ("loss/a" not in logged) is passed_over
    assert "loss/b" in logged


@pytest.mark.parametrize("name", ["mla", "joint_sum"])
def test_rates_rise_from_a_25th_to_the_highest_at_three_tenths_and_fall_to_nothing(name: str) -> None:
    strategy, key = make(name, lr=0.5), "head" if name == "mla" else "all"
    found = [rates(strategy, key)[0]]
    for _ in range(99):
        strategy.schedules[key].advance()
        found.append(rates(strategy, key)[0])
    assert found[0] == pytest.approx(0.5 / 25)
    assert max(range(100), key=found.__getitem__) in (28, 29, 30)
    assert max(found) == pytest.approx(0.5, rel=0.01)
    assert found[-1] < 1e-4


def test_every_schedule_of_mla_moves_on_with_every_batch_also_where_a_modality_is_missing(
    make_samples: MakeSamples,
) -> None:
    strategy, batch = make("mla"), batch_of(make_samples(), {"b": list(range(24))})
    before = {name: rates(strategy, name) for name in strategy.schedules}
    assert set(strategy.step(batch)) == {"loss/a", "kept/a"}
    after = {name: rates(strategy, name) for name in strategy.schedules}
    assert len({tuple(rate) for rate in after.values()}) == 1
    assert all(after[name] > before[name] for name in before)


@pytest.mark.parametrize("name", ["mla", "joint_sum"])
def test_after_a_step_no_gradient_is_left(name: str, make_samples: MakeSamples) -> None:
    strategy = make(name)
    strategy.step(batch_of(make_samples()))
    assert gradients_in(strategy) == {}


def slow_strategy(name: str = "joint_sum", **options: Any) -> Strategy:
    encoders = {"a": SlowEncoder(), "b": LinearEncoder()}
    strategy = STRATEGIES[name].build(
        encoders,
        Classes(tuple(map(str, range(CLASSES)))),
        Options(optimizer="sgd", lr=0.5, weight_decay=0.0, **options),
    )
    strategy.prepare(100, 24)
    return strategy


def test_parameters_learn_at_their_own_speed_and_frozen_ones_not_at_all() -> None:
    strategy = slow_strategy()
    groups = strategy.schedules["all"].optimizer.param_groups
    speed = {id(parameter): group["lr"] * 25 / 0.5 for group in groups for parameter in group["params"]}
    encoders = strategy.encoders
    assert speed.pop(id(encoders["a"].layer.weight)) == pytest.approx(0.1)
    assert id(encoders["a"].layer.bias) not in speed
    assert set(speed) == {id(value) for value in strategy.parameters()} - {id(p) for p in encoders["a"].parameters()}
    assert list(speed.values()) == pytest.approx([1.0] * len(speed))
    for _ in range(29):
        strategy.schedules["all"].advance()
    assert sorted(rates(strategy)) == pytest.approx([0.05, 0.5], rel=0.01)


def moves(optimizer: str, gradients: list[float], weight_decay: float) -> list[float]:
    """Give one parameter that starts at 2 these gradients; returns where it is after each step, the rate held at 0.1."""
    strategy = make("joint_sum", optimizer=optimizer, weight_decay=weight_decay)
    schedule, parameter = strategy.schedules["all"], next(iter(heads_of(strategy).values())).bias
    found = []
    with torch.no_grad():
        parameter.fill_(2.0)
    for gradient in gradients:
        for group in schedule.optimizer.param_groups:
            group["lr"] = 0.1
            group["momentum"] = group.get("momentum", 0.0)
        parameter.grad = torch.full_like(parameter, gradient)
        schedule.step()
        found.append(float(parameter.detach()[0]))
    return found


def test_sgd_has_momentum_and_shrinks_weights_apart_from_it() -> None:
    schedule = make("joint_sum", optimizer="sgd", weight_decay=0.25).schedules["all"].optimizer.param_groups[0]
    assert schedule["weight_decay"] == 0.25
    momentum = schedule["momentum"]  # the one-cycle schedule moves it between 0.95 and 0.85
    assert 0.8 < momentum < 1
    first = 2 * (1 - 0.1 * 0.25) - 0.1
    second = first * (1 - 0.1 * 0.25) - 0.1 * (momentum + 1)  # the decay is no part of the momentum
    assert moves("sgd", [1.0, 1.0], 0.25) == pytest.approx([first, second])


def test_adamw_takes_steps_of_the_rate_and_shrinks_weights_apart_from_the_gradient() -> None:
    assert moves("adamw", [3.0], 0.25) == pytest.approx([2 * (1 - 0.1 * 0.25) - 0.1])
    assert moves("adamw", [0.01], 0.0) == pytest.approx([2 - 0.1], rel=1e-5)


def test_a_modality_is_used_from_one_row_on_and_from_two_where_its_encoder_normalises_over_the_batch(
    make_samples: MakeSamples,
) -> None:
    encoders = {"a": LinearEncoder(), "b": NormalisingEncoder()}
    strategy = STRATEGIES["joint_sum"].build(encoders, Classes(tuple(map(str, range(CLASSES)))), Options())
    samples = make_samples()
    assert strategy.usable(batch_of(samples, {"a": list(range(1, 24)), "b": list(range(2, 24))})) == ["a", "b"]
    assert strategy.usable(batch_of(samples, {"b": [1]})) == ["a"]
    assert strategy.usable(batch_of(samples, {"a": [0]})) == []


def test_a_part_has_the_windows_and_labels_of_the_rows_that_have_the_modality(make_samples: MakeSamples) -> None:
    batch = batch_of(make_samples(), {"a": [0, 5]})
    part = make("joint_sum").part(batch, "a")
    rows = [row for row in range(24) if row not in (0, 5)]
    assert torch.equal(part.windows, batch.inputs("a"))
    assert part.targets.tolist() == batch.targets[rows].tolist()
    assert part.local.total == 22
    assert part.local.positions.tolist() == list(range(22))


def test_a_process_adds_to_the_mean_loss_by_its_share_of_the_rows() -> None:
    strategy = make("joint_sum")
    logits, labels = torch.randn(6, CLASSES, requires_grad=True), torch.arange(6) % CLASSES
    assert strategy.mean_loss(logits, labels, 24).item() == pytest.approx(cross_entropy(logits, labels).item() / 4)
    none = strategy.mean_loss(logits[:0], labels[:0], 24)
    assert none.item() == 0
    none.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))  # others wait for its gradients


def test_gradients_and_the_loss_are_summed_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with the same rows: sums are twice what one has."""
    strategy, windows = make("joint_sum"), torch.randn(4, SIZE)
    monkeypatch.setattr("mla_serve.train.distributed.collectives.all_reduce", doubled)

    def loss() -> Tensor:
        return sum((strategy.opinions(name, windows).square().mean() for name in "ab"), torch.zeros(()))

    expected = gradients_of(strategy, loss())
    assert strategy.set_gradients(loss()) == pytest.approx(2 * loss().item())
    assert_same(gradients_in(strategy), {name: 2 * value for name, value in expected.items()})
    strategy.zero_grad()
    strategy.set_gradients(loss(), strategy.encoders["a"], strategy.heads["head_b"])
    factors = {name: 2 if name.startswith(("encoders.a.", "heads.head_b.")) else 1 for name in expected}
    assert_same(gradients_in(strategy), {name: factors[name] * value for name, value in expected.items()})


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_saved_state_holds_all_that_a_step_changes(name: str, make_samples: MakeSamples) -> None:
    """Weights alone do not make the next steps the same: the rest of the state does."""
    samples, options = make_samples(), {"turns": "weak"} if name == "mla" else {}
    whole, resumed = make(name, **options), make(name, seed=1, **options)
    for _ in range(2):
        whole.start_epoch()
        torch.manual_seed(0)
        for _ in range(3):
            whole.step(batch_of(samples))
    saved = whole.training_state()
    resumed.load_state_dict(whole.state_dict())
    resumed.load_training_state(copy.deepcopy(saved))
    logged = []
    for strategy in (whole, resumed):
        torch.manual_seed(5)
        logged.append([strategy.step(batch_of(samples)) for _ in range(3)])
    assert logged[0] == logged[1]
    assert_same(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    again, expected = resumed.training_state(), whole.training_state()
    assert set(again) == set(expected) == set(saved)
    for key, value in expected.items():
        assert str(again[key]) == str(value), key


def test_before_it_is_prepared_a_strategy_has_no_schedule_to_save() -> None:
    strategy = STRATEGIES["joint_sum"].build(
        {"a": LinearEncoder()}, Classes(tuple(map(str, range(CLASSES)))), Options()
    )
    assert strategy.training_state() == {"schedules": {}}


@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_encoders_run_in_the_precision_that_was_asked_for_in_training_alone(
    precision: str, expected: torch.dtype
) -> None:
    strategy, seen = make("joint_sum", precision=precision), []
    strategy.encoders["a"].layer.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    assert strategy.train().features("a", torch.zeros(2, SIZE)).dtype == torch.float32
    assert strategy.eval().features("a", torch.zeros(2, SIZE)).dtype == torch.float32
    assert seen == [expected, torch.float32]


def test_a_strategy_without_more_state_than_its_schedules_starts_and_stops_with_them() -> None:
    strategy = make("joint_sum")
    assert set(strategy.training_state()) == {"schedules"}
    assert set(strategy.training_state()["schedules"]) == {"all"}
    assert set(strategy.training_state()["schedules"]["all"]) == {"optimizer", "schedule"}
    plain = strategy.training_state()["schedules"]["all"]["schedule"]
    assert all(isinstance(value, int | float | list | str) for value in plain.values())
    assert plain["last_epoch"] == 0
    assert plain["total_steps"] == 100
