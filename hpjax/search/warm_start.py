"""What another study found: its trials, for a sampler that learns to begin with."""

import contextlib
import logging
import math
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.config.paths import expand_path
from hpjax.errors import ConfigError, HpjaxError, text_of
from hpjax.search.axis import parse_value
from hpjax.search.objective import Objective
from hpjax.search.samplers import create_distribution
from hpjax.search.space import Space
from hpjax.store.changes import compared
from hpjax.store.files import read_json
from hpjax.store.workdir import JOURNAL_NAME, SUMMARY_NAME

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("hpjax")

KEY = "sweep.warm_start"
_FORMS = "a workdir, a journal or a SQLite file of Optuna's, or sqlite:///FILE"
_SQLITE = "sqlite:///"


def load_trials(source: str, space: Space, objective: Objective) -> "list[optuna.trial.FrozenTrial]":
    """Returns the trials of another study as they would be in one that searches `space`; changes nothing.

    Those that ended complete or pruned, whose setting lies in the space, with what they came to: nothing that
    a pruner would compare others with.

    Args:
      source: what `sweep.warm_start` says; `#NAME` behind it names one of several studies.
      space: what is searched, and what of it is allowed.
      objective: what they were judged by.

    Raises:
      ConfigError: There is no such study, none of its trials can be taken, or it has another metric.
    """
    with _explaining(source):
        place, name = _split(source)
        if not place.exists():
            raise ConfigError(KEY, source, f"{_FORMS} that exists")
        if place.is_dir():
            _check_metric(source, place, objective)
            place /= JOURNAL_NAME
        if not place.is_file():
            raise ConfigError(KEY, source, f"{_FORMS}: there is no {JOURNAL_NAME} in that folder")
        with _open(place) as storage:
            past = _load_study(source, name, storage, objective)
    ended = [trial for trial in past if _has_ended(trial)]
    if not ended:
        raise ConfigError(KEY, source, "a study with trials that are complete or pruned")
    inside = [found for trial in ended if (found := _place(trial, space)) is not None]
    if not inside:
        raise ConfigError(KEY, source, f"a study with trials in sweep.space; none of its {len(ended)} is")
    outside = len(ended) - len(inside)
    left_out = f"; {outside} others lie outside of sweep.space" if outside else ""
    log.info("sweep.warm_start: the sampler knows %d trials of %s%s", len(inside), source, left_out)
    return inside


def _split(source: str) -> tuple[Path, str]:
    """Returns the file or folder, and the name of a study in it or nothing."""
    text = source.removeprefix(_SQLITE)
    name = ""
    if not Path(expand_path(text)).exists() and "#" in text:
        text, _, name = text.rpartition("#")
    return Path(expand_path(text)), name


@contextlib.contextmanager
def _explaining(source: str) -> Iterator[None]:
    """Says in one line that a file isn't what it should be, whatever reads it."""
    try:
        yield
    except HpjaxError:
        raise
    except Exception as error:
        told = f"{_FORMS} that can be read ({type(error).__name__}: {text_of(error, 200)})"
        raise ConfigError(KEY, source, told) from error


@contextlib.contextmanager
def _open(place: Path) -> "Iterator[optuna.storages.BaseStorage]":
    """Opens a storage; one that Optuna would write to when it reads is copied first."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    with place.open("rb") as file:
        if file.read(15) != b"SQLite format 3":
            yield JournalStorage(JournalFileBackend(str(place)))
            return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        with (
            contextlib.closing(sqlite3.connect(f"{place.resolve().as_uri()}?mode=ro", uri=True)) as theirs,
            contextlib.closing(sqlite3.connect(copy)) as ours,
        ):
            theirs.backup(ours)
        storage = RDBStorage(f"{_SQLITE}{copy}")
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _load_study(
    source: str, name: str, storage: "optuna.storages.BaseStorage", objective: Objective
) -> "Sequence[optuna.trial.FrozenTrial]":
    import optuna

    names = optuna.get_all_study_names(storage)
    if not names:
        raise ConfigError(KEY, source, "a storage with a study in it")
    if (name or names[0]) not in names or (len(names) > 1 and not name):
        listed = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        raise ConfigError(KEY, source, f"#NAME behind it, of one of its studies: {text_of(listed, 200)}")
    study = optuna.load_study(study_name=name or names[0], storage=storage)
    wanted = "maximize" if objective.maximize else "minimize"
    directions = [direction.name.lower() for direction in study.directions]
    if directions != [wanted]:
        raise ConfigError(KEY, source, f"a study to {wanted} one value, not to {' and '.join(directions)}")
    return study.get_trials()


def _check_metric(source: str, workdir: Path, objective: Objective) -> None:
    """Raises ConfigError where a workdir's trials were judged by another metric."""
    if not (workdir / SUMMARY_NAME).is_file():  # nothing has ended in it, or it isn't a workdir
        return
    theirs = read_json(workdir / SUMMARY_NAME).get("objective", objective.name)
    if compared("sweep.metric", theirs) != compared("sweep.metric", objective.name):
        told = f"a sweep with sweep.metric={objective.name}, not {text_of(theirs, 99)}"
        raise ConfigError(KEY, source, told)


def _has_ended(trial: "optuna.trial.FrozenTrial") -> bool:
    from optuna.trial import TrialState

    if trial.state == TrialState.COMPLETE:
        return trial.value is not None and math.isfinite(trial.value)
    reported = trial.intermediate_values
    return trial.state == TrialState.PRUNED and bool(reported) and math.isfinite(reported[max(reported)])


def _place(trial: "optuna.trial.FrozenTrial", space: Space) -> "optuna.trial.FrozenTrial | None":
    """Returns a trial under the space's own distributions; None where its setting lies outside."""
    from optuna.trial import TrialState, create_trial

    setting = _find_setting(trial.params, space)
    if setting is None:
        return None
    complete, reported = trial.state == TrialState.COMPLETE, trial.intermediate_values
    return create_trial(
        state=trial.state,
        value=trial.value if complete else None,
        params=setting,
        distributions={axis.name: create_distribution(axis) for axis in space.axes if axis.name in setting},
        intermediate_values={} if complete else {max(reported): reported[max(reported)]},
    )


def _find_setting(params: Mapping[str, Any], space: Space) -> dict[str, Any] | None:
    setting: dict[str, Any] = {}
    try:
        for axis in space.axes:
            if axis.applies(setting):
                axis.check(KEY, params[axis.name])
                setting[axis.name] = parse_value(KEY, axis.hyperparameter, params[axis.name])
    except (ConfigError, KeyError):
        return None
    return setting if setting.keys() == params.keys() and space.allows(setting) else None
