"""Text of a sweep's tables: CSV that reads back to the same numbers, and the summary."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from hpjax.errors import one_line
from hpjax.store.ranking import Ranking
from hpjax.store.rows import (
    MORE,
    OBJECTIVE,
    STATUSES,
    CopyRow,
    EpochRow,
    TrialRow,
    Value,
    named_value,
    to_columns,
)
from hpjax.store.settings import SettingRow

ALWAYS = ("learning_rate", "weight_decay")
_FIRST = ("trial", "status", "seed")
_FORMULA_STARTS = ("=", "+", "-", "@")
_NOT_COLUMNS = ("hyperparameters", "initial", "minimize", MORE)


def format_trials(
    trials: Sequence[TrialRow], hyperparameters: Sequence[str], copies: Sequence[CopyRow] = ()
) -> str:
    """Returns `trials.csv`: a row per trial; validation columns only where something was validated.

    Columns of an objective are there only for a metric of the user's own.

    A hyperparameter whose name is already a column (`epochs`) stands under `set_<name>`; `seed` is the seed.
    After copies (PBT), what a trial started with stands under `initial_<name>`.
    """
    names = list(dict.fromkeys([*hyperparameters, *ALWAYS]))
    names = [name for name in names if name != "seed"]
    results = [name for name in _used_columns(trials, TrialRow) if name not in (*_FIRST, *_NOT_COLUMNS)]
    changed = [name for name in names if any(name in copy.hyperparameters for copy in copies)]
    header = [*_FIRST, *(f"set_{name}" if name in results else name for name in names), *results]
    header += [f"initial_{name}" for name in changed]
    rows = (
        [*(getattr(trial, name) for name in _FIRST)]
        + [named_value(trial.hyperparameters, name) for name in names]
        + [getattr(trial, name) for name in results]
        + [trial.initial.get(name) for name in changed]
        for trial in trials
    )
    return _format_csv(header, rows)


def format_epochs(
    epochs: Sequence[EpochRow], trials: Sequence[TrialRow] = (), copies: Sequence[CopyRow] = ()
) -> str:
    """Returns `epochs.csv`: a row per trial and epoch; validation columns only where they hold something.

    After copies (PBT) it also holds the hyperparameters with which each epoch was trained.
    """
    header = _used_columns(epochs, EpochRow)
    names = list(dict.fromkeys(name for row in copies for name in row.hyperparameters))
    in_force = _hyperparameters_by_epoch(trials, copies) if copies else {}
    rows = (
        [getattr(row, name) for name in header] + [in_force[row.trial, row.epoch].get(name) for name in names]
        for row in epochs
    )
    return _format_csv([*header, *names], rows)


def _hyperparameters_by_epoch(
    trials: Sequence[TrialRow], copies: Sequence[CopyRow]
) -> dict[tuple[int, int], dict[str, Value]]:
    changes = {(row.trial, row.epoch + 1): row.hyperparameters for row in copies}
    found = {}
    for trial in trials:
        values = dict(trial.initial)
        for epoch in range(1, trial.epochs + 1):
            values = {**values, **changes.get((trial.trial, epoch), {})}
            found[trial.trial, epoch] = values
    return found


def format_copies(copies: Sequence[CopyRow]) -> str:
    """Returns `lineage.csv`: a row per copy of one trial's state to another."""
    names = list(dict.fromkeys(name for row in copies for name in row.hyperparameters))
    rows = ([row.trial, row.epoch, row.source, *map(row.hyperparameters.get, names)] for row in copies)
    return _format_csv(["trial", "epoch", "source", *names], rows)


def format_settings(
    settings: Sequence[SettingRow], ranking: Ranking, hyperparameters: Sequence[str] = ()
) -> str:
    """Returns `settings.csv`: a row per setting, with means and 95 % confidence intervals over its seeds.

    `ranked_by` names the column of trials whose mean makes the winner; n, noise_p and could_win are of it.
    """
    names = [name for name in dict.fromkeys([*hyperparameters, *ALWAYS]) if name != "seed"]
    metric = ranking.metric
    columns = {"final": f"final_{metric}", "best": f"best_{metric}", "test_accuracy": "final_test_accuracy"}
    columns |= {name: f"final_{name}" for row in settings for name in row.tested}
    used = {
        name: columns[name]
        for name in columns
        if any(row.estimates()[name] for row in settings)
        and not (name == "test_accuracy" and metric == "test_accuracy")
    }
    parts = ("mean", "sd", "low", "high")
    header = ["setting", "winner", *names, "seeds", "lost", "n", "ranked_by"]
    header += [f"{column}_{part}" for column in used.values() for part in parts]
    rows = []
    for row in settings:
        found, measured = row.estimates(), row.ranked(ranking)
        cells = [row.setting, _yes(row.winner)]
        cells += [named_value(row.hyperparameters, name) for name in names]
        cells += [len(row.trials), row.lost, measured.n if measured else 0, ranking.column]
        cells += [getattr(found[name], part, None) for name in used for part in parts]
        rows.append((*cells, row.noise_p, row.test, _yes(row.could_win)))
    return _format_csv([*header, "noise_p", "test", "could_win"], rows)


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def summarize(trials: Sequence[TrialRow], ranking: Ranking) -> dict[str, object]:
    """Returns the summary's entries: how many trials of each status, and which ranks first, by what."""
    counts = Counter(trial.status for trial in trials)
    best = ranking.find_best(trials)
    return {
        "trials": {"total": len(trials), **{status: counts[status] for status in STATUSES if counts[status]}},
        "trial_epochs": sum(trial.epochs for trial in trials),
        "metric": ranking.metric,
        "select": ranking.select,
        "best": best and to_columns(best),
    }


def finite(value: object) -> object:
    """Returns JSON values with NaN and infinities as null: strict readers refuse them."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _used_columns(rows: Sequence[TrialRow] | Sequence[EpochRow], kind: type) -> list[str]:
    names = [field.name for field in fields(kind) if field.name != MORE]
    optional = ("validation", "images_per_second", OBJECTIVE)
    if any(row.more or _measured_no_accuracy(row) for row in rows):
        optional += ("accuracy",)  # of a task without classes
    more = dict.fromkeys(name for row in rows for name in row.more)
    return [
        name
        for name in names
        if not any(part in name for part in optional) or any(getattr(row, name) is not None for row in rows)
    ] + [name for name in more if any(getattr(row, name) is not None for row in rows)]


def _measured_no_accuracy(row: TrialRow | EpochRow) -> bool:
    columns = to_columns(row)
    losses = [value for name, value in columns.items() if name.endswith("test_loss")]
    return any(v is not None for v in losses) and all(
        value is None for name, value in columns.items() if name.endswith("accuracy")
    )


def _format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_format_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _format_cell(value: Value | object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)  # the shortest text that reads back to the same number
    return format_text(value) if isinstance(value, str) else json.dumps(value)


def format_text(text: str) -> str:
    """Returns a name or message as one line; behind an apostrophe where a spreadsheet would compute it."""
    line = one_line(text)
    return f"'{line}" if line.lstrip()[:1] in _FORMULA_STARTS and line.strip() else line
