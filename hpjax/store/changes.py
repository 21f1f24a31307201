"""Which fields of a sweep's config may change between a stop and the command that continues it."""

import math
from collections.abc import Mapping

# These change how a sweep is run and kept, not what its trials compute. Images count by their content, which
# is compared elsewhere, wherever they lie.
MAY_DIFFER = (
    "data.dir",
    "data.train",
    "data.test",
    "lanes.strategy",
    "lanes.devices",
    "lanes.tune",
    "checkpoint.every_epochs",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "checkpoint.states",
    "trackers",
)
# Samplers that ask the same whatever came of earlier settings.
UNLEARNED = ("grid", "random", "qmc")
# These may be `FILE.py:NAME`: the file, too, counts by its content.
CODE = ("model.name", "data.name", "task.loss", "optimizer.name", "sweep.metric", "sweep.constraints")
WEIGHTS = "model.pretrained"
EXTEND, BUDGET = "sweep.extend", "sweep.trials"
SEEDS = "sweep.seed_values"
EXTENDED = (BUDGET, "sweep.seeds", "train.epochs")  # which may become more, then


def compared(key: str, value: object) -> object:
    """Returns what of a config's value two starts of a sweep must have in common.

    Args:
      key: dotted.
      value: as JSON; an ellipsis where there is none.
    """
    if key == WEIGHTS and isinstance(value, str):
        return bool(value)
    if key in CODE and isinstance(value, str) and ".py:" in value and not value.startswith("tfds:"):
        return f".py:{value.rpartition('.py:')[2]}"
    if key == "data.name" and isinstance(value, str) and value.startswith("npz:"):
        return "npz"  # arrays count by their content
    return value


def may_differ(key: str, config: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Returns whether a sweep goes on, with the same results, where this key of its config has changed.

    `lanes.count` decides which results are there when a sampler that learns is asked or a pruner compares,
    who is in a population, and where a lane enters a shared stream: it may change where there is none of
    these.

    Args:
      key: dotted.
      config: the one that the sweep began with, flat: values by dotted key.
      now: the one that it is to go on with.
    """
    if key == EXTEND:
        return True
    if key in EXTENDED and now.get(EXTEND):
        return _count(key, now) > _count(key, config)
    if key == SEEDS and now.get(EXTEND):  # the same ones, and further ones behind them
        before, after = (list(found) if isinstance(found := flat.get(key), list | tuple) else []
                         for flat in (config, now))  # fmt: skip
        return 0 < len(before) < len(after) and after[: len(before)] == before
    if key != "lanes.count":
        return key in MAY_DIFFER
    learns = (
        config.get("sweep.sampler", "grid") not in UNLEARNED or config.get("sweep.pruner", "none") != "none"
    )
    population = any(name.startswith("sweep.pbt.") for name in config)
    return not (learns or population or config.get("lanes.data_order", "own") == "shared")


def _count(key: str, config: Mapping[str, object]) -> float:
    count = config.get(key)
    if key == BUDGET and count == 0:  # the whole grid
        return math.inf
    return count if isinstance(count, int) else math.nan
