"""Which fields of a sweep's config may change between a stop and the command that continues it."""

from collections.abc import Mapping

# These change how a sweep is run and kept, not what its trials compute.
MAY_DIFFER = (
    "lanes.strategy",
    "lanes.devices",
    "lanes.tune",
    "checkpoint.every_epochs",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "trackers",
)
# Samplers that ask the same whatever came of earlier settings.
UNLEARNED = ("grid", "random", "qmc")


def may_differ(key: str, config: Mapping[str, object]) -> bool:
    """Returns whether a sweep goes on, with the same results, where this key of its config has changed.

    `lanes.count` decides which results are there when a sampler that learns is asked or a pruner compares,
    who is in a population, and where a lane enters a shared stream: it may change where there is none of
    these.

    Args:
      key: dotted.
      config: the one that the sweep began with, flat: values by dotted key.
    """
    if key != "lanes.count":
        return key in MAY_DIFFER
    learns = (
        config.get("sweep.sampler", "grid") not in UNLEARNED or config.get("sweep.pruner", "none") != "none"
    )
    population = any(name.startswith("sweep.pbt.") for name in config)
    return not (learns or population or config.get("lanes.data_order", "own") == "shared")
