"""Opens a study: as it was at a checkpoint, or a new one, with what another study found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpjax.config.fields import Config
from hpjax.errors import ConfigError, WorkdirError
from hpjax.search.journal import create_storage, cut_journal
from hpjax.search.objective import Objective
from hpjax.search.replicates import Stage
from hpjax.search.samplers import LEAST_SOURCES, create_pruner, relaying_warnings
from hpjax.search.space import Space
from hpjax.search.study import KNOWN, Study
from hpjax.search.warm_start import load_trials
from hpjax.store.lock import writing
from hpjax.store.marks import RunningMark

STUDY_NAME = "hpjax"


def open_study(
    config: Config,
    space: Space,
    objective: Objective,
    path: str | Path,
    mark: Sequence[Any] | None = None,
    stages: Sequence[Stage] = (),
) -> Study:
    """Opens the journal of a study, and forgets everything after a mark.

    Args:
      config: the sweep's.
      space: what is searched.
      objective: its direction.
      path: the journal; created if missing. Optuna and its dashboard read it.
      mark: what `Study.mark` returned when the checkpoint that is continued was taken; None begins anew.
      stages: what the sweep had up to that checkpoint; where that isn't what it has now, one is added.

    Raises:
      ConfigError: The study that a new one is to begin with isn't there, or isn't one for it.
      WorkdirError: The journal isn't what it was at the mark, or can't be written.
    """
    path = Path(path)
    kept = cut_journal(path, mark)
    source, written = config.sweep.warm_start, RunningMark(kept)
    known = load_trials(source, space, objective) if source and not kept else []
    import optuna

    complete = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in known)
    if known and config.sweep.sampler == "cmaes" and complete < LEAST_SOURCES:
        allowed = f"a study with at least {LEAST_SOURCES} complete trials in sweep.space for cmaes"
        raise ConfigError("sweep.warm_start", source, f"{allowed}; there are {complete}")

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings are no news for users
    with relaying_warnings(), writing(path):
        study = optuna.create_study(
            storage=create_storage(path, written),
            study_name=STUDY_NAME,
            direction="maximize" if objective.maximize else "minimize",
            pruner=create_pruner(config.sweep) or optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        if known:
            study.set_user_attr(KNOWN, len(known))
            study.add_trials(known)
    asked = len(study.get_trials(deepcopy=False)) - study.user_attrs.get(KNOWN, 0)
    if stages and stages[-1].first > asked:
        told = f"{path} holds {asked} trials, and there were {stages[-1].first}"
        raise WorkdirError(f"{told}: restore it, or choose another workdir")
    return Study(config, space, study, path, written, stages)
