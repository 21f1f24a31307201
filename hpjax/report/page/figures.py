"""Which figures the page has, what each one shows, and the same in words for those who can't see it."""

from typing import Any

from hpjax.report.page.lanes import create_timeline
from hpjax.report.page.series import MOST_CURVES, create_series
from hpjax.report.page.source import PageSource
from hpjax.report.style import format_value, is_log_like, is_number, spell
from hpjax.store.rows import named_value

MOST_DOTS = 3_000  # of one figure
MOST_PANELS = 8
MOST_LISTED = 12  # values that are told apart; more are taken together
LEAST_TRIALS = 40  # for a best one of each tenth of a range to say something


def create_figures(source: PageSource) -> dict[str, list[dict[str, Any]]]:
    """Returns the figures of each section that the rows give reason for, as JSON values.

    Each has an `id`, a `kind` (which function of `figures.js` draws it), a `title`, a `note` that says what
    isn't shown, and `alt`, its text alternative.
    """
    sections = {"curves": _curves(source), "response": _responses(source)}
    sections |= {"best": _best_so_far(source), "lanes": _timeline(source)}
    return sections


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


def _responses(source: PageSource) -> list[dict[str, Any]]:
    """Returns a figure per hyperparameter: what ranks trials against its value."""
    ranked = [trial for trial in source.trials if source.ranking.value(trial) is not None]
    figures = []
    for axis in source.axes:
        found = [value for t in ranked if (value := named_value(t.hyperparameters, axis.name)) is not None]
        distinct = {value for value in found}
        if len(distinct) < 2:
            continue
        numeric = all(map(is_number, distinct))
        log = numeric and _is_logarithmic([float(value) for value in distinct], axis.log)
        listed = len(distinct) <= MOST_LISTED
        title = f"{source.ranked_by} against {spell(axis.name)}"
        best = format_value(source.best and named_value(source.best.hyperparameters, axis.name))
        figures.append(
            {
                "id": f"response-{axis.name}",
                "kind": "response",
                "title": title[:1].upper() + title[1:],
                "column": axis.name,
                "name": spell(axis.name),
                "numeric": numeric,
                "log": log,
                "listed": listed,
                "line": not source.copies and bool(_describe_line(source, listed, len(ranked))),
                "note": _thinned(len(ranked)) + _describe_line(source, listed, len(ranked)),
                "alt": f"{title}, a dot for each of {len(ranked):,} trials. The best has {spell(axis.name)} "
                f"{best}.",
            }
        )
    if len(figures) > MOST_PANELS:
        figures[0]["note"] += f" The first {MOST_PANELS} of {len(figures)} hyperparameters are drawn."
    return figures[:MOST_PANELS]


def _is_logarithmic(values: list[float], searched: bool) -> bool:
    return min(values) > 0 and (searched or is_log_like(values))


def _thinned(count: int) -> str:
    return f"{MOST_DOTS:,} of {count:,} trials are drawn, the best among them. " if count > MOST_DOTS else ""


def _describe_line(source: PageSource, listed: bool, trials: int) -> str:
    """Returns what the line through the best trials joins; nothing where too few trials were run for one."""
    if source.copies:
        return "Values are those that a trial ended with."
    if len(source.axes) < 2 or (trials < LEAST_TRIALS and not listed):
        return ""
    return f"The line joins the best trial of each {'value' if listed else 'tenth of the range'}."


def _best_so_far(source: PageSource) -> list[dict[str, Any]]:
    lasts = {stay.trial: stay.last for stay in source.occupancy.stays.values()}
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
    note = "A lane takes the next trial when its own ends; groups of trials run one after the other. "
    note += "Seconds are those of epochs, without compiling. "
    if drawn < timeline["of"]:
        note += f"The first {drawn:,} of {timeline['of']:,} trials are drawn."
    early = sum(trial.status in ("pruned", "diverged") for trial in source.trials)
    alt = f"Which trial was trained in which of {timeline['lanes']} lanes, over {timeline['seconds']:.4g} "
    alt += f"seconds: {timeline['of']:,} trials, of which {early:,} ended early."
    figure = {"id": "lanes", "kind": "lanes", "title": "Lanes over time", "note": note, "alt": alt}
    return [{**figure, **timeline}]
