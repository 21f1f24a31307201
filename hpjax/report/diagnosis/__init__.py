"""Diagnosis by rule: rows of a sweep in, findings out; nothing is read or written.

Each rule is a function of a `Sweep`, and abstains (None) where the evidence is thin.
"""

import logging
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from hpjax.report.diagnosis import choice, cost, edges, fit, images, learning_rate, values
from hpjax.report.diagnosis.facts import SweepFacts, create_facts
from hpjax.report.diagnosis.finding import LEVELS, Finding, describe_findings, format_findings
from hpjax.report.diagnosis.runs import Sweep
from hpjax.store.rows import EpochRow, TrialRow

__all__ = ["Finding", "SweepFacts", "create_facts", "describe_findings", "diagnose", "format_findings"]

log = logging.getLogger("hpjax")

Rule = Callable[[Sweep], Finding | list[Finding] | None]

RULES: tuple[Rule, ...] = (  # among findings of one level, the first is said first
    values.failed_trials,
    images.train_images_in_test,
    choice.selection_not_confirmed,
    images.class_never_predicted,
    images.class_imbalance,
    fit.initial_loss,
    learning_rate.stability_limit,
    edges.best_at_edge,
    learning_rate.learning_rate_too_high,
    learning_rate.learning_rate_too_low,
    learning_rate.weight_decay_too_strong,
    fit.overfitting,
    fit.underfitting,
    fit.unstable_loss,
    choice.unfair_pruning,
    choice.winner_within_noise,
    choice.lucky_search,
    fit.still_improving,
    fit.trained_too_long,
    values.batch_size,
    cost.evaluation_takes_the_time,
    cost.input_takes_the_time,
)


def diagnose(trials: Sequence[TrialRow], epochs: Sequence[EpochRow], facts: SweepFacts) -> list[Finding]:
    """Returns what stands out in a sweep, the most severe first.

    Args:
      trials: all rows, also of a sweep that still runs.
      epochs: all rows.
      facts: what was searched and measured; rules abstain that need one that isn't known.
    """
    sweep, found = Sweep(trials, epochs, facts), []
    for rule in RULES:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where a number comes to nothing, the rule abstains
                result = rule(sweep)
        except Exception as error:  # a rule that fails on odd rows must not cost a sweep its end
            log.warning("the rule %s failed and is left out: %s", rule.__name__, error)
            continue
        found += result if isinstance(result, list) else [result] if result else []
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
