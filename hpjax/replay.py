"""`python -m hpjax.replay --workdir=DIR --trial=N`: trains a trial again, and compares."""

import sys
from collections.abc import Mapping, Sequence

from hpjax.cli.command import run_command
from hpjax.cli.host_memory import restart_with_kept_memory
from hpjax.cli.options import check_choice, naming_options, parse_options, parse_trial, run_with_help

HELP = """\
usage: python -m hpjax.replay --workdir=DIR --trial=N [--layout=recorded] [--model_file=FILE]

Trains a trial again, alone, from what its sweep recorded of it (a member of a population with those
that it went on from), and compares every epoch with the record.

  --workdir=DIR      the sweep's folder; nothing in it is run or changed
  --trial=best       the trial's number, or the one that ranks first
  --layout=recorded  with as many lanes in a call and devices as there were: equal bits, on the same
                     machine; or
                     alone: faster, equal within float rounding
  --model_file=FILE  the Python file of a model of your own, as it was when the sweep began

exit status: 0 it agrees, 3 it doesn't, 2 the input is wrong, 1 a defect
"""
DIFFERS = 3
LAYOUTS = ("recorded", "alone")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains again what the command line names; returns the exit status (see `run_command`)."""
    argv = sys.argv if argv is None else argv
    return run_with_help(argv, HELP, lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    defaults = {"workdir": ..., "trial": ..., "layout": "recorded", "model_file": None}
    options, _ = parse_options(argv, defaults)
    trial = parse_trial("--trial", options["trial"])
    layout = check_choice(options, "layout", LAYOUTS)
    from hpjax.handover.replay import replay_trial  # only now: a wrong command line is answered without jax

    with naming_options(options):
        found = replay_trial(options["workdir"], trial, options["model_file"], layout, notify=_print_epoch)
    print(found.describe())
    return 0 if found.agrees else DIFFERS


def _print_epoch(epoch: int, columns: Mapping[str, float]) -> None:
    print(
        f"epoch {epoch}: " + ", ".join(f"{name} {value:.6g}" for name, value in columns.items()), flush=True
    )


if __name__ == "__main__":
    sys.exit(run_command(restart_with_kept_memory) or main())
