"""`python -m mla_serve.train`, which is `mla-serve train`."""

from __future__ import annotations

from mla_serve.commands.train import TrainFlags, run
from mla_serve.console import command_line, main

if __name__ == "__main__":
    main(run, TrainFlags, needs="train", prog=command_line("train"))
