"""Head gradient modification: the projector's algebra, and what it does to the step that is really applied."""

import itertools

import pytest
import torch

from mla_serve.errors import ConfigError
from mla_serve.train.strategies.head_projection import (
    ALPHA,
    RecursiveProjector,
    SubspaceProjector,
    canonical,
    make_projector,
    project_step,
)

WIDTH = 12


def feed(projector: RecursiveProjector, turns: int, seed: int = 0) -> torch.Tensor:
    """Run turns with random features; returns the means in the order they were taken in: (turns - 1, D)."""
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(turns):
        projector.turn("a")
        features = torch.randn(5, WIDTH, generator=generator) + 1
        projector.observe("a", features)
        means.append(features.double().mean(0))
    return torch.stack(means[:-1]) if turns > 1 else torch.zeros(0, WIDTH)


@pytest.mark.parametrize("turns", [1, 2, 7, 40])
def test_p_equals_its_closed_form(turns: int) -> None:
    projector = RecursiveProjector(WIDTH, "no-reset")
    means = feed(projector, turns)
    identity = torch.eye(WIDTH, dtype=torch.float64)
    closed = ALPHA * torch.linalg.inv(ALPHA * identity + means.T @ means)
    torch.testing.assert_close(projector.matrix, closed, rtol=1e-9, atol=1e-10)


def test_p_is_symmetric_with_eigenvalues_in_zero_to_one() -> None:
    projector = RecursiveProjector(WIDTH, "no-reset")
    feed(projector, 300)
    torch.testing.assert_close(projector.matrix, projector.matrix.T, atol=1e-10, rtol=0)
    eigenvalues = torch.linalg.eigvalsh(projector.matrix)
    assert eigenvalues.min() >= -1e-10
    assert eigenvalues.max() <= 1 + 1e-10


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)])
def test_the_applied_step_is_nearly_orthogonal_to_a_protected_mean(optimizer: object) -> None:
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(WIDTH, 4)
    steps = optimizer(head.parameters(), lr=0.05)  # type: ignore[operator]
    projector = RecursiveProjector(WIDTH, "epoch")
    for turn in range(12):
        features = torch.randn(16, WIDTH, generator=generator) + (3.0 if turn % 2 else -2.0)
        loss = torch.nn.functional.cross_entropy(head(features), torch.arange(16) % 4)
        steps.zero_grad()
        loss.backward()
        before = head.weight.detach().clone()
        steps.step()
        protected = projector._previous
        project_step(head.weight, before, projector.turn("a"))
        if protected is not None:
            moved = head.weight.detach().double() - before.double()
            share = (moved @ protected).norm() / (moved.norm() * protected.norm())
            assert share < 0.05
        projector.observe("a", features)


def test_without_the_projection_the_step_is_not_orthogonal() -> None:
    before, after, mean = torch.zeros(3, WIDTH), torch.ones(3, WIDTH), torch.ones(WIDTH)
    weight = after.clone()
    kept = project_step(weight, before, torch.eye(WIDTH, dtype=torch.float64))
    assert kept == pytest.approx(1)
    assert (weight @ mean).norm() > 1


def test_the_bias_and_the_place_of_the_weight_are_kept() -> None:
    weight, before = torch.randn(3, WIDTH), torch.randn(3, WIDTH)
    place = weight.data_ptr()
    assert project_step(weight, before, torch.zeros(WIDTH, WIDTH, dtype=torch.float64)) == 0
    torch.testing.assert_close(weight, before)
    assert weight.data_ptr() == place


def test_the_projector_is_reset_each_epoch_only_if_asked_for() -> None:
    epoch, no_reset = RecursiveProjector(WIDTH, "epoch"), RecursiveProjector(WIDTH, "no-reset")
    for projector in (epoch, no_reset):
        feed(projector, 5)
        projector.start_epoch()
    identity = torch.eye(WIDTH, dtype=torch.float64)
    torch.testing.assert_close(epoch.turn("a"), identity)
    assert not torch.allclose(no_reset.turn("a"), identity)


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_reset_after_k_turns(turns: int) -> None:
    projector = make_projector(str(turns), WIDTH)
    assert projector is not None
    identity = torch.eye(WIDTH, dtype=torch.float64)
    is_identity = []
    for _ in range(9):
        is_identity.append(bool(torch.allclose(projector.turn("a"), identity)))
        projector.observe("a", torch.ones(2, WIDTH))
    assert is_identity == [turn % turns == 0 for turn in range(9)]


def low_rank(rank: int, seed: int, rows: int = 40) -> torch.Tensor:
    """Draw features (rows, WIDTH) that lie in `rank` directions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=generator) @ torch.randn(rank, WIDTH, generator=generator)


def test_a_step_off_the_subspace_leaves_the_others_logits_as_they_are() -> None:
    projector = SubspaceProjector(WIDTH)
    features = {name: low_rank(1, seed) for seed, name in enumerate("abc")}
    for name in "abc":
        projector.observe(name, features[name])
    weight = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(9))
    before = torch.zeros(4, WIDTH)
    project_step(weight, before, projector.turn("a"))
    for name in "bc":
        assert (features[name] @ weight.T).norm() < 1e-5 * features[name].norm() * weight.norm()
    assert (features["a"] @ weight.T).norm() > 0.1 * features["a"].norm() * weight.norm()


def test_the_subspace_holds_the_asked_share_of_the_others_features_with_the_fewest_directions() -> None:
    projector = SubspaceProjector(WIDTH)
    spread = torch.diag(torch.tensor([3.0, 2.0, 1.0] + [0.1] * (WIDTH - 3)))
    features = torch.randn(4000, WIDTH, generator=torch.Generator().manual_seed(0)) @ spread
    projector.observe("b", features)
    p = projector.turn("a")
    kept = float((features.double() @ p).square().sum() / features.square().sum())
    assert kept < 0.1
    assert round(WIDTH - float(p.trace())) == 2  # 9 + 4 of 14
    torch.testing.assert_close(p @ p, p)
    torch.testing.assert_close(p, p.T)


def test_at_most_half_of_the_directions_are_protected() -> None:
    projector = SubspaceProjector(WIDTH)
    for seed, name in enumerate("bcd"):
        projector.observe(name, torch.randn(500, WIDTH, generator=torch.Generator().manual_seed(seed)))
    assert projector.turn("a").trace() == pytest.approx(WIDTH / 2)


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
def test_what_the_subspace_protects_does_not_depend_on_the_scale_of_the_features(scale: float) -> None:
    projector, scaled = SubspaceProjector(WIDTH), SubspaceProjector(WIDTH)
    for seed, name in enumerate("bcd"):
        features = low_rank(2, seed).double()
        projector.observe(name, features)
        scaled.observe(name, features * (scale if name == "c" else 1.0))
    torch.testing.assert_close(scaled.turn("a"), projector.turn("a"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_features_that_are_zero_or_not_finite_protect_nothing(value: float) -> None:
    projector = SubspaceProjector(WIDTH)
    projector.observe("b", torch.full((3, WIDTH), value))
    projector.observe("a", torch.ones(3, WIDTH))
    torch.testing.assert_close(projector.turn("a"), torch.eye(WIDTH, dtype=torch.float64))


@pytest.mark.parametrize("turns", [3, 300])
def test_what_is_kept_of_a_step_does_not_depend_on_the_number_of_turns(turns: int) -> None:
    """The recursive projector keeps less with every turn; the subspace follows the features."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, WIDTH, generator=generator)
    subspace, recursive = SubspaceProjector(WIDTH), RecursiveProjector(WIDTH, "no-reset")
    for projector in (subspace, recursive):
        for _ in range(turns):
            for name in "ab":
                projector.turn(name)
                noise = 0.3 * torch.randn(8, WIDTH, generator=generator)
                projector.observe(name, torch.randn(8, 2, generator=generator) @ mixing + noise)
    kept = float(subspace.turn("a").trace()) / WIDTH
    assert 0.5 <= kept <= 0.9
    assert (float(recursive.turn("a").trace()) / WIDTH < 0.1) == (turns == 300)


def test_the_subspace_follows_features_that_move() -> None:
    projector = SubspaceProjector(WIDTH)
    first, second = low_rank(2, 0), low_rank(2, 1)
    projector.observe("b", first)
    for _ in range(100):
        projector.turn("a")
        projector.observe("b", second)
    p = projector.turn("a")
    assert (second.double() @ p).norm() < 1e-3 * second.norm()
    assert (first.double() @ p).norm() > 0.1 * first.norm()


def test_the_projector_of_a_modality_is_used_for_several_of_its_turns() -> None:
    projector, generator = SubspaceProjector(WIDTH), torch.Generator().manual_seed(0)
    used = []
    for _ in range(20):
        projector.observe("b", torch.randn(3, WIDTH, generator=generator))
        used.append(projector.turn("a"))
    fresh = [not torch.equal(p, q) for p, q in itertools.pairwise(used)]
    assert fresh == [turn < 5 or turn % 5 == 0 for turn in range(1, 20)]


@pytest.mark.parametrize("hgm", ["epoch", "no-reset", "3", "subspace"])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(hgm: str) -> None:
    first, second = make_projector(hgm, WIDTH), make_projector(hgm, WIDTH)
    assert first is not None
    assert second is not None
    for turn in range(4):
        first.turn("ab"[turn % 2])
        first.observe("ab"[turn % 2], torch.randn(3, WIDTH))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first.turn("a"), second.turn("a"), rtol=0, atol=0)


def test_off_is_none() -> None:
    assert make_projector("off", WIDTH) is None


@pytest.mark.parametrize("hgm", ["epoch", "no-reset", "2", "subspace"])
def test_before_anything_was_seen_a_step_is_kept_whole(hgm: str) -> None:
    projector = make_projector(hgm, WIDTH)
    assert projector is not None
    torch.testing.assert_close(projector.turn("a"), torch.eye(WIDTH, dtype=torch.float64), rtol=0, atol=0)


def test_each_option_builds_what_it_names() -> None:
    assert isinstance(make_projector("subspace", WIDTH), SubspaceProjector)
    for hgm, reset in (("epoch", "epoch"), ("no-reset", "no-reset"), ("12", 12)):
        projector = make_projector(hgm, WIDTH)
        assert isinstance(projector, RecursiveProjector)
        assert projector.reset == reset


@pytest.mark.parametrize("size", [1e-4, 1.0])
def test_the_step_that_is_applied_is_the_optimisers_step_times_p(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(3, WIDTH, generator=generator, dtype=torch.float64)
    step = torch.randn(3, WIDTH, generator=generator, dtype=torch.float64) * size
    p = torch.diag(torch.tensor([1.0] * 4 + [0.0] * (WIDTH - 4), dtype=torch.float64))
    weight = before + step
    kept = project_step(weight, before, p)
    torch.testing.assert_close(weight, before + step @ p)
    assert kept == pytest.approx(float((step @ p).norm() / step.norm()))
    assert 0 < kept < 1


def test_without_a_step_nothing_was_kept() -> None:
    weight = torch.ones(3, WIDTH)
    assert project_step(weight, weight.clone(), torch.eye(WIDTH, dtype=torch.float64)) == 0


def test_the_older_name_of_no_reset_still_works() -> None:
    projector = make_projector("never", WIDTH)
    assert isinstance(projector, RecursiveProjector)
    assert projector.reset == "no-reset"
    assert (canonical("never"), canonical("9")) == ("no-reset", "9")


@pytest.mark.parametrize("given", ["others", "0", "²", "07", "-1"])
def test_another_value_is_refused_with_the_choices(given: str) -> None:
    with pytest.raises(ConfigError, match=f"--hgm {given}: expected one of subspace, off, epoch, no-reset"):
        make_projector(given, WIDTH)
