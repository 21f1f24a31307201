"""Curves per epoch for the page: of many settings those that matter, thinned to what a screen can show."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpjax.report.curves import ENDS, Curve, create_curves
from hpjax.report.figures import METRICS
from hpjax.report.page.source import PageSource
from hpjax.report.page.table import short
from hpjax.report.style import is_number, spell
from hpjax.store.rows import OBJECTIVE
from hpjax.tasks import name_of, prefers_small

MOST_CURVES = 150  # of one figure
MOST_POINTS = 60  # of one curve
_WIDE = 50  # losses spread over more than this factor get a log scale
# The article's three first.
ORDER = ("train_loss", "test_loss", "test_accuracy", "validation_loss", "validation_accuracy",
         "train_accuracy", OBJECTIVE)  # fmt: skip
ORDER += tuple(name for name in METRICS if name not in ORDER)  # of other tasks than image classes


def create_series(source: PageSource) -> list[dict[str, Any]]:
    """Returns a figure of curves for each metric that was measured per epoch, as JSON values."""
    ranked, setting_of = rank_settings(source), {trial.trial: trial.setting for trial in source.trials}
    figures = []
    for metric in ORDER:
        measured = {setting_of[row.trial] for row in source.epochs if _is_finite(getattr(row, metric))}
        if measured:
            drawn = [setting for setting in ranked if setting in measured]
            figures.append(_create_figure(source, metric, choose(drawn), len(drawn)))
    return figures


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _create_curves(source: PageSource, metric: str, settings: Sequence[int]) -> list[Curve]:
    """Returns the curves of some settings alone, in their order: of very many most aren't drawn."""
    places = {setting: place for place, setting in enumerate(settings)}
    trials = [trial for trial in source.trials if trial.setting in places]
    numbers = {trial.trial for trial in trials}
    rows = [row for row in source.epochs if row.trial in numbers]
    curves = create_curves(rows, trials, source.labels, source.swept, metric, source.ranking.select)
    return sorted(curves, key=lambda curve: places[curve.setting])


def _create_figure(source: PageSource, metric: str, settings: Sequence[int], of: int) -> dict[str, Any]:
    title, unit, _ = METRICS[metric]
    if metric == OBJECTIVE:
        name = spell(str(source.summary.get("objective", "")).rpartition(":")[2])
        title = f"{name[:1].upper()}{name[1:]}"
    winner = source.winner.setting if source.winner else None
    less = source.less_is_better if metric == OBJECTIVE else prefers_small(metric)
    chosen = _create_curves(source, metric, settings)
    values = [value for curve in chosen for value in curve.mean]
    return {
        "metric": metric,
        "title": f"{title} per epoch",
        "axis": f"{title.lower()} ({unit})",
        "log": metric.endswith("loss") and 0 < min(values) < max(values) / _WIDE,
        "guess": _guess(source) if name_of(metric) == "accuracy" else None,
        "images": source.images_of(metric),
        "of": of,
        "lines": [_create_line(curve, curve.setting == winner) for curve in chosen],
        "scale": _find_scale(source, chosen),
        "alt": _describe(chosen, title, less, of),
    }


def rank_settings(source: PageSource) -> list[int]:
    """Returns all settings by their rank, which is the same in every figure.

    Those that ended early come after those that ran to the end, but for the winner.
    """
    winner = source.winner and source.winner.setting
    whole = {trial.setting for trial in source.trials if trial.status not in ENDS}

    def rank(setting: int) -> tuple[bool, bool, float, int]:
        return setting != winner, setting not in whole, source.scores.get(setting, math.inf), setting

    return sorted({trial.setting for trial in source.trials}, key=rank)


def choose(settings: Sequence[int]) -> list[int]:
    """Returns settings that are ranked; of very many the best, and some of every rank."""
    if len(settings) <= MOST_CURVES:
        return list(settings)
    head = MOST_CURVES // 3
    rest = np.linspace(head, len(settings) - 1, MOST_CURVES - head).round().astype(int)
    return [*settings[:head], *(settings[i] for i in rest)]


def _create_line(curve: Curve, wins: bool) -> dict[str, Any]:
    kept = _keep(len(curve.epochs))
    line: dict[str, Any] = {
        "label": curve.label,
        "setting": curve.setting,
        "x": [curve.epochs[i] for i in kept],
        "y": [short(curve.mean[i]) for i in kept],
        "result": short(curve.result),
        "wins": wins,
        "seeds": curve.seeds,
        "note": curve.note,
        "ended": curve.ended,
    }
    if curve.seeds > 1:
        line |= {"low": [short(curve.low[i]) for i in kept], "high": [short(curve.high[i]) for i in kept]}
    return line


def _keep(count: int) -> Sequence[int]:
    if count <= MOST_POINTS:
        return range(count)
    return [int(i) for i in np.linspace(0, count - 1, MOST_POINTS).round()]


def _guess(source: PageSource) -> float | None:
    classes = len(source.summary.get("data", {}).get("classes", ()))
    return short(1 / classes) if classes > 1 else None


def _find_scale(source: PageSource, curves: Sequence[Curve]) -> dict[str, Any] | None:
    """Returns each line's place on a scale of colours, where one numeric hyperparameter was searched."""
    names = source.swept
    if len(names) != 1 or not all(is_number(curve.values[names[0]]) for curve in curves):
        return None
    values = [float(curve.values[names[0]]) for curve in curves]  # pyright: ignore[reportArgumentType]
    if len(set(values)) < 2:
        return None
    log = source.axes[0].log or (min(values) > 0 and max(values) >= 30 * min(values))
    places = [math.log(v) if log else v for v in values]
    low, span = min(places), max(places) - min(places)
    return {"name": spell(names[0]), "places": [short((place - low) / span) for place in places]}


def _describe(curves: Sequence[Curve], title: str, less: bool, of: int) -> str:
    """Returns the figure in words."""
    ended = [curve for curve in curves if curve.result is not None]
    text = f"{title} over up to {max(curve.epochs[-1] for curve in curves)} epochs for {of} "
    text += "setting" if of == 1 else "settings"
    if not ended:
        return f"{text}."
    best = (min if less else max)(ended, key=lambda curve: curve.result or 0.0)
    word = "Lowest" if less else "Highest"
    return f"{text}. {word}: {best.label} with {best.result:.4g}."
