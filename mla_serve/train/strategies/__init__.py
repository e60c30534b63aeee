"""Training strategies: how a mini-batch changes encoders and heads. A new one is a class and a line in STRATEGIES.

base             the interface; optimisers, learning rates, checkpoints
mla              turns with a shared head; the ensemble
head_projection  --hgm: keeps the turn of one modality from undoing the others' in the shared head
dus              turns of different length
joint            one loss on fused logits: joint_sum, joint_concat, joint_dropout, joint_unimodal
ogm_ge, qmf, mib, mmpareto   variants of joint training from the literature
"""

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
