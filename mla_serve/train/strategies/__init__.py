"""Training strategies behind one interface. A new one is a class and a line in STRATEGIES."""

from mla_serve.train.strategies.base import Batch, Options, Part, Strategy
from mla_serve.train.strategies.dus import Dus
from mla_serve.train.strategies.joint import JointConcat, JointDropout, JointSum, JointUnimodal
from mla_serve.train.strategies.mib import Mib
from mla_serve.train.strategies.mla import Ensemble, Mla
from mla_serve.train.strategies.mmpareto import MmPareto
from mla_serve.train.strategies.ogm_ge import OgmGe
from mla_serve.train.strategies.qmf import Qmf

STRATEGIES: dict[str, type[Strategy]] = {
    "mla": Mla,
    "ensemble": Ensemble,
    "joint_concat": JointConcat,
    "joint_dropout": JointDropout,
    "ogm_ge": OgmGe,
    "qmf": Qmf,
    "joint_sum": JointSum,
    "joint_unimodal": JointUnimodal,
    "mmpareto": MmPareto,
    "dus": Dus,
    "mib": Mib,
}

__all__ = ["STRATEGIES", "Batch", "Options", "Part", "Strategy"]
