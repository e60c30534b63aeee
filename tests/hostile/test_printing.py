"""No file makes a library write to the log of the process that decodes it."""

from __future__ import annotations

import os
import subprocess
import sys

from mla_serve.inputs.media.safe_calls import no_output


def test_a_process_that_decodes_the_corpus_prints_nothing() -> None:
    """A damaged fax of 1 MB printed 60 MB straight to file descriptor 2."""
    done = subprocess.run([sys.executable, "-m", "tests.hostile.printing"], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_what_python_prints_meanwhile_is_seen() -> None:
    code = (
        "import ctypes, sys\n"
        "from mla_serve.inputs.media.safe_calls import no_output\n"
        "with no_output:\n"
        "    with no_output:\n"
        "        pass\n"
        "    print('python', file=sys.stderr)\n"
        "    ctypes.CDLL(None).perror(b'within')\n"
        "ctypes.CDLL(None).perror(b'after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python" in done.stderr
    assert "within" not in done.stderr
    assert "after" in done.stderr


def test_output_is_there_again_after_an_error() -> None:
    streams = [stream.value for stream, _ in no_output._streams]
    try:
        with no_output:
            raise ValueError
    except ValueError:
        pass
    assert [stream.value for stream, _ in no_output._streams] == streams
    assert bool(streams) == bool(os.confstr("CS_GNU_LIBC_VERSION"))
