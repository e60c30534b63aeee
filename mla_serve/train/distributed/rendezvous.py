"""Let the processes that torchrun starts find each other, also after a restart.

torchrun's agent keeps one store for all attempts, and torch does not tell the attempts apart: a process may read the
address of a killed one, and then it fails to connect or waits for ever. The number of restarts that torchrun passes does
not help, because each machine counts its own. So the processes agree on a name for the attempt first.
"""

from __future__ import annotations

import time
import uuid

from torch.distributed import Store

PAUSE = 0.02  # seconds between two looks into the store


def name_call(store: Store) -> str:
    """Return a name for this call of torchrun, the same after its restarts."""
    name: bytes = store.compare_set("mla_serve/call", "", uuid.uuid4().hex)
    return name.decode()


def name_attempt(store: Store, rank: int, world: int) -> str:
    """Agree with the other live processes on a name for this attempt, which no earlier attempt has used.

    Each process stores an id of its own under its rank. Rank 0 stores its own id, which names the attempt, as the answer
    to each of those ids. A killed process may have left an id, but nobody waits for the answer to it. Rank 0 continues
    when every rank has confirmed the name.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"mla_serve/rank/{rank}", own)
        attempt: str = store.get(f"mla_serve/answer/{own}").decode()  # waits until it is there
        store.set(f"mla_serve/joined/{attempt}/{rank}", "")
        return attempt
    waiting = set(range(1, world))
    while waiting := {other for other in waiting if not store.check([f"mla_serve/joined/{own}/{other}"])}:
        for other in waiting:
            if store.check([f"mla_serve/rank/{other}"]):
                who = store.get(f"mla_serve/rank/{other}").decode()
                store.set(f"mla_serve/answer/{who}", own)
        time.sleep(PAUSE)
    return own
