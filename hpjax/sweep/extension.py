"""A sweep that goes on to more trials, seeds or epochs than it had: what it may, and what it takes back."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpjax.config.fields import Config
from hpjax.errors import ConfigError, WorkdirError
from hpjax.search.replicates import Stage
from hpjax.search.samplers import UNLEARNED
from hpjax.search.space import Space
from hpjax.store.rows import TrialRow
from hpjax.store.states import list_states, load_state
from hpjax.store.typed import read_as
from hpjax.store.workdir import STATES
from hpjax.sweep.spec import Spec

log = logging.getLogger("hpjax")


def find_stages(
    ledger: Mapping[str, Any], config: Config, read_past: Callable[[], Sequence[TrialRow]]
) -> list[Stage]:
    """Returns what a sweep had up to a checkpoint, stage by stage.

    Args:
      ledger: of the checkpoint.
      config: what the sweep is to have.
      read_past: returns the trials up to the checkpoint; for ledgers of earlier versions, which don't say.

    Raises:
      ValueError: The ledger isn't one of ours.
    """
    stages = [read_as(Stage, stage) for stage in ledger.get("stages", ())]
    if not stages and ledger:
        stages = [_guess_stage(config, read_past())]
    firsts, most = [stage.first for stage in stages], (config.sweep.seeds, config.train.epochs)
    if firsts != sorted(firsts) or firsts[:1] not in ([], [0]):
        raise ValueError("the stages have no order")
    if not all(1 <= stage.seeds <= most[0] and 1 <= stage.epochs <= most[1] for stage in stages):
        raise ValueError("a stage had more than the sweep is to have")
    return stages


def _guess_stage(config: Config, past: Sequence[TrialRow]) -> Stage:
    sweep, seeds, epochs = config.sweep, config.sweep.seeds, config.train.epochs
    if sweep.final_seeds or sweep.pbt or not past:  # such a sweep can't have been extended
        return Stage(0, seeds, epochs)
    if any(trial.seed_index != trial.trial % seeds for trial in past):
        seeds = max(trial.seed_index for trial in past) + 1
    complete = [trial.epochs for trial in past if trial.status == "complete"]
    searched = "epochs" in config.sweep.space
    return Stage(0, seeds, epochs if searched else min(max(complete, default=epochs), epochs))


def check_extension(
    spec: Spec, workdir: Path, before: Stage, read_past: Callable[[], Sequence[TrialRow]]
) -> None:
    """Checks that a sweep can go on with what it is to have now, and says where that isn't the longer sweep.

    Args:
      spec: what is to be run.
      workdir: the sweep's.
      before: what it had.
      read_past: returns its trials so far.

    Raises:
      ConfigError: It can't; names the field.
      WorkdirError: What it would go on from isn't there.
      CheckpointError: Or it is damaged.
    """
    sweep, train = spec.config.sweep, spec.config.train
    more_epochs, more_seeds = train.epochs > before.epochs, sweep.seeds > before.seeds
    if more_epochs:
        _check_epochs(spec.config, spec.space, before)
        _check_states(workdir, before, train.epochs, read_past())
    if not (more_epochs or more_seeds):
        return
    if sweep.sampler not in UNLEARNED:
        told = "sweep.sampler=%s goes on from what it learned: a sweep begun with %s would have tried others"
        log.warning(told, sweep.sampler, _describe(spec.config, more_epochs, more_seeds))
    elif sweep.pruner != "none":
        told = "sweep.pruner=%s has ended trials already: a sweep begun with %s might have ended others"
        log.warning(told, sweep.pruner, _describe(spec.config, more_epochs, more_seeds))


def _describe(config: Config, more_epochs: bool, more_seeds: bool) -> str:
    epochs = [f"train.epochs={config.train.epochs}"] if more_epochs else []
    return " and ".join([*epochs, *([f"sweep.seeds={config.sweep.seeds}"] if more_seeds else [])])


def _check_epochs(config: Config, space: Space, before: Stage) -> None:
    """Raises ConfigError where a trial's course so far would have been another one with more epochs."""
    key, value = "train.epochs", config.train.epochs
    stay = f"{before.epochs} with sweep.extend, or a new --workdir"
    axes = {axis.name: axis for axis in space.axes}
    if "epochs" in axes:
        raise ConfigError(key, value, f"{stay}: sweep.space.epochs sets it")
    schedules = _list_values(axes, "schedule", config.optimizer.schedule)
    if others := [name for name in schedules if name != "constant"]:
        raise ConfigError(key, value, f"{stay}: optimizer.schedule={others[0]} depends on it from the start")
    if any(_list_values(axes, "warmup_fraction", config.optimizer.warmup_fraction)):
        raise ConfigError(key, value, f"{stay}: optimizer.warmup_fraction is a share of it")
    if config.sweep.pruner != "none":
        raise ConfigError(key, value, f"{stay}: sweep.pruner={config.sweep.pruner} has compared trials")
    if config.lanes.data_order == "shared":
        raise ConfigError(key, value, f"{stay}: the order of examples is shared (lanes.data_order)")


def _list_values(axes: Mapping[str, Any], name: str, otherwise: Any) -> tuple:
    """Returns the values that a hyperparameter has, those of a range by its ends."""
    axis = axes.get(name)
    if axis is None:
        return (otherwise,)
    values = axis.choices or (axis.low, axis.high)
    return (*values, otherwise) if axis.when else values


def _check_states(workdir: Path, before: Stage, epochs: int, past: Sequence[TrialRow]) -> None:
    kept = set(list_states(workdir / STATES, before.epochs))
    needed = [trial.trial for trial in past if trial.status == "complete" and trial.epochs == before.epochs]
    if lost := [number for number in needed if number not in kept]:
        raise WorkdirError(
            f"{workdir} can't go on to train.epochs={epochs}: the state of trial {lost[0]} after "
            f"{before.epochs} epochs isn't there (checkpoint.states=False keeps none): name a new --workdir, "
            "with checkpoint.states=True where that one is to be extended"
        )
    for number in needed:  # whole, too: afterwards the sweep is the longer one
        load_state(workdir / STATES, before.epochs, number)
