"""Any bytes into every decoder: an array of the promised shape or an InputError, nothing else.

make fuzz SECONDS=300      for so long per decoder; looks at time, memory and what libraries print as well
"""

from __future__ import annotations

import collections
import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mla_serve.errors import InputError
from mla_serve.inputs import AudioInput, Column, ColumnsInput, ImageInput, Input, Payload, TextInput, VectorInput
from tests.hostile.seeds import images, sounds

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES = 60 if not SECONDS else 500
WARM_UP = 0.5  # of the time: until memory is compared; allocators take that long to have seen everything
GROWTH = 1.1
SLOWEST_S = 2.0  # of processor time
MOST_PRINTED = 2_000  # bytes: libtiff writes its complaints to the worker's log by itself
QUICK = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=False,  # hypothesis would make the same examples again and again where CI is set
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


NUMBERS_OF_NOTE = (0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def damaged(seeds: Callable[[], dict[str, bytes]]) -> st.SearchStrategy[bytes]:
    """Draw a good file that something has happened to."""
    return st.builds(damage, st.sampled_from(sorted(seeds().values())), st.binary(min_size=8, max_size=8))


def damage(content: bytes, seed: bytes) -> bytes:
    """Change a file, in every second case only bytes in their places, so that its structures stay."""
    chance = random.Random(seed)
    changes = chance.choice([(_set, _number), (_set, _number, _cut, _double, _insert)])
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(min(len(damaged), chance.choice([48, 200, 10**9])) or 1)
        chance.choice(changes)(damaged, at, chance)
    return bytes(damaged)


def _set(content: bytearray, at: int, chance: random.Random) -> None:
    content[at : at + 1] = chance.randbytes(1)


def _number(content: bytearray, at: int, chance: random.Random) -> None:
    content[at : at + 4] = chance.choice(NUMBERS_OF_NOTE).to_bytes(4, chance.choice(["big", "little"]))


def _cut(content: bytearray, at: int, chance: random.Random) -> None:
    del content[at : at + chance.randint(1, 40)]


def _double(content: bytearray, at: int, chance: random.Random) -> None:
    content[at:at] = content[at : at + chance.randint(1, 40)]


def _insert(content: bytearray, at: int, chance: random.Random) -> None:
    content[at:at] = chance.randbytes(chance.randint(1, 40))


TEXTS = st.one_of(st.text(max_size=250), st.text(st.characters(categories=["Mn", "Cf", "Cs", "Lo"]), max_size=220))
NUMBERS = st.one_of(
    st.text("0123456789eE+-., []naifNIty_", max_size=60),
    st.binary(max_size=60),
    st.lists(st.floats(), max_size=6),
    st.lists(st.floats(width=32) | st.integers(), min_size=4, max_size=4),
    st.lists(st.floats() | st.integers(), min_size=4, max_size=4).map(str),
)
COLUMNS = ColumnsInput(
    (
        Column("price", "number", low=1.0, high=9.0),
        Column("colour", "category", ("red", "green")),
        Column("listed", "date", low=0.0, high=9.0),
        Column("in stock", "yes_no"),
    )
)
CELL = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=40) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
CELLS = st.one_of(
    st.dictionaries(st.sampled_from(["price", "colour", "listed", "in stock"]), CELL, max_size=4),
    st.dictionaries(st.text(max_size=10), CELL, max_size=3),
    st.dictionaries(st.sampled_from(["price", "colour"]), st.floats() | st.text(max_size=9) | st.none()).map(
        json.dumps
    ),
    st.text('{}[]":,.+-0123456789eNaInfinitypricecolour\\u', max_size=80),
    st.binary(max_size=60),
)
FUZZED: dict[str, tuple[Callable[[str], Input], st.SearchStrategy[Any]]] = {
    "image": (lambda _: ImageInput(16, 16, max_pixels=1_000_000), st.one_of(damaged(images), st.binary(max_size=99))),
    "grey": (lambda _: ImageInput(16, 16, 1, max_pixels=1_000_000), damaged(images)),
    "audio": (
        lambda _: AudioInput(1000, 500, 250, max_seconds=10.0),
        st.one_of(damaged(sounds), st.binary(max_size=99)),
    ),
    "text": (lambda tokenizer: TextInput(tokenizer, 12, True, True, 200), TEXTS),
    "vector": (lambda _: VectorInput(4), NUMBERS),
    "columns": (lambda _: COLUMNS, CELLS),
}


@pytest.mark.parametrize("name", FUZZED)
def test_any_payload_gives_an_array_or_an_input_error(
    name: str, predictor: Any, capfd: pytest.CaptureFixture[bytes]
) -> None:
    make, payloads = FUZZED[name]
    reader = make(predictor.bundle.read("tokenizer.json").decode())
    tally: collections.Counter[str] = collections.Counter()
    slowest = 0.0

    @QUICK
    @given(payloads)
    def decode(payload: Payload) -> None:
        nonlocal slowest
        start = time.thread_time()
        tally[check(reader, payload)] += 1
        slowest = max(slowest, time.thread_time() - start)
        assert len(capfd.readouterr().err) < MOST_PRINTED, payload
        assert not SECONDS or slowest < SLOWEST_S, payload

    decode()
    if SECONDS:
        repeat(decode, WARM_UP * SECONDS)
        before = psutil.Process().memory_info().rss
        repeat(decode, (1 - WARM_UP) * SECONDS)
        growth = psutil.Process().memory_info().rss / before
        with capfd.disabled():
            print(
                f"\nfuzz {name}: {tally.total():,} payloads in {SECONDS:g} s, {dict(tally)}, nothing else; "
                f"slowest {1000 * slowest:.0f} ms, memory {100 * (growth - 1):+.1f} %"
            )
        assert growth < GROWTH


def repeat(decode: Callable[[], None], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        decode()


def check(reader: Input, payload: Payload) -> str:
    try:
        array = reader.decode(payload, "field")
    except InputError as error:
        refused = error
        assert (refused.field.partition(".")[0], bool(refused.message)) == ("field", True)
        return "refused"
    assert array.shape[1:] == reader.shape
    assert array.dtype == reader.dtype
    assert np.isfinite(array).all() or (isinstance(reader, ColumnsInput) and not np.isinf(array).any())
    return "decoded"
