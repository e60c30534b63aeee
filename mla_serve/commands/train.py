"""`mla-serve train`: from a table to a bundle that can be served."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import rich.progress
from rich.console import Console

from mla_serve.bundle.manifest import read_task
from mla_serve.console import command_line, console, errors, in_clone
from mla_serve.errors import ConfigError
from mla_serve.evaluation.draw import measured
from mla_serve.output.replacing import exclusive
from mla_serve.train.config import TrainConfig

if TYPE_CHECKING:
    from mla_serve.train.cross_validation import CrossValidation
    from mla_serve.train.plan import Plan
    from mla_serve.train.run_folder import RunFolder

SHOWN_RULES = ("calibrated",)


@dataclasses.dataclass(frozen=True)
class TrainFlags(TrainConfig):
    """Train encoders for every modality of a table and one shared head, and export them as a bundle that can be served."""

    json: bool = False
    """Print the manifest of the bundle as JSON. All other output goes to standard error."""

    @property
    def resume_flags(self) -> tuple[str, ...]:
        """Flags to add to continue an interrupted command."""
        return ("--resume",)


def run(flags: TrainFlags) -> None:
    """Train and export, and print the results and how to serve the bundle."""
    with contextlib.ExitStack() as held:
        _run(flags, held)


def _run(flags: TrainFlags, held: contextlib.ExitStack) -> None:
    """Train and export. Args: held, closes the lock on the run's folder."""
    from mla_serve.export.export_run import export_run
    from mla_serve.train.allocator import keep_freed_memory
    from mla_serve.train.cross_validation import FOLDS
    from mla_serve.train.device import set_threads
    from mla_serve.train.distributed import collectives
    from mla_serve.train.extend.plan import plan_extension
    from mla_serve.train.paths import bundle_folder
    from mla_serve.train.plan import make_plan

    config = TrainConfig(**{field.name: getattr(flags, field.name) for field in dataclasses.fields(TrainConfig)})
    screen = _screen(flags.json, collectives.is_main())
    keep_freed_memory()
    set_threads(config.threads)
    with collectives.process_group(_device(config)) as launch:
        begun = time.monotonic()
        planned = collectives.from_main(lambda: plan_extension(config) if config.extend else make_plan(config))
        spent = time.monotonic() - begun
        collectives.from_main(lambda: held.enter_context(exclusive("--runs", config.runs / planned.name)))
        _print_plan(screen, planned, collectives.world_size())
        folds = _cross_validate(config, planned, screen)
        planned = dataclasses.replace(planned, unseen=folds.unseen) if folds else planned
        folder = _train(config, planned, screen, launch, spent)
    if not collectives.is_main():
        return
    if folds:
        folder.write_json(FOLDS, folds.scores)
    out = bundle_folder(config, planned.name)
    screen.print("exporting and measuring ...")
    manifest = export_run(folder.path, out)
    if flags.json:
        print(manifest.model_dump_json(indent=1))
        return
    if manifest.metrics:
        screen.print(measured(manifest.metrics, SHOWN_RULES, read_task(manifest)))
    serve = command_line("serve", "--model", str(out))
    make = f"\n\n(or: make serve MODEL={out})" if in_clone() else ""
    screen.print(f"\n{out} is ready. Serve it:\n\n    {serve}{make}", soft_wrap=True)


def _cross_validate(config: TrainConfig, planned: Plan, screen: Console) -> CrossValidation | None:
    """Measure by cross-validation where it is asked for or cheap, and print the result. Raises: ConfigError under torchrun."""
    from mla_serve.train.cross_validation import cross_validate, describe_folds, number_of_folds
    from mla_serve.train.distributed import collectives

    if not number_of_folds(config, planned):
        return None
    if collectives.world_size() > 1:
        raise collectives.reported_once(ConfigError("--folds: does not go with torchrun; train in one process"))
    result = cross_validate(config, planned, lambda line: screen.print(line, style="dim"))
    for line in describe_folds(result.scores):
        screen.print(line, markup=False, highlight=False, soft_wrap=True)
    return result


def _device(config: TrainConfig) -> Any:
    from mla_serve.train.device import pick_device
    from mla_serve.train.distributed import collectives

    try:
        return pick_device(config.device)
    except ConfigError as error:
        raise collectives.reported_once(error) from None


def _screen(json: bool, main: bool) -> Console:
    """Return where to print progress. Of several processes only the main one prints."""
    if not main:
        return Console(quiet=True)
    return errors if json else console


def _print_plan(screen: Console, planned: Plan, processes: int) -> None:
    """Print what will be trained, on which data, and by how many processes."""
    from mla_serve.train.describe import headline
    from mla_serve.train.notes import DATA

    for note in (*planned.replaced, *planned.notes):
        style = "yellow" if note.startswith(DATA) else "dim"
        screen.print(note, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)
    recipe = planned.recipe
    if processes > 1:
        screen.print(
            f"{processes} processes share each batch; built-in encoders use {recipe.norm} normalisation", style="dim"
        )
    screen.print(headline(planned))


def _train(config: TrainConfig, planned: Plan, screen: Console, launch: str | None, spent: float) -> RunFolder:
    """Train, with a progress bar and a line for each epoch. Args: spent, seconds that planning took."""
    from mla_serve.train.describe import epoch_line
    from mla_serve.train.plan import count_steps
    from mla_serve.train.run import train_as_planned

    with _progress(screen) as progress:
        task = progress.add_task("training", total=count_steps(planned))
        return train_as_planned(
            config,
            planned,
            lambda record: progress.console.print(epoch_line(record, planned.recipe.task)),
            lambda: progress.advance(task),
            launch,
            spent,
        )


def _progress(screen: Console) -> rich.progress.Progress:
    columns = (rich.progress.BarColumn(), rich.progress.TaskProgressColumn(), rich.progress.TimeRemainingColumn())
    return rich.progress.Progress(*columns, console=screen, transient=True)
