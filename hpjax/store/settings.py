"""Settings: trials that differ in their seed alone, brought together, and whether noise explains a winner."""

import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hpjax.store.ranking import Ranking, rank_setting
from hpjax.store.rows import TrialRow, Value
from hpjax.tasks import METRICS, name_of

OTHERS = tuple(name for name in METRICS if name != "accuracy")
CONFIDENCE = 0.95  # of intervals
SIGNIFICANCE = 0.05  # below it, noise isn't held to explain the winner's lead
_FLOAT_NOISE = 1e-9  # losses and accuracies are of the order of one


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds, and how sure it is.

    Attributes:
      n: how many seeds it is the mean of.
      mean: over them.
      sd: the sample standard deviation; None for one seed.
      low: lower end of Student's 95 % confidence interval of the mean; None for one seed.
      high: its upper end.

    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting with the results of its seeds: a row of `settings.csv`.

    Attributes:
      setting: its number, that of its first trial.
      trials: all of its trials, by number.
      hyperparameters: by name.
      lost: trials that diverged; the estimates leave them out.
      final: of the metric after each trial's last epoch; None where nothing was measured.
      best: of the metric at each trial's best epoch.
      test_accuracy: on the test split.
      tested: what ranks trials on the validation split, on the test split, by column; of accuracies nothing.
      winner: whether it is the one that the metric selects.
      noise_p: how likely noise alone makes the winner lead by so much, by `test`; None where too few
        seeds can't tell, and for the winner.
      test: `paired t` where seed by seed the same examples came in the same order, else `Welch`.
      could_win: whether another draw of seeds could well put it first (p of at least 0.05).

    """

    setting: int
    trials: tuple[int, ...]
    hyperparameters: Mapping[str, Value]
    lost: int = 0
    final: Estimate | None = None
    best: Estimate | None = None
    test_accuracy: Estimate | None = None
    tested: Mapping[str, Estimate | None] = field(default_factory=dict)
    winner: bool = False
    noise_p: float | None = None
    test: str = ""
    could_win: bool | None = None

    def estimates(self) -> dict[str, Estimate | None]:
        """Returns all estimates by name."""
        return {"final": self.final, "best": self.best, "test_accuracy": self.test_accuracy, **self.tested}

    def ranked(self, ranking: Ranking) -> Estimate | None:
        """Returns the estimate that ranks the setting."""
        return self.final if ranking.select == "final" else self.best


def summarize_settings(trials: Iterable[TrialRow], ranking: Ranking) -> list[SettingRow]:
    """Returns every setting by number, compared with the winner.

    The winner has the best mean of the numbers that rank its trials, among settings that lost no seed if
    there are any. One that was run with more seeds than the others was selected before, and stays the
    winner. P-values are of those numbers, two-sided and not corrected for how many settings are compared.

    Args:
      trials: those of the sweep.
      ranking: what counts of each trial.
    """
    settings: dict[int, list[TrialRow]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.trial):
        settings[trial.setting].append(trial)
    winner = _find_winner(settings, ranking)
    best = () if winner is None else settings[winner]
    return [_create_row(settings[number], best, ranking) for number in sorted(settings)]


def find_winner(trials: Iterable[TrialRow], ranking: Ranking) -> SettingRow | None:
    """Returns the setting that wins; None if none was measured."""
    return next((row for row in summarize_settings(trials, ranking) if row.winner), None)


def describe_winner(rows: Sequence[SettingRow]) -> dict[str, object] | None:
    """Returns the winner for the summary: its estimate, and whether noise could explain that it leads."""
    winner = next((row for row in rows if row.winner), None)
    if winner is None:
        return None
    compared = [row for row in rows if row.noise_p is not None]
    rivals = [row.setting for row in compared if row.could_win]
    return {
        "setting": winner.setting,
        "hyperparameters": dict(winner.hyperparameters),
        "trials": list(winner.trials),
        **{name: value and asdict(value) for name, value in winner.estimates().items()},
        "noise_could_explain": bool(rivals) if compared else None,
        "rivals": rivals,
    }


def _find_winner(settings: Mapping[int, Sequence[TrialRow]], ranking: Ranking) -> int | None:
    ranked = []
    for number, trials in settings.items():
        sign = -1 if trials[0].prefers_small(ranking.metric) else 1
        scores = [sign * value for value in _values(trials, ranking.column).values()]
        rank = rank_setting(scores, any(trial.diverged for trial in trials), number)
        if rank is not None:
            ranked.append((-len(trials), rank))
    return min(ranked)[1][-1] if ranked else None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Returns mean, standard deviation and confidence interval; None of nothing."""
    if len(values) < 2:
        return Estimate(1, values[0]) if values else None
    from scipy import stats

    n, mean, sd = len(values), statistics.fmean(values), statistics.stdev(values)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - reach, mean + reach)


def _create_row(trials: Sequence[TrialRow], winner: Sequence[TrialRow], ranking: Ranking) -> SettingRow:
    wins = winner == trials
    name = name_of(ranking.metric)
    tested = [f"test_{name}"] if ranking.metric.startswith("validation_") and name in OTHERS else []
    noise_p, test = (None, "") if wins else _compare(trials, winner, ranking.column)
    return SettingRow(
        setting=trials[0].setting,
        trials=tuple(trial.trial for trial in trials),
        hyperparameters=trials[0].hyperparameters,
        lost=sum(trial.diverged for trial in trials),
        final=estimate(list(_values(trials, f"final_{ranking.metric}").values())),
        best=estimate(list(_values(trials, f"best_{ranking.metric}").values())),
        test_accuracy=estimate(list(_values(trials, "final_test_accuracy").values())),
        tested={name: estimate(list(_values(trials, f"final_{name}").values())) for name in tested},
        winner=wins,
        noise_p=noise_p,
        test=test,
        could_win=True if wins else None if noise_p is None else noise_p >= SIGNIFICANCE,
    )


def _compare(trials: Sequence[TrialRow], winner: Sequence[TrialRow], column: str) -> tuple[float | None, str]:
    """Returns the p-value of the difference to the winner, and the test's name."""
    ours, theirs = _values(trials, column), _values(winner, column)
    if len(ours) < 2 or len(theirs) < 2:
        return None, ""
    if _are_paired(trials, winner) and ours.keys() == theirs.keys():
        return _paired_p([ours[seed] - theirs[seed] for seed in ours]), "paired t"
    return _welch_p(list(ours.values()), list(theirs.values())), "Welch"


def _are_paired(a: Sequence[TrialRow], b: Sequence[TrialRow]) -> bool:
    """Returns whether equal seeds began in one program at the same epoch of its order of examples."""
    places = [{t.seed_index: (t.group, t.order_offset) for t in trials} for trials in (a, b)]
    return places[0] == places[1]


def _paired_p(differences: Sequence[float]) -> float:
    if _is_constant(differences):  # the t statistic is infinite, or 0 / 0
        return 1.0 if abs(differences[0]) < _FLOAT_NOISE else 0.0
    from scipy import stats

    result: Any = stats.ttest_1samp(differences, 0.0)
    return float(result.pvalue)


def _welch_p(a: Sequence[float], b: Sequence[float]) -> float:
    if _is_constant(a) and _is_constant(b):
        return 1.0 if abs(a[0] - b[0]) < _FLOAT_NOISE else 0.0
    from scipy import stats

    with warnings.catch_warnings():
        # scipy warns where the seeds of one setting agree to rounding, which the test allows for.
        warnings.simplefilter("ignore", RuntimeWarning)
        result: Any = stats.ttest_ind(a, b, equal_var=False)
    return float(result.pvalue)


def _is_constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) < _FLOAT_NOISE


def _values(trials: Sequence[TrialRow], column: str) -> dict[int, float]:
    """Returns a column's finite values by seed index, lost trials left out."""
    found = {t.seed_index: getattr(t, column) for t in trials if not t.diverged}
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}
