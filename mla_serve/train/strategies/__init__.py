"""Training strategies behind one interface. A new one is a class and a line in STRATEGIES."""

from mla_serve.train.strategies.base import Batch, Options, Strategy
from mla_serve.train.strategies.mla import Ensemble, Mla

STRATEGIES: dict[str, type[Strategy]] = {"mla": Mla, "ensemble": Ensemble}

__all__ = ["STRATEGIES", "Batch", "Options", "Strategy"]
