"""Head gradient modification: the projector's algebra, and what it does to the step that is really applied."""

import pytest
import torch

from mla_serve.train.strategies.head_projection import (
    ALPHA,
    OthersProjector,
    RecursiveProjector,
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


def test_others_projects_out_exactly_the_other_means() -> None:
    projector = OthersProjector(WIDTH)
    generator = torch.Generator().manual_seed(0)
    means = {name: torch.randn(4, WIDTH, generator=generator) for name in "abc"}
    for name, features in means.items():
        projector.observe(name, features)
    matrix = projector.turn("a")
    for name in "bc":
        assert (matrix @ means[name].double().mean(0)).norm() < 1e-10
    assert torch.linalg.matrix_rank(matrix) == WIDTH - 2
    assert (matrix @ means["a"].double().mean(0)).norm() > 0.1


@pytest.mark.parametrize("hgm", ["epoch", "no-reset", "3", "others"])
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


@pytest.mark.parametrize("hgm", ["epoch", "no-reset", "2", "others"])
def test_before_anything_was_seen_a_step_is_kept_whole(hgm: str) -> None:
    projector = make_projector(hgm, WIDTH)
    assert projector is not None
    torch.testing.assert_close(projector.turn("a"), torch.eye(WIDTH, dtype=torch.float64), rtol=0, atol=0)


def test_each_option_builds_what_it_names() -> None:
    assert isinstance(make_projector("others", WIDTH), OthersProjector)
    for hgm, reset in (("epoch", "epoch"), ("no-reset", "no-reset"), ("12", 12)):
        projector = make_projector(hgm, WIDTH)
        assert isinstance(projector, RecursiveProjector)
        assert projector.reset == reset


def test_others_follows_a_running_mean_of_the_last_turns() -> None:
    projector = OthersProjector(WIDTH)
    first, second = torch.eye(WIDTH)[:1], torch.eye(WIDTH)[1:2]
    projector.observe("b", first)
    projector.observe("b", second)
    running = (0.9 * first + 0.1 * second).double().squeeze()
    expected = torch.eye(WIDTH, dtype=torch.float64) - torch.outer(running, running) / running.square().sum()
    torch.testing.assert_close(projector.turn("a"), expected)
    torch.testing.assert_close(projector.turn("b"), torch.eye(WIDTH, dtype=torch.float64))  # no other has been seen


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
def test_what_others_protects_does_not_depend_on_the_scale_of_the_features(scale: float) -> None:
    projector, scaled = OthersProjector(WIDTH), OthersProjector(WIDTH)
    for seed, name in enumerate("bcd"):
        features = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        projector.observe(name, features)
        scaled.observe(name, features * scale)
    torch.testing.assert_close(scaled.turn("a"), projector.turn("a"), rtol=0, atol=1e-9)


def test_others_whose_features_are_all_zero_protect_nothing() -> None:
    projector = OthersProjector(WIDTH)
    projector.observe("b", torch.zeros(3, WIDTH))
    torch.testing.assert_close(projector.turn("a"), torch.eye(WIDTH, dtype=torch.float64))


def test_others_with_the_same_mean_count_once() -> None:
    projector = OthersProjector(WIDTH)
    for name in "bc":
        projector.observe(name, torch.ones(2, WIDTH))
    assert torch.linalg.matrix_rank(projector.turn("a")) == WIDTH - 1


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
    assert (canonical("never"), canonical("9"), canonical(None)) == ("no-reset", "9", None)
