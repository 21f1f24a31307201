"""`python -m hpjax.main --config=FILE`: runs a sweep."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpjax.cli.arguments import Arguments, find_help, parse_arguments
from hpjax.cli.command import run_command
from hpjax.cli.host_memory import restart_with_kept_memory

if TYPE_CHECKING:
    from hpjax.sweep.run import SweepResult

NOTHING_ENDED_WELL = 3  # exit status of a sweep that is done, and has no best trial


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sweep that the command line describes; returns the exit status (see `run_command`).

    It is 3 where the sweep is done and every trial diverged.
    """
    argv = sys.argv if argv is None else argv
    if text := find_help(argv):
        return run_command(lambda: print(text, end=""))
    return run_command(lambda: _run(parse_arguments(argv)))


def _run(arguments: Arguments) -> int:
    # Only now: a wrong command line is answered before jax is loaded.
    import jax

    from hpjax import sweep

    if arguments.plan_for:  # the compiler for CUDA is asked; jax itself would take a GPU
        jax.config.update("jax_platforms", "cpu")
    with arguments.naming_flags(), _workers(arguments) as given:
        if arguments.plan_for:
            print(sweep.plan_sweep_for(arguments.config, arguments.plan_for, progress=True))
            return 0
        if arguments.plan:
            print(sweep.plan_sweep(arguments.config, progress=True, **given))
            return 0
        asked = (arguments.config, arguments.workdir, arguments.resume)
        result = sweep.run_sweep(*asked, progress=True, **given)
    print(_describe(result))
    return 0 if result.best is not None else NOTHING_ENDED_WELL


@contextlib.contextmanager
def _workers(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Enters the workers that the command line names; yields them as an argument of a sweep."""
    if arguments.ray is None:
        yield {}
        return
    from hpjax.launch.ray import RayWorkers

    with RayWorkers(*arguments.ray) as workers:
        yield {"workers": workers}


def _describe(result: "SweepResult") -> str:
    from hpjax.report.diagnosis import describe_findings
    from hpjax.report.outcome import describe_time

    path = result.workdir
    lines = [f"page         {path}/report.html"] if (path / "report.html").is_file() else []
    lines += [
        f"tables       {path}/trials.csv  {path}/epochs.csv  {path}/summary.json",
        f"figures      {path}/figures/",
        f"checkpoints  {path}/checkpoints/",
    ]
    if (path / "tensorboard").exists():
        installed = importlib.util.find_spec("tensorboard") is not None
        folder = f"{path}/tensorboard"
        shown = f"tensorboard --logdir={folder}" if installed else f"{folder}/  (pip install tensorboard)"
        lines.append(f"curves       {shown}")
    if took := describe_time(result.summary):
        lines.append(f"time         {took}")
    answers = [*result.standings, *describe_findings(result.diagnosis), result.outcome]
    return "\n".join([*lines, *answers])


if __name__ == "__main__":
    sys.exit(run_command(restart_with_kept_memory) or main())
