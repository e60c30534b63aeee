"""Fit the parameters of the fusion formula on validation rows, for every task.

The formula (mla_serve/fusion/formula.py) has a temperature T_m for each modality, the sharpness tau, and a scale s_S for
each pattern S of present modalities. They are fitted by minimising, over N rows,

    mean over rows of [ mean NLL over the patterns that the row has all modalities of ]
        + ridge R / N (sum (log T_m)^2 + (log tau)^2 + sum over patterns c_S (v_|S|^2 + d_S^2)) + D / N sum over patterns c_S d_S^2

    log s_S = v_|S| + d_S      the scale of the pattern's size, and how far the pattern's own differs from it
    c_S                        the mean over the rows that have S of their share of weight, 1 / number of their patterns

Every row counts the same. So what few rows have cannot move the parameters of what many rows have. The ridge pulls all
parameters to 1, the paper's rule, and the scale of a pattern to that of its size; it counts as much as a fixed number of
rows, R times `ridge` and D. A pattern that no row has gets the scale of its size. A modality alone always has a scale of its
own. Of many modalities only a sample of the patterns is fitted; then patterns of the same size share a scale.

The prior, where it is counted once, is subtracted as in the formula. The search is L-BFGS; torch differentiates. The
discounts d_m, in T_m exp(d_m excess), are fitted afterwards with everything else held.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mla_serve.fusion.formula import Array, Fusion, pattern_name
from mla_serve.train.data.row_counts import MIN_ROWS_TO_FIT
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.families import family_of

RIDGE = 1e-3
RIDGE_ROWS = 500
"""A ridge of 1 counts as much as so many rows. Few rows that are all answered rightly would let the scales grow without it: on
breast cancer with 40 rows, NLL .215 and .976 at worst (of 12 draws) became .131 and .188."""
OWN_SCALE_ROWS = 5.0  # the pull of a pattern's scale to that of its size counts as much as so many rows
PATTERNS_UP_TO = 64  # of more, a sample is used, and patterns of the same size share a scale
BOUND = 4.0  # |log parameter|
MOST_DISCOUNT = 3.0
MOST_ROWS = 5000  # more validation rows than these are not needed for so few parameters
MOST_NUMBERS = 2**23  # that one evaluation computes with, opinions and fused parameters
BLOCK_NUMBERS = 2**21  # that are held in memory at once
TOLERANCE = 1e-6  # nats


def fit(
    evidence: Evidence,
    names: tuple[str, ...],
    ridge: float = RIDGE,
    start: Fusion | None = None,
    prior: Sequence[float] = (),
    added: Sequence[str] = (),
) -> Fusion:
    """Fit temperatures, sharpness and scales.

    Args: start, where the search begins; prior, what the training labels say if it is to be counted once (Task.prior_of);
    added, the modalities that `start` is extended by, the last ones: then only their temperatures, and the scales of the patterns with
    one of them, are fitted, and all else is held.
    """
    if added:
        assert start is not None
        return Objective(evidence, start, added).fit(ridge, start)
    paper = Fusion.paper(names, evidence.task)
    return Objective(evidence, dataclasses.replace(paper, prior=prior, prior_once=bool(len(prior)))).fit(ridge, start)


def fit_discounts(
    evidence: Evidence, names: tuple[str, ...], fusion: Fusion, ridge: float = RIDGE, added: Sequence[str] = ()
) -> Fusion:
    """Fit how fast the probabilities of each modality flatten as its input becomes unfamiliar, with all else held."""
    return Objective(evidence, fusion, added).fit_discounts(added or names, ridge)


class Objective:
    """The loss of the rows under every pattern, and its minimisation.

    K patterns are listed. usable (K, N): whether a row has all modalities of a pattern. Of the evidence, `rows` says which
    rows are used.
    """

    def __init__(self, evidence: Evidence, fusion: Fusion, added: Sequence[str] = ()) -> None:
        """Take the rows.

        Args: fusion, for the prior, and the parameters that are held; added, see `fit`: only patterns with one of them count.
        """
        self.fusion, self.names, self.added = fusion, tuple(fusion.temperatures), tuple(added)
        new = len(self.added)
        self.patterns = added_patterns(len(self.names) - new, new) if new else list_patterns(len(self.names))
        self.sizes = self.patterns.sum(axis=1)
        self.rows = pick_rows(evidence, len(self.patterns))
        used = evidence.rows(self.rows)
        self.usable = np.array([used.present[pattern].all(axis=0) for pattern in self.patterns])
        few = 2 ** len(self.names) - 1 <= PATTERNS_UP_TO
        self.own = (self.sizes == 1) | few  # (K,), which patterns have a scale of their own
        self.free = np.array([not self.added or name in self.added for name in self.names])
        self._family = family_of(evidence.task)
        prior = fusion.subtracted_prior()
        self._prior = None if prior is None else torch.from_numpy(prior)
        flattest = torch.as_tensor(evidence.task.flattest(), dtype=torch.float64)
        self._flattest = flattest if flattest.any() else None
        self._blocks = list(self._divide(used))
        self.numbers = sum(block.numbers for block in self._blocks)  # that one evaluation computes with

    # ---- the loss

    def losses(self, fusion: Fusion) -> Array:
        """Return the NLL of the used rows under every pattern, by given parameters: (K, N), of no meaning where not usable."""
        log_t = torch.log(torch.from_numpy(fusion.column(fusion.temperatures, 1.0)))
        discounts = torch.from_numpy(fusion.column(fusion.discounts, 0.0))
        scales = torch.from_numpy(fusion.scale(self.patterns.T))
        found = np.zeros(self.usable.shape)
        with torch.no_grad():
            for block in self._blocks:
                sharpness = torch.tensor(fusion.sharpness, dtype=torch.float64)
                nll = self._nll(block, log_t, sharpness, scales, discounts)
                found[np.ix_(block.listed, np.arange(block.start, block.stop))] = nll.numpy()
        return found

    def row_losses(self, fusion: Fusion) -> Array:
        """Return the mean NLL of each used row over its patterns: (N,)."""
        return (self.losses(fusion) * self.weights()).sum(axis=0)

    def weights(self) -> Array:
        """Return how much each row counts under each pattern: (K, N), which sums to 1 over the patterns of a row."""
        counted = self.usable & self._evaluated()
        return counted / np.maximum(counted.sum(axis=0), 1)

    def _evaluated(self) -> Array:
        there = np.zeros(self.usable.shape, dtype=bool)
        for block in self._blocks:
            there[block.listed, block.start : block.stop] = True
        return there

    def _nll(
        self, block: Block, log_t: Tensor, sharpness: Tensor, scales: Tensor, discounts: Tensor | None = None
    ) -> Tensor:
        """Return the NLL of a block's rows under its patterns: log_t and discounts (M, 1), scales (K,) -> (K', n)."""
        lost = None if discounts is None else discounts * block.excess  # (M, n), minus log f of the formula
        tempered = torch.exp(-(log_t if lost is None else log_t + lost))[..., None, None]
        flat = None if lost is None or self._flattest is None else -torch.expm1(-lost)[..., None, None] * self._flattest
        parts = []
        if len(block.alone):
            x = block.eta[block.alone] * tempered[block.alone]
            parts.append(x if flat is None else x + flat[block.alone])
        if len(block.several):
            x = (block.eta if block.evidence is None else block.evidence) * tempered
            x = x if flat is None or block.evidence is not None else x + flat
            there, entropy = block.present[..., None], self._family.entropy(x)
            least = torch.where(there, entropy.detach(), torch.inf).amin(dim=0)
            above = torch.where(there, entropy - least, 0.0)  # no infinity, whose derivative would not be a number
            weights = torch.exp(-sharpness * above) * there  # (M, n, G)
            # A pattern's weights are normalised by the sum over its modalities.
            summed = torch.einsum("km,mngp->kngp", block.several, weights[..., None] * x)
            total = torch.einsum("km,mng->kng", block.several, weights)
            parts.append(summed / total.where(total > 0, torch.ones(()))[..., None])
        fused = scales[block.listed][:, None, None, None] * torch.cat(parts)
        if self._prior is not None:
            fused = fused + block.adds_prior[:, None, None, None] * self._prior
        return self._family.nll(fused, block.targets)

    # ---- the search

    def fit(self, ridge: float, start: Fusion | None = None, kept: Array | None = None) -> Fusion:
        """Fit the parameters, beginning at those of `start`. Args: kept (N,), the used rows that count; default: all."""
        weights, rows = self._kept(kept)
        counts = ((weights > 0).sum(axis=1)).astype(float)
        share = weights.sum(axis=1) / np.maximum(counts, 1) * (counts >= MIN_ROWS_TO_FIT)  # c_S
        weights = weights * (counts >= MIN_ROWS_TO_FIT)[:, None]
        sizes, of_size = np.unique(self.sizes, return_inverse=True)
        pull = ridge * RIDGE_ROWS
        penalties = np.concatenate([
            np.full(len(self.names) + 1, pull),
            pull * np.bincount(of_size, share),
            np.where(self.own, (pull + OWN_SCALE_ROWS) * share, 1.0),
        ])  # fmt: skip
        first, free = self._begin(start, sizes, of_size)
        count, size = len(self.names), len(sizes)
        held, penalty = torch.from_numpy(first), torch.from_numpy(penalties / max(rows, 1))

        def loss(theta: Tensor) -> Iterator[Tensor]:
            values = held.clone()
            values[torch.from_numpy(free)] = theta
            scales = torch.exp(values[count + 1 : count + 1 + size][of_size] + values[count + 1 + size :])
            log_t, sharpness = values[:count, None], torch.exp(values[count])
            yield (penalty * values.square())[torch.from_numpy(free)].sum()
            yield from self._weighted(weights / max(rows, 1), log_t, sharpness, scales)

        found = first.copy()
        found[free] = minimise(loss, first[free], (-BOUND, BOUND))
        temperatures = dict(zip(self.names, np.exp(found[:count]).tolist(), strict=True))
        changed = {name: temperatures[name] for name, one in zip(self.names, self.free, strict=True) if one}
        sharpness = self.fusion.sharpness if self.added else float(np.exp(found[count]))
        by_size = dict(zip(sizes.tolist(), found[count + 1 : count + 1 + size], strict=True))
        own = found[count + 1 + size :]
        scales = self._scales(by_size, own, counts >= MIN_ROWS_TO_FIT)
        return dataclasses.replace(
            self.fusion,
            temperatures={**self.fusion.temperatures, **changed},
            sharpness=sharpness,
            scales={**self.fusion.scales, **scales} if self.added else scales,
        )

    def fit_discounts(self, names: Sequence[str], ridge: float) -> Fusion:
        """Fit the discounts of the named modalities, with all other parameters held."""
        free = torch.tensor([name in names for name in self.names])
        first = np.array([self.fusion.discounts.get(name, 0.1 if name in names else 0.0) for name in self.names])
        weights, rows = self._kept(None)
        held = torch.from_numpy(first)
        log_t = torch.log(torch.from_numpy(self.fusion.column(self.fusion.temperatures, 1.0)))
        sharpness, scales = (
            torch.tensor(self.fusion.sharpness, dtype=torch.float64),
            torch.from_numpy(self.fusion.scale(self.patterns.T)),
        )

        def loss(theta: Tensor) -> Iterator[Tensor]:
            discounts = held.clone()
            discounts[free] = theta
            yield ridge * RIDGE_ROWS / max(rows, 1) * theta.square().sum()
            yield from self._weighted(weights / max(rows, 1), log_t, sharpness, scales, discounts[:, None])

        found = minimise(loss, first[free.numpy()], (0.0, MOST_DISCOUNT))
        fitted = dict(zip([name for name in self.names if name in names], found.tolist(), strict=True))
        return dataclasses.replace(self.fusion, discounts={**self.fusion.discounts, **fitted})

    def _weighted(
        self, weights: Array, log_t: Tensor, sharpness: Tensor, scales: Tensor, discounts: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield the weighted NLL of each block."""
        for block in self._blocks:
            own = torch.from_numpy(weights[block.listed, block.start : block.stop])
            if own.any():
                yield (own * self._nll(block, log_t, sharpness, scales, discounts)).sum()

    def _kept(self, kept: Array | None) -> tuple[Array, int]:
        """Return the weights of the rows that count, and their number."""
        weights = self.weights() if kept is None else self.weights() * kept
        return weights, int((weights.sum(axis=0) > 0).sum())

    def _begin(self, start: Fusion | None, sizes: Array, of_size: Array) -> tuple[Array, Array]:
        """Return the parameters at which the search begins, and which of them are free."""
        begin = self.fusion if start is None else start
        least = np.exp(-BOUND)
        temperatures = [begin.temperatures[name] for name in self.names]
        log_scales = np.log(begin.scale(self.patterns.T))
        by_size = np.array([np.mean(log_scales[self.sizes == size]) for size in sizes])
        own = np.where(self.own, log_scales - by_size[of_size], 0.0)
        logs = np.log(np.maximum([*temperatures, begin.sharpness], least))
        free = np.concatenate([self.free, [not self.added], np.ones(len(sizes), dtype=bool), self.own])
        return np.concatenate([logs, by_size, own]), free

    def _scales(self, by_size: Mapping[int, float], own: Array, fitted: Array) -> dict[str, float]:
        """Return the scales by the keys under which a fusion finds them."""
        shown = sorted({int(size) for size, there in zip(self.sizes, fitted, strict=True) if there})
        if not shown:
            return {}
        scales = {}
        for pattern, size, one, there in zip(self.patterns, self.sizes, own, fitted & self.own, strict=True):
            if there:
                chosen = [name for name, present in zip(self.names, pattern, strict=True) if present]
                scales[pattern_name(chosen)] = float(np.exp(by_size[size] + one))
        for size in range(1, len(self.names) + 1):
            nearest = float(np.exp(np.interp(size, shown, [by_size[one] for one in shown])))
            scales |= dict.fromkeys(size_keys(size, self.added), nearest)
        return scales

    # ---- the rows

    def _divide(self, used: Evidence) -> Iterator[Block]:
        """Divide the rows into blocks that fit into memory. Where there is too much to compute, each has a part of the patterns."""
        count, patterns = len(used.targets), len(self.patterns)
        numbers = numbers_per_row(used)
        core = np.flatnonzero((self.sizes == 1) | (self.sizes == len(self.names)))
        rest = np.setdiff1d(np.arange(patterns), core)
        parts = parts_of_patterns(used, patterns, len(rest))
        length = max(1, min(BLOCK_NUMBERS // (numbers * max(patterns, 1)) * parts, -(-count // parts)))
        for number, start in enumerate(range(0, count, length)):
            listed = np.sort(np.concatenate([core, rest[number % parts :: parts]]))
            yield self._block(used.rows(slice(start, start + length)), listed, start)

    def _block(self, part: Evidence, listed: Array, start: int) -> Block:
        order = np.concatenate([listed[self.sizes[listed] == 1], listed[self.sizes[listed] > 1]]).astype(int)
        one = self.sizes[order] == 1
        eta = self._family.natural(torch.from_numpy(part.opinions.astype(np.float64)))
        return Block(
            eta,
            None if self._prior is None else self._family.without_prior(eta, self._prior),
            torch.from_numpy(part.present),
            torch.from_numpy(part.excess),
            torch.from_numpy(part.targets),
            order,
            torch.from_numpy(self.patterns[order[one]].argmax(axis=1)),
            torch.from_numpy(self.patterns[order[~one]].astype(np.float64)),
            torch.from_numpy((~one).astype(np.float64)),
            start,
            start + len(part.targets),
        )


@dataclasses.dataclass(frozen=True)
class Block:
    """Some of the rows as tensors, and the patterns that they are measured under.

    eta (M, n, G, P), and `evidence`, the same without the prior where it is subtracted; present, excess (M, n); targets.
    listed (K',): the patterns, those of one modality first. alone: the modalities of those; several (K'', M): the others;
    adds_prior (K',): 1 for the others. start, stop: the rows.
    """

    eta: Tensor
    evidence: Tensor | None
    present: Tensor
    excess: Tensor
    targets: Tensor
    listed: Array
    alone: Tensor
    several: Tensor
    adds_prior: Tensor
    start: int
    stop: int

    @property
    def numbers(self) -> int:
        """Return how many numbers an evaluation computes with."""
        return self.eta[0].numel() * (len(self.eta) + len(self.listed))


def minimise(loss: Callable[[Tensor], Iterator[Tensor]], first: Array, bounds: tuple[float, float]) -> Array:
    """Minimise the sum of what `loss` yields. Each part is differentiated before the next is computed, to save memory."""

    def value_and_gradient(at: Array) -> tuple[float, Array]:
        theta, value = torch.from_numpy(at).requires_grad_(), 0.0
        for part in loss(theta):
            part.backward(retain_graph=True)
            value += part.item()
        assert theta.grad is not None
        return value, theta.grad.numpy()

    if not len(first):
        return first
    options = {"ftol": TOLERANCE, "maxiter": 200}
    found: Array = minimize(
        value_and_gradient, first, jac=True, method="L-BFGS-B", bounds=[bounds] * len(first), options=options
    ).x
    return found


def numbers_per_row(evidence: Evidence) -> int:
    """Return how many natural parameters an opinion has."""
    return int(np.prod(evidence.task.natural(evidence.opinions[:1, :1]).shape[2:]))


def parts_of_patterns(evidence: Evidence, patterns: int, rest: int) -> int:
    """Return into how many parts the patterns are divided, so that an evaluation stays within MOST_NUMBERS."""
    count, modalities = len(evidence.targets), len(evidence.opinions)
    each = MOST_NUMBERS / (max(count, 1) * numbers_per_row(evidence)) - modalities - (patterns - rest)
    return max(1, min(rest, -(-rest // max(1, int(each)))))


def pick_rows(evidence: Evidence, patterns: int) -> Array:
    """Return the numbers of the rows to use, at random where not all can be."""
    modalities, count = len(evidence.opinions), len(evidence.targets)
    core = modalities + min(patterns, 2 * modalities)
    most = min(MOST_ROWS, max(MOST_NUMBERS // (numbers_per_row(evidence) * core), 100)) if count else 0
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[:most])


def size_keys(size: int, added: Sequence[str] = ()) -> list[str]:
    """Return the keys of the scale of all patterns of a size, or of those with one of the added modalities."""
    return [f"{name}:{size}" for name in added] or [str(size)]


def list_patterns(count: int) -> Array:
    """List all availability patterns (K, M), or a fixed random sample that has every size."""
    if 2**count - 1 <= PATTERNS_UP_TO:
        return np.array([p for p in itertools.product([False, True], repeat=count) if any(p)])
    generator = np.random.default_rng(0)
    singles, full = np.eye(count, dtype=bool), np.ones((1, count), dtype=bool)
    sizes = 2 + np.arange(max(PATTERNS_UP_TO - count - 1, count)) % (count - 2)
    mixed = [np.isin(np.arange(count), generator.choice(count, size, replace=False)) for size in sizes]
    return np.concatenate([singles, np.array(mixed), full])


def added_patterns(old: int, added: int) -> Array:
    """List the patterns that contain an added modality, all of them or a sample: (K, old + added)."""
    before = np.concatenate([np.zeros((1, old), dtype=bool), list_patterns(old)])
    listed: Array = np.unique([np.concatenate([b, a]) for a in list_patterns(added) for b in before], axis=0)
    return listed
