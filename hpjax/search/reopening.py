"""Trials that had ended go on: Optuna lets none do so, and its study is written once more."""

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna


def reopen_trials(study: "optuna.Study", numbers: Collection[int]) -> "optuna.Study":
    """Returns a study of the same name in the same storage, some of whose complete trials are running.

    Args:
      study: is deleted; a journal only ever becomes longer, so that a cut brings it back.
      numbers: of those trials, as the study counts them.
    """
    import optuna

    storage, past = study._storage, study.get_trials()
    attributes = storage.get_study_system_attrs(study._study_id)  # where a sequence of settings stands
    noted = study.user_attrs
    about = {"study_name": study.study_name, "direction": study.direction, "pruner": study.pruner}
    optuna.delete_study(study_name=study.study_name, storage=storage)
    again = optuna.create_study(storage=storage, **about)
    for name, value in attributes.items():
        storage.set_study_system_attr(again._study_id, name, value)
    for name, value in noted.items():
        again.set_user_attr(name, value)
    for trial in past:
        again.add_trial(_without_end(trial) if trial.number in numbers else trial)
    return again


def _without_end(trial: "optuna.trial.FrozenTrial") -> "optuna.trial.FrozenTrial":
    from optuna.trial import TrialState

    trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
    trial.user_attrs = {name: value for name, value in trial.user_attrs.items() if name != "status"}
    return trial
