"""How the processes that torchrun starts find each other, after a restart too.

torchrun's agent keeps one store for all attempts, and torch does not tell them apart there: a process may read the
address of one that was killed, and then it fails to connect or waits for ever. (The count of restarts that torchrun
passes does not help: it is that of one machine.) So the processes agree on a name for the attempt first.
"""

from __future__ import annotations

import time
import uuid

from torch.distributed import Store

PAUSE = 0.02  # seconds between looks into the store


def name_call(store: Store) -> str:
    """Return a name for this call of torchrun, the same after its restarts."""
    name: bytes = store.compare_set("mla_serve/call", "", uuid.uuid4().hex)
    return name.decode()


def name_attempt(store: Store, rank: int, world: int) -> str:
    """Agree with the other processes that are alive on a name, unread and unused before.

    Each writes down who it is, under its rank; rank 0 answers under that very name, which no dead process waits for, and
    goes on once it was heard by all ranks.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"mla_serve/rank/{rank}", own)
        attempt: str = store.get(f"mla_serve/answer/{own}").decode()  # waits for it
        store.set(f"mla_serve/heard/{attempt}/{rank}", "")
        return attempt
    waiting = set(range(1, world))
    while waiting := {other for other in waiting if not store.check([f"mla_serve/heard/{own}/{other}"])}:
        for other in waiting:
            if store.check([f"mla_serve/rank/{other}"]):
                who = store.get(f"mla_serve/rank/{other}").decode()
                store.set(f"mla_serve/answer/{who}", own)
        time.sleep(PAUSE)
    return own
