"""Optuna's samplers and pruners, by the names that a configuration uses."""

import contextlib
import functools
import importlib.util
import inspect
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.config.checks import unknown_field
from hpjax.config.fields import SweepConfig
from hpjax.errors import ConfigError, HpjaxError, text_of
from hpjax.search.axis import Axis

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("hpjax")

UNLEARNED = ("grid", "random", "qmc")  # they ask the same whatever came of the settings that they gave
LEARNED_ATTEMPTS = 8  # of a sampler that learns, to name a setting that is allowed
_NEEDS = {"gp": "torch", "cmaes": "cmaes"}
_INSTALL = {"torch": "pip install -e '.[torch]'", "cmaes": "pip install cmaes"}
_MOST_RUNGS = 30  # to the power of which a pruner takes its reduction factor


@contextlib.contextmanager
def relaying_warnings() -> Iterator[None]:
    """Says what Optuna warns of in a line each, once; that a part of it is experimental is no news."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = text_of(warning.message)
        known = isinstance(warning.message, ExperimentalWarning) or "not divisible by `step`" in text
        if (
            issubclass(warning.category, UserWarning) and not known
        ):  # that of the step is ours: `check_config`
            _relay(text)


@functools.cache
def _relay(text: str) -> None:
    log.warning("Optuna: %s", text)


LEAST_SOURCES = 10  # complete trials that CMA-ES begins from: it looks at the best tenth of them


def create_sampler(
    sweep: SweepConfig,
    seed: int,
    number: int,
    attempt: int = 0,
    known: "Sequence[optuna.trial.FrozenTrial]" = (),
    told: "Sequence[optuna.trial.FrozenTrial]" = (),
) -> "optuna.samplers.BaseSampler":
    """Returns a sampler that depends on nothing but its arguments and the study's past.

    Args:
      sweep: names the sampler, which `check_sampler` has let pass.
      seed: the sweep's.
      number: of the setting that is asked for; each ask has a sampler of its own, so that a resumed study
        asks what the uninterrupted one would have asked.
      attempt: how often it was asked for before; one that learns is replaced by chance in the end.
      known: trials of other studies, for a sampler that doesn't look for them in the study.
      told: all trials of the study, by which that sampler decides what it moves.
    """
    from optuna import samplers

    drawn = (seed, number, attempt) if attempt else (seed, number)
    own = int(np.random.SeedSequence(drawn).generate_state(1)[0])
    random = samplers.RandomSampler(seed=own)
    if attempt >= LEARNED_ATTEMPTS and sweep.sampler not in UNLEARNED:
        return random
    if sweep.sampler == "qmc":
        # Its position in the sequence is kept in the study; only the scrambling is seeded, once for all.
        return samplers.QMCSampler(
            qmc_type="halton",
            scramble=True,
            seed=seed,
            independent_sampler=random,
            warn_independent_sampling=False,
        )
    if sweep.sampler == "tpe":
        return samplers.TPESampler(
            seed=own, constant_liar=True, multivariate=True, group=True, n_startup_trials=10
        )
    if sweep.sampler == "gp":
        return samplers.GPSampler(seed=own, independent_sampler=random)
    if sweep.sampler == "cmaes":
        seed = own if attempt else seed
        return samplers.CmaEsSampler(
            seed=seed,
            independent_sampler=random,
            warn_independent_sampling=False,
            source_trials=_list_sources(known, told),
        )
    return random


def _list_sources(
    known: "Sequence[optuna.trial.FrozenTrial]", told: "Sequence[optuna.trial.FrozenTrial]"
) -> "list[optuna.trial.FrozenTrial] | None":
    """Returns complete trials with nothing but what CMA-ES moves: numbers that all in the study have."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    complete = [trial for trial in known if trial.state == TrialState.COMPLETE]
    numbers = {
        name: kind
        for name, kind in (complete[0].distributions.items() if complete else ())
        if all(name in trial.params for trial in (*complete, *told) if trial.state == TrialState.COMPLETE)
        and not isinstance(kind, CategoricalDistribution)
        and not kind.single()
    }
    if not numbers:
        return None
    return [
        create_trial(
            value=trial.value, params={name: trial.params[name] for name in numbers}, distributions=numbers
        )
        for trial in complete
    ]


def create_fixed_sampler(setting: dict[str, Any], other: "optuna.samplers.BaseSampler") -> Any:
    """Returns a sampler that answers with `setting`, and asks `other` for what isn't in it."""
    from optuna.samplers import BaseSampler

    class Fixed(BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            if param_name in setting:
                return setting[param_name]
            return other.sample_independent(study, trial, param_name, param_distribution)

    return Fixed()


def create_distribution(axis: Axis) -> "optuna.distributions.BaseDistribution":
    """Returns an axis as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if isinstance(axis.low, int):
        return IntDistribution(axis.low, int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def suggest(trial: "optuna.Trial", axis: Axis) -> None:
    """Asks for the value of an axis that not all trials have."""
    if axis.choices:
        trial.suggest_categorical(axis.name, axis.choices)
    elif isinstance(axis.low, int):
        trial.suggest_int(axis.name, axis.low, int(axis.high), log=axis.log, step=int(axis.step or 1))
    else:
        trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log, step=axis.step)


def check_sampler(sweep: SweepConfig) -> None:
    """Raises HpjaxError where a package that the sampler needs is missing."""
    if sweep.sampler in _NEEDS:
        _require(_NEEDS[sweep.sampler], sweep.sampler)


def check_pruner(sweep: SweepConfig) -> None:
    """Raises ConfigError where an option of the pruner is unknown or not allowed."""
    pruner = create_pruner(sweep)
    if pruner is None and sweep.pruner_options:
        log.warning("sweep.pruner_options have no effect: sweep.pruner is none")
    if pruner is not None:
        with _explaining(sweep):
            _rehearse(pruner)


def create_pruner(sweep: SweepConfig) -> "optuna.pruners.BasePruner | None":
    """Returns the pruner with `sweep.pruner_options` as its arguments, or None.

    Raises:
      ConfigError: An option is unknown or, as far as Optuna looks at it now, not allowed.
    """
    if sweep.pruner == "none":
        return None
    key, given = "sweep.pruner_options", dict(sweep.pruner_options)
    kind, fixed, defaults = _pruner_kind(sweep.pruner)
    known = [name for name in inspect.signature(kind).parameters if name not in fixed]
    for name in given:
        if name not in known:
            raise _unknown_option(sweep, name, known)
    if not 0 <= _number(given.get("min_early_stopping_rate", 0)) <= _MOST_RUNGS:
        raise ConfigError(key, given, f"min_early_stopping_rate from 0 to {_MOST_RUNGS}")
    with _explaining(sweep):
        return kind(**fixed, **{**defaults, **given})


def _unknown_option(sweep: SweepConfig, name: str, known: list[str]) -> ConfigError:
    """Returns the error for an option of another pruner: one that a config file may have had in mind."""
    error = unknown_field("sweep.pruner_options", name, sweep.pruner_options[name], known)
    allowed = f"{error.allowed}, since sweep.pruner is {sweep.pruner}; the config's options may be another's"
    return ConfigError(error.key, error.value, allowed)


def _pruner_kind(name: str) -> tuple[type, dict[str, Any], dict[str, Any]]:
    """Returns Optuna's class, the arguments that aren't a user's to give, and defaults of hpjax's own."""
    from optuna import pruners

    return {
        "median": (pruners.MedianPruner, {}, {}),
        "successive_halving": (
            pruners.SuccessiveHalvingPruner,
            {},
            {"min_resource": 1, "reduction_factor": 4},
        ),
        "hyperband": (pruners.HyperbandPruner, {}, {}),
        "wilcoxon": (pruners.WilcoxonPruner, {}, {}),
        "threshold": (pruners.ThresholdPruner, {}, {}),
        "patient": (pruners.PatientPruner, {"wrapped_pruner": None}, {"patience": 3}),
    }[name]


def _rehearse(pruner: "optuna.pruners.BasePruner", trials: int = 7, epochs: int = 16) -> None:
    """Lets a pruner judge a small study in memory, so that it doesn't fail in the middle of a sweep."""
    import optuna

    study = optuna.create_study(pruner=pruner, study_name="rehearsal")
    for number in range(trials):
        trial = study.ask()
        for epoch in range(1, epochs + 1):
            trial.report(number + epoch, epoch)
            trial.should_prune()
        study.tell(trial, number)


@contextlib.contextmanager
def _explaining(sweep: SweepConfig) -> Iterator[None]:
    """Says what Optuna refuses; silences it else: that a class is experimental is no news for users."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # some options are checked when they are given, some at first use
        allowed = f"options of {sweep.pruner}: {error}"
        raise ConfigError("sweep.pruner_options", dict(sweep.pruner_options), allowed) from None


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else math.nan


def _require(package: str, sampler: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise HpjaxError(f"sweep.sampler={sampler!r} needs the package {package}: {_INSTALL[package]}")
