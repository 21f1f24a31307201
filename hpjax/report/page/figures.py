"""Which figures the page has, what each one shows, and the same in words for those who can't see it."""

from collections.abc import Sequence
from typing import Any

from hpjax.report.page.axes import DrawnAxis, list_axes
from hpjax.report.page.importance import create_importance
from hpjax.report.page.judgement import create_foresight, create_spread
from hpjax.report.page.lanes import are_side_by_side, create_timeline
from hpjax.report.page.maps import create_maps, create_parallel
from hpjax.report.page.population import create_lineage
from hpjax.report.page.series import MOST_CURVES, create_series
from hpjax.report.page.source import PageSource
from hpjax.report.style import format_value, spell

MOST_DOTS = 3_000  # of one figure
MOST_PANELS = 8
LEAST_TRIALS = 40  # for a best one of each tenth of a range to say something


def create_figures(source: PageSource) -> dict[str, list[dict[str, Any]]]:
    """Returns the figures of each section that the rows give reason for, as JSON values.

    Each has an `id`, a `kind` (which function of `figures.js` or `search.js` draws it), a `title`, a `note`
    that says what isn't shown, and `alt`, its text alternative.
    """
    axes = list_axes(source)
    importance = create_importance(source, axes)
    by_name = {axis.name: axis for axis in axes}
    ordered = [by_name[name] for name in importance[0]["order"]] if importance else axes
    together = create_maps(source, ordered) + create_parallel(source, ordered)
    judgement = create_spread(source) + create_foresight(source)
    return {
        "curves": _curves(source),
        "response": importance + _responses(source, axes) + together,
        "search": _best_so_far(source) + _timeline(source) + judgement + create_lineage(source),
    }


def _curves(source: PageSource) -> list[dict[str, Any]]:
    figures = []
    for series in create_series(source):
        notes = []
        if series["of"] > MOST_CURVES:
            notes.append(
                f"{MOST_CURVES} of {series['of']:,} settings are drawn: the best and some of every rank."
            )
        if any(line["seeds"] > 1 for line in series["lines"]):
            notes.append("Lines are means over seeds, bands go from the lowest to the highest.")
        figures.append(
            {"id": f"curve-{series['metric']}", "kind": "curves", "note": " ".join(notes), **series}
        )
    return figures


def _responses(source: PageSource, axes: Sequence[DrawnAxis]) -> list[dict[str, Any]]:
    """Returns a figure per hyperparameter: what ranks trials against its value."""
    figures = []
    for axis in axes[:MOST_PANELS]:
        title = f"{source.ranked_by} against {spell(axis.name)}"
        best = format_value(source.best and axis.values.get(source.best.trial))
        line = _describe_line(source, len(axes), axis.listed)
        figures.append(
            {
                "id": f"response-{axis.name}",
                "kind": "response",
                "title": title[:1].upper() + title[1:],
                **axis.describe(),
                "line": not source.copies and bool(line),
                "note": _thinned(len(source.ranked)) + line,
                "alt": f"{title}, a dot for each of {len(source.ranked):,} trials. The best has "
                f"{spell(axis.name)} {best}.",
            }
        )
    if len(axes) > MOST_PANELS:
        figures[0]["note"] += f" The first {MOST_PANELS} of {len(axes)} hyperparameters are drawn."
    return figures


def _thinned(count: int) -> str:
    return f"{MOST_DOTS:,} of {count:,} trials are drawn, the best among them. " if count > MOST_DOTS else ""


def _describe_line(source: PageSource, axes: int, listed: bool) -> str:
    """Returns what the line through the best trials joins; nothing where too few trials were run for one."""
    if source.copies:
        return "Values are those that a trial ended with."
    if axes < 2 or (len(source.ranked) < LEAST_TRIALS and not listed):
        return ""
    return f"The line joins the best trial of each {'value' if listed else 'tenth of the range'}."


def _best_so_far(source: PageSource) -> list[dict[str, Any]]:
    lasts = {stay.trial: stay.end for stay in source.occupancy.stays}
    ended = [trial for trial in source.trials if trial.status != "running" and trial.epochs]
    ended.sort(key=lambda trial: (lasts.get(trial.trial, 0), trial.trial))
    if len(ended) < 3:
        return []
    sign = -1.0 if source.less_is_better else 1.0
    steps: list[list[Any]] = []
    best, seconds = None, 0.0
    for number, trial in enumerate(ended, 1):
        seconds += trial.amortised_seconds or 0.0
        value = source.ranking.value(trial)
        if value is not None and (best is None or sign * value > sign * best):
            best = value
            steps.append([number, float(f"{seconds:.5g}"), best, trial.trial])
    if not steps:
        return []
    found = steps[-1]
    last = {"trials": len(ended), "seconds": float(f"{seconds:.5g}")}
    alt = f"The best {source.ranked_by} so far, after each trial that ended: {found[2]:.4g} from the "
    alt += f"{found[0]:,}. of {len(ended):,} on (trial {found[3]})."
    title = "Best so far, over trials and over time"
    note = (
        "Seconds are what trials took of the device: those of epochs, divided by the lanes that shared them."
    )
    figure = {"id": "best", "kind": "best", "title": title, "note": note, "alt": alt}
    return [{**figure, "steps": steps, "last": last, "axis": source.ranked_by}]


def _timeline(source: PageSource) -> list[dict[str, Any]]:
    timeline = create_timeline(source)
    if timeline is None or len(source.trials) < 2:
        return []
    drawn = len(timeline["bars"]["trial"])
    order = "side by side" if are_side_by_side(source) else "one after the other"
    note = f"A lane takes the next trial when its own ends; groups of trials run {order}. "
    note += "Seconds are those of epochs, without compiling. "
    if drawn < timeline["of"]:
        note += f"The first {drawn:,} of {timeline['of']:,} trials are drawn."
    early = sum(trial.status in ("pruned", "diverged") for trial in source.trials)
    alt = f"Which trial was trained in which of {timeline['lanes']} lanes, over {timeline['seconds']:.4g} "
    alt += f"seconds: {timeline['of']:,} trials, of which {early:,} ended early."
    figure = {"id": "lanes", "kind": "lanes", "title": "Lanes over time", "note": note, "alt": alt}
    return [{**figure, **timeline}]
