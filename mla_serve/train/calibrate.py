"""Fit the fusion formula on validation: temperatures, sharpness, one scale per availability pattern. METHOD.md 2."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import minimize

from mla_serve.fusion import Array, Fusion, entropy_weights, log_softmax, pattern_name

RIDGE = 1e-3  # on the squared log-parameters, toward the paper's point
PATTERNS_UP_TO = 64  # beyond, patterns are sampled and scales shared by the number present
BOUND = 4.0  # |log parameter|
NEWTON_STEPS = 12


def fit_fusion(logits: Array, present: Array, labels: Array, names: tuple[str, ...], ridge: float = RIDGE) -> Fusion:
    """Minimise the NLL, averaged over availability patterns, plus the ridge.

    Temperatures and sharpness are searched by L-BFGS-B; for each candidate the best scale of every pattern is one
    convex problem in one number, solved by Newton's method.

    Args: logits (M, B, C); present (M, B) bool; labels (B,).
    """
    tables = [(pattern, rows) for pattern in _patterns(len(names)) if (rows := present[pattern].all(axis=0)).sum() >= 2]
    shared = len(tables) and 2 ** len(names) - 1 > PATTERNS_UP_TO

    def solve(theta: Array) -> tuple[float, list[float]]:
        tempered = logits.astype(np.float64) / np.exp(theta[:-1])[:, None, None]
        mixed = [_mix(tempered, pattern, rows, np.exp(theta[-1])) for pattern, rows in tables]
        fits = [_best_scale(z, labels[rows], ridge) for z, (_, rows) in zip(mixed, tables, strict=True)]
        value = np.mean([nll for _, nll in fits]) + ridge * np.square(theta).sum()
        return float(value), [log_scale for log_scale, _ in fits]

    start = np.zeros(len(names) + 1)
    found = minimize(lambda theta: solve(theta)[0], start, method="L-BFGS-B", bounds=[(-BOUND, BOUND)] * len(start))
    _, log_scales = solve(found.x)
    temperatures = dict(zip(names, np.exp(found.x[:-1]).tolist(), strict=True))
    keys = [_key(pattern, names, bool(shared)) for pattern, _ in tables]
    scales = {
        key: float(np.exp(np.mean([s for k, s in zip(keys, log_scales, strict=True) if k == key]))) for key in keys
    }
    return Fusion(temperatures, float(np.exp(found.x[-1])), scales)


def _patterns(count: int) -> Array:
    """List all availability patterns (K, M), or a fixed random sample with every size in it."""
    if 2**count - 1 <= PATTERNS_UP_TO:
        return np.array([p for p in itertools.product([False, True], repeat=count) if any(p)])
    generator = np.random.default_rng(0)
    singles, full = np.eye(count, dtype=bool), np.ones((1, count), dtype=bool)
    sizes = generator.integers(2, count, PATTERNS_UP_TO - count - 1)
    mixed = [np.isin(np.arange(count), generator.choice(count, size, replace=False)) for size in sizes]
    return np.concatenate([singles, np.array(mixed), full])


def _key(pattern: Array, names: tuple[str, ...], shared: bool) -> str:
    return (
        str(pattern.sum())
        if shared
        else pattern_name([name for name, there in zip(names, pattern, strict=True) if there])
    )


def _mix(tempered: Array, pattern: Array, rows: Array, sharpness: float) -> Array:
    """Fuse the rows that have a pattern with a scale of 1: (rows, C)."""
    chosen = tempered[pattern][:, rows]
    weights = entropy_weights(chosen, np.ones(chosen.shape[:2], dtype=bool), sharpness)
    mixed: Array = np.einsum("mb,mbc->bc", weights, chosen)
    return mixed


def _best_scale(mixed: Array, labels: Array, ridge: float) -> tuple[float, float]:
    """Find the log-scale u that minimises NLL(exp(u) z) + ridge u^2; returns u and that minimum.

    Newton's method in u; the curvature is kept positive, each step at most 1.
    """
    rows = np.arange(len(labels))
    u = 0.0
    for _ in range(NEWTON_STEPS):
        scaled = np.exp(u) * mixed
        p = np.exp(log_softmax(scaled))
        expected = (p * scaled).sum(axis=1)
        slope = np.mean(expected - scaled[rows, labels])
        spread = np.mean((p * np.square(scaled)).sum(axis=1) - np.square(expected))
        gradient, curvature = slope + 2 * ridge * u, max(spread + max(slope, 0.0) + 2 * ridge, 1e-8)
        step = np.clip(gradient / curvature, -1.0, 1.0)
        u = float(np.clip(u - step, -BOUND, BOUND))
        if abs(step) < 1e-9:
            break
    log_p = log_softmax(np.exp(u) * mixed)
    return u, float(-log_p[rows, labels].mean() + ridge * u**2)
