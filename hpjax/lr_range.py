"""`python -m hpjax.lr_range --config=FILE`: which learning rates are worth a search."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from hpjax.cli.arguments import Arguments, parse_arguments
from hpjax.cli.command import run_command
from hpjax.cli.host_memory import restart_with_kept_memory
from hpjax.cli.options import refusing_flags, run_with_help
from hpjax.cli.overrides import with_fields
from hpjax.config import Config, parse_config, to_dict
from hpjax.errors import UsageError
from hpjax.report.rate_range import (
    RateRange,
    RateTrial,
    describe_rate_range,
    draw_rate_range,
    find_rate_range,
)

if TYPE_CHECKING:
    from hpjax.sweep.run import SweepResult

HELP = """\
usage: python -m hpjax.lr_range --config=FILE [--config.SECTION.FIELD=VALUE …] [options]

Trains a network at each of many learning rates for some hundred steps, in lanes, draws the loss
against the rate, and prints the --space to search in. Everything but the learning rate is as the
config fixes it: its search space isn't used, nor are schedule, warm-up, seeds, pruner and sampler.

  --config=FILE     the sweep whose learning rate is asked for; see python -m hpjax.main --help
  --rates=32        how many learning rates, 4 to 256, evenly spaced in the logarithm
  --low=1e-7        the lowest
  --high=10         the highest
  --steps=200       how many steps of config.train.batch_size each trains for, at most
  --workdir=DIR     where everything is kept; default runs/<name of the config>_lr_range
  --resume=auto     continue an unfinished test there (auto), or never, or must
"""
FIGURE = "lr_range.png"
_PARTS = 5  # epochs of the test: the loss is read after each
_TESTED_ON = 256  # images; only training losses count
_CHOICES = 5  # of a grid


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for."""

    arguments: Arguments
    config: Config
    sweep: list[str]  # the arguments that a sweep takes as well


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the range test that the command line describes; returns the exit status (see `run_command`)."""
    argv = sys.argv if argv is None else argv
    return run_with_help(argv, HELP, lambda: _run(_parse(argv)))


def _parse(argv: Sequence[str]) -> _Asked:
    values = flags.FlagValues()
    flags.DEFINE_integer("rates", 32, "", 4, 256, flag_values=values)
    flags.DEFINE_float("low", 1e-7, "", 1e-30, 1e30, flag_values=values)
    flags.DEFINE_float("high", 10.0, "", 1e-30, 1e30, flag_values=values)
    flags.DEFINE_integer("steps", 200, "", _PARTS, 1_000_000, flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    with refusing_flags():
        rest = values(list(argv), known_only=True)
    if values.low >= values.high:
        raise UsageError(f"--low={values.low:g} is not allowed: expected less than --high={values.high:g}")
    arguments = parse_arguments([*rest, *([f"--workdir={values.workdir}"] if values.workdir else [])])
    if arguments.ray:
        raise UsageError("--launcher=ray is not allowed: the rates are tested in this process")
    if arguments.plan or arguments.spaces:
        flag = "--plan" if arguments.plan else f"--space={next(iter(arguments.spaces.values()))}"
        raise UsageError(f"{flag} is not allowed: expected --low and --high: no other axis varies")
    with arguments.naming_flags():
        config = _create_config(arguments.config, values.low, values.high, values.rates, values.steps)
    workdir = arguments.workdir if values.workdir else f"{arguments.workdir}_lr_range"
    return _Asked(Arguments(config, workdir, arguments.resume, False), arguments.config, list(rest[1:]))


def _create_config(config: Config, low: float, high: float, rates: int, steps: int) -> Config:
    """Returns the sweep that tests so many rates, from `low` to `high`, for so many steps each."""
    examples = -(-steps // _PARTS) * config.train.batch_size
    changed: dict[str, Any] = {
        "sweep": {"space": {"learning_rate": space_rates(low, high, rates)}, "metric": "train_loss"},
        "train.epochs": _PARTS,
        "optimizer.schedule": "constant",
        "optimizer.warmup_fraction": 0.0,
        "data.max_train_examples": min(examples, config.data.max_train_examples or examples),
        "data.max_test_examples": min(_TESTED_ON, config.data.max_test_examples or _TESTED_ON),
        "data.validation_fraction": 0.0,
        "checkpoint.keep": 0,
        "trackers": (),
    }
    return parse_config(with_fields(to_dict(config), changed))


def space_rates(low: float, high: float, count: int) -> tuple[float, ...]:
    """Returns learning rates of at most three digits, evenly spaced in the logarithm, ends included."""
    return tuple(dict.fromkeys(float(f"{rate:.3g}") for rate in np.geomspace(low, high, count)))


def _run(asked: _Asked) -> None:
    # Only now: a wrong command line is answered before jax is loaded.
    from hpjax.report.style import sparing
    from hpjax.sweep import run_sweep

    arguments = asked.arguments
    result = run_sweep(arguments.config, arguments.workdir, arguments.resume, progress=True)
    tested = read_tested(result)
    found = find_rate_range(tested)
    steps = _PARTS * result.summary["layouts"][0]["steps_per_epoch"]
    print(f"tables       {result.workdir}/trials.csv  {result.workdir}/epochs.csv")
    with sparing(FIGURE):
        info = _describe(result, arguments)
        print(f"figure       {draw_rate_range(tested, found, steps, info, result.workdir / FIGURE)}")
    print("\n".join([*describe_rate_range(found, steps), *_propose(found, asked)]))


def read_tested(result: "SweepResult") -> list[RateTrial]:
    """Returns the rates of a range test with their losses, by rate."""
    losses: dict[int, list[float]] = {}
    for row in result.epochs:
        losses.setdefault(row.trial, []).append(row.train_loss)
    tested = [
        RateTrial(t.hyperparameters["learning_rate"], tuple(losses.get(t.trial, ())), t.diverged)  # type: ignore
        for t in result.trials
    ]
    return sorted(tested, key=lambda rate: rate.rate)


def _describe(result: "SweepResult", arguments: Arguments) -> Any:
    from hpjax.report.heading import describe_fixed
    from hpjax.report.style import FigureInfo, format_value

    config, data = arguments.config, result.summary["data"]
    dataset = f"{data['name']} ({data['images']['train']:,} training images)"
    fixed = describe_fixed(config, ("learning_rate",))
    return FigureInfo(dataset, format_value(config.model.name), ("learning_rate",), fixed, data["notice"])


def _propose(found: RateRange | None, asked: _Asked) -> list[str]:
    """Returns the command that searches in the range; nothing where there is none."""
    if found is None:
        return []
    if asked.config.sweep.sampler == "grid":
        spec = ",".join(f"{rate:g}" for rate in space_rates(found.low, found.high, _CHOICES))
    else:
        spec = f"{found.low:g}:{found.high:g}:log"
    command = ["python", "-m", "hpjax.main", *asked.sweep, f"--space=learning_rate={spec}"]
    others = [name for name in asked.config.sweep.space if name != "learning_rate"]
    again = f"; the config's other axes ({', '.join(others)}) need a --space each, too" if others else ""
    return [f"next{again}:", shlex.join(command)]


if __name__ == "__main__":
    sys.exit(run_command(restart_with_kept_memory) or main())
