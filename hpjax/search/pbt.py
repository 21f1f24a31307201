"""Population based training: who goes on from whose state, and with which hyperparameters.

Jaderberg et al., Population Based Training of Neural Networks, 2017: exploit by truncation selection, explore
by perturbing.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpjax.config.fields import Config, PbtOptions
from hpjax.config.hyperparameters import HYPERPARAMETERS
from hpjax.errors import ConfigError
from hpjax.search.samplers import UNLEARNED
from hpjax.search.space import Axis, Space
from hpjax.search.trial import Trial

MOST_MOVES = 100  # that are tried until one is allowed
_PURPOSE = 0x9B7  # keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class Member:
    """A trial of the population between two epochs.

    Attributes:
      trial: with the hyperparameters in force.
      epoch: epochs it has done.
      score: of its last epoch; higher is better.
    """

    trial: Trial
    epoch: int
    score: float


@dataclass(frozen=True)
class Copy:
    """A trial goes on from another's state.

    Attributes:
      trial: number of the trial that gives up its own.
      source: number of the trial that it takes over.
      hyperparameters: those it goes on with, by name.
    """

    trial: int
    source: int
    hyperparameters: dict[str, Any]


PlanCopies = Callable[[Sequence[Member], int], list[Copy]]


def make_plan_copies(config: Config, space: Space) -> PlanCopies | None:
    """Returns `f(members, epoch) -> copies`, to be called between two epochs; None without `sweep.pbt`.

    Members are compared with those of their own age only, every `every_epochs` of it: the worst `fraction` of
    them each go on from one of as many best, drawn at random, where that one is better, and perturb its
    hyperparameters, each with draws of its own: two that copy one source part. The answer depends on nothing
    but the arguments and `config.seed`.
    """
    if not config.sweep.pbt:
        return None
    options = PbtOptions(**config.sweep.pbt)

    def plan_copies(members: Sequence[Member], epoch: int) -> list[Copy]:
        rng = np.random.default_rng((config.seed, _PURPOSE, epoch))
        ages = defaultdict(list)
        for member in members:
            if member.epoch % options.every_epochs == 0:
                ages[member.epoch].append(member)
        pairs = [pair for age in sorted(ages) for pair in _pair(ages[age], options.fraction, rng)]
        return [_copy(worse, better, epoch) for worse, better in pairs]

    def _copy(worse: Member, better: Member, epoch: int) -> Copy:
        rng = np.random.default_rng((config.seed, _PURPOSE, epoch, worse.trial.number))
        values = explore(better, space, options.perturb, rng)
        return Copy(worse.trial.number, better.trial.number, values)

    return plan_copies


def explore(source: Member, space: Space, factor: float, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the source's hyperparameters, each perturbed; as they are where nothing near is allowed."""
    values = source.trial.hyperparameters
    for _ in range(MOST_MOVES if space.constraint else 1):
        moved = {axis.name: perturb(axis, values[axis.name], factor, rng) for axis in space.axes}
        if space.allows(moved):
            return moved
    return dict(values)


def perturb(axis: Axis, value: Any, factor: float, rng: np.random.Generator) -> Any:
    """Returns a value next to the given one.

    One of several choices, or of a range with a step: the next or the previous one. In a range: between the
    value divided by `factor` and the value times `factor`, evenly in the logarithm, within the range; 0,
    which no factor changes, is drawn anew.
    """
    if axis.choices or axis.step:
        return _neighbour(sorted(axis.values), value, up=bool(rng.integers(2)))
    if value == 0:
        return float(rng.uniform(axis.low, axis.high))
    # Not the two ends alone, nor cut off at the range's: trials with equal values would be equal for good.
    small, large = sorted(
        (value / factor, value * factor)
    )  # of a negative value, the larger one is nearer to 0
    low, high, sign = max(small, axis.low), min(large, axis.high), math.copysign(1.0, value)
    near, far = sorted((math.log(sign * low), math.log(sign * high)))
    moved = sign * math.exp(rng.uniform(near, far))
    return min(max(moved, low), high)


def _neighbour(values: list, value: float, up: bool) -> float:
    if len(values) == 1:
        return values[0]
    place = min(range(len(values)), key=lambda i: abs(values[i] - value))
    last = len(values) - 1
    # At an end there is one neighbour only.
    up = (up or place == 0) and place != last
    return values[place + 1 if up else place - 1]


def _pair(members: list[Member], fraction: float, rng: np.random.Generator) -> list[tuple[Member, Member]]:
    ranked = sorted(members, key=lambda member: (-member.score, member.trial.number))
    ranked = [member for member in ranked if math.isfinite(member.score)]
    if len(ranked) < 2:
        return []
    count = max(1, int(fraction * len(ranked)))
    drawn = [(worse, ranked[rng.integers(count)]) for worse in ranked[-count:]]
    return [(worse, better) for worse, better in drawn if better.score > worse.score]


def check_population(config: Config, space: Space, trials: int) -> None:
    """Checks that the rest of a configuration goes with `sweep.pbt`.

    Args:
      config: the sweep's.
      space: what is searched.
      trials: of the whole sweep.

    Raises:
      ConfigError: It doesn't; says what does.
    """
    if not config.sweep.pbt:
        return
    dynamic = [name for name, h in HYPERPARAMETERS.items() if h.dynamic]
    for axis in space.axes:
        if not axis.dynamic:
            raise _refuse(f"sweep.space.{axis.name}", config.sweep.space[axis.name], ", ".join(dynamic))
        if axis.when:
            raise _refuse(f"sweep.space.{axis.name}.when", axis.when, "no condition")
        if axis.name not in HYPERPARAMETERS and config.sweep.select == "best":
            # Weights of an earlier epoch would be used with the options that the member had at its end.
            raise _refuse("sweep.select", "best", f"final where {axis.name} is searched,")
    if not space.axes:
        raise _refuse("sweep.space", {}, "at least one hyperparameter to perturb")
    sweep = config.sweep
    if sweep.sampler not in UNLEARNED:
        raise _refuse("sweep.sampler", sweep.sampler, f"one that doesn't learn ({', '.join(UNLEARNED)})")
    if sweep.pruner != "none":
        raise _refuse("sweep.pruner", sweep.pruner, "none")
    if sweep.seeds > 1:
        raise _refuse("sweep.seeds", sweep.seeds, "1")
    if trials < 2:
        raise _refuse("sweep.trials", trials, "at least 2")
    if config.lanes.count == 1:
        raise _refuse("lanes.count", 1, "at least 2, or 0")


def _refuse(key: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(key, value, f"{allowed} with sweep.pbt")
