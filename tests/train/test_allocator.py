"""Freed memory is kept: a block that follows one of its size costs no page faults."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from mla_serve.train.allocator import keep_freed_memory
    keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_second_block_costs_page_faults_only_where_memory_is_given_back() -> None:
    assert faults("kept") < faults("given back") / 10
