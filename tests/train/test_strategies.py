"""What every strategy promises, and what MLA does turn by turn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mla_serve.errors import ConfigError
from mla_serve.train.data import Samples
from mla_serve.train.strategies import STRATEGIES, Strategy

spec = importlib.util.spec_from_file_location("train_conftest", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
FixedBatch = helpers.FixedBatch

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))
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


@every_strategy
def test_the_loss_falls_on_samples_that_can_be_learned(
    name: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    logged = train(make_strategy(name), make_samples(), 60)
    losses = [sum(v for k, v in record.items() if k.startswith("loss")) for record in logged]
    assert losses[-1] < 0.6 * losses[0]


@every_strategy
def test_same_seed_same_weights(name: str, make_strategy: Make, make_samples: MakeSamples) -> None:
    first, second, other = make_strategy(name), make_strategy(name), make_strategy(name, seed=1)
    for strategy in (first, second, other):
        train(strategy, make_samples(), 5)
    assert same(first, snapshot(second))
    assert not same(first, snapshot(other))


@every_strategy
def test_rows_with_missing_modalities_are_learned_from(
    name: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy = make_strategy(name, names=("a", "b", "c"))
    logged = train(strategy, make_samples(("a", "b", "c"), missing=0.6), 40)
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


@every_strategy
def test_a_resumed_strategy_goes_on_bit_for_bit(
    name: str, make_strategy: Make, make_samples: MakeSamples, tmp_path: Path
) -> None:
    whole, first, second = make_strategy(name), make_strategy(name), make_strategy(name)
    samples = make_samples()
    train(whole, samples, 4)
    train(first, samples, 4)
    torch.save({"weights": first.state_dict(), "training": first.training_state()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(state["weights"])
    second.load_training_state(state["training"])
    train(whole, samples, 4)
    train(second, samples, 4)
    assert same(second, snapshot(whole))


def test_in_a_turn_every_other_encoder_stays_bitwise_unchanged(
    make_strategy: Make, make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = make_strategy("mla", names=("a", "b", "c"), weight_decay=0.5)
    train(strategy, make_samples(("a", "b", "c")), 3)  # momentum is on by now
    turn, seen = strategy._turn, []

    def watched(name: str, windows: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        before = {other: snapshot(encoder) for other, encoder in strategy.encoders.items()}
        logged = turn(name, windows, labels)
        moved = [other for other, encoder in strategy.encoders.items() if not same(encoder, before[other])]
        seen.append((name, moved))
        return logged

    monkeypatch.setattr(strategy, "_turn", watched)
    train(strategy, make_samples(("a", "b", "c")), 1)
    assert seen == [("a", ["a"]), ("b", ["b"]), ("c", ["c"])]


def test_a_modality_is_encoded_inside_its_own_turn(make_strategy: Make, make_samples: MakeSamples) -> None:
    strategy, order = make_strategy("mla"), []
    for name, encoder in strategy.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: order.append(f"encode {name}"))
        optimizer = strategy.schedules[name].optimizer
        optimizer.register_step_post_hook(lambda *_, name=name: order.append(f"step {name}"))
    train(strategy, make_samples(), 1)
    assert order == ["encode a", "step a", "encode b", "step b"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("hgm", ["epoch", "never", "others", "5"])
def test_the_heads_step_is_nearly_orthogonal_to_the_previous_turns_mean(
    hgm: str, optimizer: str, make_strategy: Make, make_samples: MakeSamples
) -> None:
    strategy = make_strategy("mla", hgm=hgm, optimizer=optimizer, lr=0.01)
    samples = make_samples()
    train(strategy, samples, 3)
    means: dict[str, torch.Tensor] = {}
    strategy.encoders["a"].register_forward_hook(lambda *args: means.update(a=args[2].detach().double().mean(0)))
    weights: list[torch.Tensor] = []
    strategy.encoders["b"].register_forward_hook(
        lambda *_: weights.append(strategy.heads["head"].weight.detach().clone())
    )
    strategy.step(FixedBatch(samples, torch.arange(len(samples))))
    moved = (strategy.heads["head"].weight.detach() - weights[0]).double()
    share = (moved @ means["a"]).norm() / (moved.norm() * means["a"].norm())
    assert moved.norm() > 0
    # "others" protects a running mean, which lags behind the last one.
    assert share < (0.35 if hgm == "others" else 0.2)


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
