"""What came out of a sweep, in one line."""

from collections.abc import Mapping, Sequence
from typing import Any

from hpjax.report.curves import ENDS, label_setting
from hpjax.report.progress import format_seconds
from hpjax.report.style import spell
from hpjax.store.ranking import Ranking
from hpjax.store.rows import OBJECTIVE, TrialRow
from hpjax.store.settings import SettingRow
from hpjax.tasks import LOSS, name_of

MOST_STANDINGS = 5


def describe_outcome(best: TrialRow | None, summary: Mapping[str, Any]) -> str:
    """Returns what won, how well it did, how many trials ended early, and how busy lanes were, in a line.

    Args:
      best: the trial that the metric ranks first; None if none ended well.
      summary: the content of `summary.json`; where settings were run with several seeds, its winner's mean
        is said.
    """
    if best is None:
        lost = _describe_losses(summary.get("trials", {}))
        return "best: none, no trial ended well" + (f" ({lost})" if lost else "")
    busy = summary.get("utilisation")
    winner = summary.get("winner")
    parts = _describe_winner(winner, summary) if winner else _describe_trial(best, summary)
    parts += [_describe_test(best, winner, summary["metric"]), _describe_speed(summary.get("layouts", ()))]
    parts += [_describe_losses(summary.get("trials", {}))]
    parts += ["" if busy is None else f"lanes {100 * busy:.0f} % busy"]
    return ", ".join(part for part in parts if part)


def describe_standings(
    settings: Sequence[SettingRow], trials: Sequence[TrialRow], summary: Mapping[str, Any]
) -> list[str]:
    """Returns the best settings, a line each under a line of what ranks them; nothing where there is but one.

    Args:
      settings: all of them.
      trials: all of them.
      summary: the content of `summary.json`.
    """
    ranking = Ranking(summary["metric"], summary["select"])
    sign = 1 if any(trial.prefers_small(ranking.metric) for trial in trials) else -1
    ranked = [(row.lost > 0, sign * found.mean, row.setting, row, found)
              for row in settings if (found := row.ranked(ranking))]  # fmt: skip
    if len(ranked) < 2:
        return []
    lines = [f"the best of {len(settings)} settings, by {_name_metric(summary)}:"]
    for place, (*_, row, found) in enumerate(sorted(ranked, key=lambda r: r[:3])[:MOST_STANDINGS], 1):
        reach = "" if found.high is None else f" ± {found.high - found.mean:.2g}"
        label = label_setting(row.hyperparameters, summary.get("swept", ())) or f"trial {row.setting}"
        lines.append(f"  {place}.  {found.mean:.4g}{reach}  {label}")
    idle = summary.get("without_effect")
    idle = idle.items() if isinstance(idle, dict) else ()
    return lines + [f"  {name} has no effect, its values are equally good: {why}" for name, why in idle]


def describe_time(summary: Mapping[str, Any]) -> str:
    """Returns how long a sweep took, and how long its plan said; nothing where that wasn't noted."""
    took, planned = summary.get("wall_seconds"), summary.get("planned_seconds")
    if not isinstance(took, float):
        return ""
    text = format_seconds(took)
    if not isinstance(planned, float):
        return text
    most = "at most " if summary.get("fewer_epochs") else ""
    return f"{text}; its plan said {most}{format_seconds(planned)}"


def _describe_test(best: TrialRow, winner: Mapping[str, Any] | None, metric: str) -> str:
    """Returns what the one read of the test set gave; nothing where the test set selected."""
    if metric.startswith("test_"):
        return ""
    found = winner or {"test_accuracy": best.final_test_accuracy}
    usual = "test_accuracy" if found.get("test_accuracy") is not None else "test_loss"
    name = name_of(metric)
    column = usual if name in ("", LOSS) else f"test_{name}"
    if winner:
        mean = winner.get(column)
        return f"{spell(column)} {mean['mean']:.4g} over {mean['n']}" if mean else ""
    value = getattr(best, f"final_{column}", None)
    if value is None or best.final_test_loss is None:
        return ""
    told = f"{spell(column)} {value:.4g}, " if column != "test_loss" else ""
    return f"{told}test loss {best.final_test_loss:.4g}"


def _describe_speed(layouts: Sequence[Mapping[str, Any]]) -> str:
    """Returns how much faster lanes trained than one trial after the other, as measured for the plan."""
    known = [layout["speedup"] for layout in layouts if layout["speedup"]]
    if not known or max(known) < 1.05:
        return ""
    low, high = f"{min(known):.1f}", f"{max(known):.1f}"
    return f"{low if low == high else f'{low} to {high}'} times as fast as one by one"


def _describe_losses(counts: Mapping[str, int]) -> str:
    """Returns how many trials ended early, and why; nothing where none did."""
    early = [f"{counts[status]} {status}" for status in ENDS if counts.get(status)]
    return f"{' and '.join(early)} of {counts['total']} trials" if early else ""


def _describe_trial(best: TrialRow, summary: Mapping[str, Any]) -> list[str]:
    ranking = Ranking(summary["metric"], summary["select"])
    setting = label_setting(best.hyperparameters, summary.get("swept", ()))
    value, other = ranking.value(best), ranking.other.value(best)
    measured = "" if value is None else f"{_name_metric(summary)} {value:.4g}"
    measured += "" if other is None else f" ({ranking.other.select} {other:.4g})"
    return [f"best: trial {best.trial}", setting, measured]


def _describe_winner(winner: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    setting = label_setting(winner["hyperparameters"], summary.get("swept", ()))
    ranking = Ranking(summary["metric"], summary["select"])
    found, other = winner[ranking.select], winner[ranking.other.select]
    reach = "" if found["sd"] is None else f" ± {found['high'] - found['mean']:.2g}"
    beside = "" if other is None else f" ({ranking.other.select} {other['mean']:.4g})"
    mean = f"mean {_name_metric(summary)} {found['mean']:.4g}{reach}{beside} over {found['n']} seeds"
    noise = {None: "", True: "noise could explain its lead", False: "noise is unlikely to explain its lead"}
    return [f"best: {setting or 'the setting'}", mean, noise[winner["noise_could_explain"]]]


def _name_metric(summary: Mapping[str, Any]) -> str:
    """Returns what trials are ranked by, in words; the function's name where it is the user's own."""
    own = summary["objective"].rpartition(":")[2] if summary["metric"] == OBJECTIVE else ""
    return Ranking(summary["metric"], summary["select"]).describe(own)
