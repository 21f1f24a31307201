"""A sweep's result in a notebook: tables as pandas frames, figures as matplotlib's, and an answer in HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hpjax.errors import UsageError
from hpjax.report.curves import create_curves, label_trials
from hpjax.report.diagnosis import Finding
from hpjax.report.figures import METRICS, create_curves_figure
from hpjax.report.heading import create_info
from hpjax.store.rows import EpochRow, TrialRow, to_columns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def create_frame(rows: Sequence[TrialRow] | Sequence[EpochRow]) -> "pd.DataFrame":
    """Returns rows as a pandas frame; of trials with a column for each hyperparameter.

    A hyperparameter with the name of a column stands under `set_<name>`, as in `trials.csv`.

    Raises:
      UsageError: pandas isn't installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("frames need pandas: expected it to be installed (pip install pandas)") from None
    return pd.DataFrame([_flatten(row) for row in rows])


def _flatten(row: TrialRow | EpochRow) -> dict[str, Any]:
    columns = to_columns(row).items()
    values = {name: value for name, value in columns if name not in ("hyperparameters", "initial")}
    for name, value in getattr(row, "hyperparameters", {}).items():
        values[f"set_{name}" if name in values else name] = value
    return values


def create_figure_of(
    metric: str, config: Mapping[str, Any], summary: Mapping[str, Any], trials: Sequence[TrialRow],
    epochs: Sequence[EpochRow],
) -> "Figure":  # fmt: skip
    """Returns a metric's curves as a matplotlib figure, the one that a sweep saves under that name.

    Args:
      metric: a column of epochs, e.g. `test_accuracy`.
      config: the content of `config.json`.
      summary: the content of `summary.json`.
      trials: all rows.
      epochs: all rows.

    Raises:
      UsageError: There is no such figure, or nothing was measured that it could show.
    """
    measured = [name for name in METRICS if any(getattr(row, name) is not None for row in epochs)]
    if metric not in measured:
        known = ", ".join(measured) or "none, as nothing is measured yet"
        raise UsageError(f"figure {metric!r} is not there: expected one of {known}")
    info = create_info(config, summary, trials)
    labels = label_trials(trials, info.swept)
    curves = create_curves(epochs, trials, labels, info.swept, metric, info.ranking.select)
    if not any(curve.mean for curve in curves):
        raise UsageError(f"figure {metric!r} has nothing finite to show: expected another one")
    return create_curves_figure(curves, metric, info)


def describe_in_html(outcome: str, standings: Sequence[str], findings: Sequence[Finding]) -> str:
    """Returns a result as HTML: the outcome, the best settings, and what stands out."""
    ranks = "".join(f"{escape(line)}\n" for line in standings)
    shown = "".join(
        f"<li><b>{escape(finding.level)}:</b> {escape(finding.sentence)} <i>{escape(finding.advice)}</i></li>"
        for finding in findings
    )
    return (
        f"<div><p><b>{escape(outcome)}</b></p>"
        + (f"<pre>{ranks}</pre>" if ranks else "")
        + (f"<ul>{shown}</ul>" if shown else "")
        + "</div>"
    )
