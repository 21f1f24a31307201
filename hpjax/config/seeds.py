"""The seeds that each setting is run with: so many, or those that are named, as an axis of the space too."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hpjax.config.checks import check_value
from hpjax.config.fields import FIELDS, Config
from hpjax.config.rules import is_int
from hpjax.errors import ConfigError

AXIS = "seed"  # of a space
MOST = 10_000  # seeds that a range may have
_KEY = f"sweep.space.{AXIS}"
_FORMS = "seeds (0, 1, 2) or a range {low, high[, step]}, without a condition"


def place_seeds(config: Config) -> Config:
    """Returns a configuration whose seeds stand in `sweep.seed_values`, and their number in `sweep.seeds`.

    Raises:
      ConfigError: They are named twice, or their number is another one, or they are no seeds.
    """
    sweep = config.sweep
    space = dict(sweep.space)
    if AXIS in space:
        if sweep.seeds != 1 or sweep.seed_values:
            key = "sweep.seed_values" if sweep.seed_values else "sweep.seeds"
            value = sweep.seed_values or sweep.seeds
            raise ConfigError(key, value, f"nothing beside {_KEY}, which names each setting's seeds")
        values = check_value(_KEY, _list_values(space.pop(AXIS)), FIELDS["sweep.seed_values"])
        sweep = dataclasses.replace(sweep, space=space, seed_values=values)
    if not sweep.seed_values:
        return config
    if sweep.seeds not in (1, len(sweep.seed_values)):
        allowed = f"{len(sweep.seed_values)}, or left out: sweep.seed_values names so many"
        raise ConfigError("sweep.seeds", sweep.seeds, allowed)
    if sweep.pbt:
        key = _KEY if AXIS in config.sweep.space else "sweep.seed_values"
        raise ConfigError(key, sweep.seed_values, "none with sweep.pbt: each member has a seed of its own")
    return dataclasses.replace(config, sweep=dataclasses.replace(sweep, seeds=len(sweep.seed_values)))


def seed_of(config: Config, seed_index: int) -> int:
    """Returns the seed of a setting's replicate, from 0; the winner's further ones lie beyond the named."""
    named = config.sweep.seed_values
    if not named:
        return config.seed + seed_index
    return named[seed_index] if seed_index < len(named) else max(named) + 1 + seed_index - len(named)


def _list_values(spec: Any) -> tuple:
    choices = spec["choices"] if isinstance(spec, Mapping) and set(spec) == {"choices"} else spec
    if isinstance(choices, list | tuple):
        return tuple(choices)
    if not isinstance(spec, Mapping) or set(spec) - {"low", "high", "step"}:
        raise ConfigError(_KEY, spec, _FORMS)
    low, high, step = (spec.get(name, 1) for name in ("low", "high", "step"))
    whole = {"low", "high"} <= set(spec) and all(map(is_int, (low, high, step)))
    if not (whole and step > 0 and 0 <= high - low < MOST * step):
        raise ConfigError(_KEY, dict(spec), _FORMS)
    return tuple(range(low, high + 1, step))
