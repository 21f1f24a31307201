"""How much each hyperparameter mattered: Optuna's two measures of it, and what chance alone would give."""

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.errors import ConfigError
from hpjax.report.page.axes import DrawnAxis
from hpjax.report.page.source import PageSource
from hpjax.report.page.table import short
from hpjax.report.style import spell
from hpjax.search.samplers import create_distribution

if TYPE_CHECKING:
    import optuna

LEAST = 20  # settings: fewer say more about chance than about hyperparameters
MOST, MOST_IN_TREES = 1_000, 150  # settings that are looked at: trees take seconds beyond that
BEST_SHARE, LEAST_BEST = 0.1, 5  # which settings PED-ANOVA calls good ones
TREES, DEPTH = 16, 8
SHUFFLES = 10  # of the scores: what they give is chance

Setting = tuple[dict[str, Any], float]


def create_importance(source: PageSource, axes: Sequence[DrawnAxis]) -> list[dict[str, Any]]:
    """Returns the figure of importances; none where few settings ran to the end, or but one axis varied."""
    if len(axes) < 2 or source.copies or len(settings := _list_settings(source, axes)) < LEAST:
        return []
    taken = _thin(settings, MOST)
    study, scores = _create_study(source, axes, taken), [score for _, score in taken]
    found = _measure(source, axes, study, scores)
    if (total := sum(found.values())) <= 0:
        return []
    chance = _measure_chance(source, axes, study, scores)
    trees = _measure_in_trees(source, axes, _thin(settings, MOST_IN_TREES)) if source.finished else {}
    order = sorted((axis.name for axis in axes), key=lambda name: -found[name])
    rows = [
        {
            "name": spell(name),
            "ped": short(found[name] / total),
            "chance": short(chance[name] / total),
            "fanova": short(trees.get(name)),
        }
        for name in order
    ]
    clear = [row["name"] for row in rows if row["ped"] > 1.5 * row["chance"]]
    title = "Importance of each hyperparameter"
    alt = f"{title} for being among the best {_best_share(len(taken)):.0%} of settings (PED-ANOVA): "
    alt += ", ".join(f"{row['name']} {row['ped']:.0%}" for row in rows)
    alt += f". More than chance: {', '.join(clear) or 'none'}."
    figure = {"id": "importance", "kind": "importance", "title": title, "alt": alt, "rows": rows}
    return [{**figure, "order": order, "note": _describe(len(settings), len(taken), bool(trees), clear)}]


def _describe(settings: int, taken: int, trees: bool, clear: Sequence[str]) -> str:
    note = f"Of {settings:,} settings that ran to the end"
    note += f", {taken:,} of them sampled" if taken < settings else ""
    note += ". PED-ANOVA: what tells the best from the others. "
    if trees:
        note += "fANOVA: what explains the spread of all scores"
        note += f", of {MOST_IN_TREES} settings. " if settings > MOST_IN_TREES else ". "
    else:
        note += "fANOVA follows when the sweep is done. "
    note += "A bar that doesn't reach past its mark is what shuffled scores give, too."
    return note if clear else note + " None does: these scores don't say which hyperparameter matters."


def _list_settings(source: PageSource, axes: Sequence[DrawnAxis]) -> list[Setting]:
    """Returns the settings that ran to the end with their mean scores; what they are is within the space."""
    scores: dict[int, list[float]] = defaultdict(list)
    values: dict[int, dict[str, Any]] = {}
    for trial in source.ranked:
        if trial.status == "complete":
            held = {
                axis.name: trial.hyperparameters[axis.name]
                for axis in axes
                if axis.name in trial.hyperparameters
            }
            if all(_is_allowed(axis, held) for axis in axes):
                scores[trial.setting].append(source.ranking.value(trial) or 0.0)
                values[trial.setting] = held
    return [(values[setting], float(np.mean(found))) for setting, found in scores.items()]


def _is_allowed(axis: DrawnAxis, held: dict[str, Any]) -> bool:
    if axis.name not in held:
        return bool(axis.axis.when)
    try:
        axis.axis.check(axis.name, held[axis.name])
    except (ConfigError, TypeError):  # as of a run beyond the space, which `sweep.enqueue` allows
        return False
    return True


def _thin(settings: Sequence[Setting], most: int) -> list[Setting]:
    if len(settings) <= most:
        return list(settings)
    return [settings[int(i)] for i in np.linspace(0, len(settings) - 1, most).round()]


def _best_share(settings: int) -> float:
    return max(BEST_SHARE, LEAST_BEST / settings)


def _measure(
    source: PageSource, axes: Sequence[DrawnAxis], study: "optuna.Study", scores: Sequence[float]
) -> dict[str, float]:
    """Returns each hyperparameter's part in which settings are among the best, not normalised."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    sign = 1.0 if source.less_is_better else -1.0  # with a target of its own, less is better
    with _quiet():
        evaluator = PedAnovaImportanceEvaluator(target_quantile=_best_share(len(scores)))
        target = {"target": lambda trial: sign * scores[trial.number], "normalize": False}
        found = get_param_importances(study, evaluator=evaluator, **target)
    return {axis.name: max(0.0, float(found.get(axis.name, 0.0))) for axis in axes}


def _measure_chance(
    source: PageSource, axes: Sequence[DrawnAxis], study: "optuna.Study", scores: Sequence[float]
) -> dict[str, float]:
    """Returns the most that each hyperparameter gets where scores are shuffled."""
    rng = np.random.default_rng(0)
    rounds = [_measure(source, axes, study, rng.permutation(scores).tolist()) for _ in range(SHUFFLES)]
    return {axis.name: max(found[axis.name] for found in rounds) for axis in axes}


def _measure_in_trees(
    source: PageSource, axes: Sequence[DrawnAxis], settings: Sequence[Setting]
) -> dict[str, float]:
    """Returns each hyperparameter's part in a forest's variance; of those that every setting has."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len({score for _, score in settings}) < 2:
        return {}
    study = _create_study(source, axes, settings)
    with _quiet():
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=0)
        found = get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def _create_study(
    source: PageSource, axes: Sequence[DrawnAxis], settings: Sequence[Setting]
) -> "optuna.Study":
    import optuna

    known = {axis.name: create_distribution(axis.axis) for axis in axes}
    with _quiet():
        study = optuna.create_study(direction="minimize" if source.less_is_better else "maximize")
        trials = [
            optuna.trial.create_trial(params=held, distributions={n: known[n] for n in held}, value=score)
            for held, score in settings
        ]
        study.add_trials(trials)
    return study


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Optuna says of parts that it calls experimental from the user's terminal."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
