"""Optuna's samplers and pruners, by the names that a configuration uses."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.config import SweepConfig
from hpjax.errors import ConfigError, HpjaxError

if TYPE_CHECKING:
    import optuna


def create_sampler(sweep: SweepConfig, seed: int, number: int) -> "optuna.samplers.BaseSampler":
    """Returns a sampler that depends on nothing but its arguments and the study's past.

    Args:
      sweep: names the sampler.
      seed: the sweep's.
      number: of the trial that is asked for; each ask has a sampler of its own, so that a resumed study
        asks what the uninterrupted one would have asked.

    Raises:
      HpjaxError: A package that the sampler needs is missing.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    random = samplers.RandomSampler(seed=own)
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of `group`, there since Optuna 2.8
            return samplers.TPESampler(
                seed=own, constant_liar=True, multivariate=True, group=True, n_startup_trials=10
            )
    if sweep.sampler == "gp":
        _require("torch", "gp")
        return samplers.GPSampler(seed=own, independent_sampler=random)
    if sweep.sampler == "cmaes":
        _require("cmaes", "cmaes")
        return samplers.CmaEsSampler(seed=seed, independent_sampler=random, warn_independent_sampling=False)
    return random


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


def create_pruner(sweep: SweepConfig) -> "optuna.pruners.BasePruner | None":
    """Returns the pruner with `sweep.pruner_options` as its arguments, or None.

    Raises:
      ConfigError: An option is unknown or not allowed.
    """
    from optuna import pruners

    if sweep.pruner == "none":
        return None
    kinds = {
        "median": pruners.MedianPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
        "wilcoxon": pruners.WilcoxonPruner,
        "threshold": pruners.ThresholdPruner,
        "patient": pruners.PatientPruner,
    }
    options: dict[str, Any] = dict(sweep.pruner_options)
    if sweep.pruner == "patient":
        options = {"wrapped_pruner": None, "patience": 3, **options}
    if sweep.pruner == "successive_halving":
        options = {"min_resource": 1, "reduction_factor": 4, **options}
    try:
        return kinds[sweep.pruner](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "sweep.pruner_options", dict(sweep.pruner_options), f"{sweep.pruner}: {error}"
        ) from None


def _require(package: str, sampler: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise HpjaxError(f"sweep.sampler={sampler!r} needs the package {package}: pip install {package}")
