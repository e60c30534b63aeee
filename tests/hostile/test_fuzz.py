"""Any bytes into every decoder: an array of the promised shape or an InputError, nothing else.

make fuzz SECONDS=300      for so long per decoder
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mla_serve.errors import InputError
from mla_serve.inputs import AudioInput, ImageInput, Input, Payload, TextInput, VectorInput
from tests.hostile.seeds import images, sounds

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES = 60 if not SECONDS else 500
QUICK = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@st.composite
def damaged(draw: st.DrawFn, seeds: Callable[[], dict[str, bytes]]) -> bytes:
    """Draw a good file with bytes changed, cut out, doubled or put in."""
    content = bytearray(draw(st.sampled_from(sorted(seeds().values()))))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, min(len(content) - 1, draw(st.sampled_from([48, 200, 10**9]))))))
        what = draw(st.sampled_from(["set", "cut", "double", "insert", "number"]))
        size = draw(st.integers(1, 40))
        if what == "set":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif what == "cut":
            del content[at : at + size]
        elif what == "double":
            content[at:at] = content[at : at + size]
        elif what == "insert":
            content[at:at] = draw(st.binary(max_size=40))
        else:
            number = draw(st.sampled_from([0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]))
            content[at : at + 4] = number.to_bytes(4, draw(st.sampled_from(["big", "little"])))
    return bytes(content)


TEXTS = st.one_of(st.text(max_size=250), st.text(st.characters(categories=["Mn", "Cf", "Cs", "Lo"]), max_size=220))
NUMBERS = st.one_of(
    st.text("0123456789eE+-., []naifNIty_", max_size=60), st.lists(st.floats(), max_size=6), st.binary(max_size=60)
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
}


@pytest.mark.parametrize("name", FUZZED)
def test_any_payload_gives_an_array_or_an_input_error(name: str, predictor: Any) -> None:
    make, payloads = FUZZED[name]
    reader = make(predictor.bundle.read("tokenizer.json").decode())
    tried = 0

    @QUICK
    @given(payloads)
    def decode(payload: Payload) -> None:
        nonlocal tried
        tried += 1
        check(reader, payload)

    decode()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        decode()
    if SECONDS:
        print(f"\nfuzz {name}: {tried:,} payloads in {SECONDS:g} s, nothing but arrays and InputErrors")


def check(reader: Input, payload: Payload) -> None:
    start = time.thread_time()
    try:
        array = reader.decode(payload, "field")
    except InputError as error:
        refused = error
        assert (refused.field, bool(refused.message)) == ("field", True)
    else:
        assert array.shape[1:] == reader.shape
        assert array.dtype == reader.dtype
        assert np.isfinite(array).all()
    assert not SECONDS or time.thread_time() - start < 2, payload
