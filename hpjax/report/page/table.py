"""The table of trials as columns, with a small curve of each."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hpjax.errors import one_line
from hpjax.report.page.source import PageSource
from hpjax.report.style import format_value, is_number, spell
from hpjax.store.rows import EpochRow, TrialRow, named_value
from hpjax.tasks import METRICS

POINTS, FEWER_POINTS = 30, 10  # of a small curve; fewer where trials are many
MANY = 5_000
LEVELS = 99  # heights of a small curve
_LONGEST = 200  # characters of a message

_MEASURED = (
    ("final_train_loss", "final train loss"),
    ("final_validation_loss", "final validation loss"),
    ("final_validation_accuracy", "final validation accuracy"),
    ("best_validation_accuracy", "best validation accuracy"),
    ("final_test_loss", "final test loss"),
    ("final_test_accuracy", "final test accuracy"),
    ("best_test_accuracy", "best test accuracy"),
    *(
        (f"final_{split}_{name}", f"final {split} {metric.title}")
        for split in ("validation", "test")
        for name, metric in METRICS.items()
        if name != "accuracy"
    ),
)


def short(value: float | None) -> float | None:
    """Returns a number with the five digits that a page shows; None where it isn't finite."""
    if value is None or not -1e308 < value < 1e308:
        return None
    return float(f"{value:.5g}")


def create_table(source: PageSource) -> dict[str, Any]:
    """Returns the rows of all trials by column, as JSON values.

    `columns` are those that are shown: name, title, kind (`number`, `text`, `status` or `spark`), values.
    """
    trials = source.trials
    columns = [_column("trial", "trial", "number", [trial.trial for trial in trials])]
    columns.append(_column("status", "status", "status", [trial.status for trial in trials]))
    columns += [_swept_column(trials, name) for name in source.swept if name != "seed"]
    if len({trial.seed for trial in trials}) > 1:
        columns.append(_column("seed", "seed", "number", [trial.seed for trial in trials]))
    columns.append(_column("epochs", "epochs", "number", [trial.epochs for trial in trials]))
    scores = [source.ranking.value(trial) for trial in trials]
    columns.append(_column("score", source.ranked_by, "number", map(short, scores)))
    columns.append(_column("spark", f"{spell(source.ranking.metric)} per epoch", "spark", _sparks(source)))
    for name, title in _MEASURED:
        if name != source.ranking.column and any(getattr(trial, name) is not None for trial in trials):
            columns.append(_column(name, title, "number", (short(getattr(t, name)) for t in trials)))
    seconds = (short(trial.average_epoch_seconds) for trial in trials)
    columns.append(_column("seconds", "seconds per epoch", "number", seconds))
    columns.append(_column("share", "… amortised over the lanes", "number", map(_share, trials)))
    if any(trial.message for trial in trials):
        messages = [one_line(trial.message, _LONGEST) for trial in trials]
        columns.append(_column("message", "why it ended early", "text", messages))
    return {"count": len(trials), "columns": columns}


def _share(trial: TrialRow) -> float | None:
    """Returns a trial's own share of the seconds of an epoch."""
    return short(trial.amortised_seconds / trial.epochs) if trial.amortised_seconds and trial.epochs else None


def _column(name: str, title: str, kind: str, values: Iterable[Any]) -> dict[str, Any]:
    return {"name": name, "title": title, "kind": kind, "values": list(values)}


def _swept_column(trials: Sequence[TrialRow], name: str) -> dict[str, Any]:
    values = [named_value(trial.hyperparameters, name) for trial in trials]
    if all(value is None or is_number(value) for value in values):
        return _column(name, spell(name), "number", values)
    return _column(name, spell(name), "text", ["" if v is None else format_value(v) for v in values])


def _sparks(source: PageSource) -> list[list[int | None]]:
    """Returns each trial's values of what ranks it by epoch, as heights.

    Every trial's are on the same scale, so that small curves can be compared. Of losses that are spread
    widely the upper end is cut off.
    """
    rows: dict[int, list[EpochRow]] = defaultdict(list)
    for row in source.epochs:
        rows[row.trial].append(row)
    metric = source.ranking.metric
    most = FEWER_POINTS if len(source.trials) > MANY else POINTS
    curves = [_thin([getattr(row, metric) for row in rows[t.trial]], most) for t in source.trials]
    values = np.concatenate([*curves, np.zeros(0)])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return [[] for _ in curves]
    low, high = float(finite.min()), float(finite.max())
    if metric.endswith("loss"):
        high = min(high, float(np.quantile(finite, 0.95)) * 1.05)
    return [_heights(curve, low, max(high - low, 1e-12)) for curve in curves]


def _thin(values: Sequence[float | None], most: int) -> np.ndarray:
    found = np.array([np.nan if value is None else value for value in values], float)
    if len(found) <= most:
        return found
    return found[np.linspace(0, len(found) - 1, most).round().astype(int)]


def _heights(curve: np.ndarray, low: float, span: float) -> list[int | None]:
    places = np.clip((curve - low) / span, 0, 1) * LEVELS
    return [int(round(place)) if np.isfinite(place) else None for place in places]
