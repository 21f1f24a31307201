"""What came out of a sweep, in one line."""

from collections.abc import Mapping
from typing import Any

from hpjax.report.curves import label_trials
from hpjax.report.style import spell
from hpjax.store.rows import TrialRow


def describe_outcome(best: TrialRow | None, summary: Mapping[str, Any]) -> str:
    """Returns the best trial, its setting, and how busy lanes were, in a line.

    Args:
      best: the trial that the metric ranks first; None if none ended well.
      summary: the content of `summary.json`.
    """
    if best is None:
        return "best: none, no trial ended well"
    metric = summary["metric"]
    setting = label_trials([best], summary.get("swept", ()))[best.trial]
    value = getattr(best, f"best_{metric}", None)
    value = getattr(best, f"final_{metric}", None) if value is None else value
    busy = summary.get("utilisation")
    parts = [
        f"best: trial {best.trial}",
        setting if setting != f"trial {best.trial}" else "",
        "" if value is None else f"{spell(metric)} {value:.4g}",
        "" if busy is None else f"lanes {100 * busy:.0f} % busy",
    ]
    return ", ".join(part for part in parts if part)
