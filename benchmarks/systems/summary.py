"""From raw seconds to medians, ratios and rates."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from systems.layers import steps_floor, training_bytes, training_flops
from systems.system import OF_HPJAX
from systems.workload import Workload

Rates = tuple[float, float]  # FLOP/s and bytes/s


def describe_samples(samples: Sequence[float]) -> dict[str, Any]:
    """Returns n, median, quartiles and extremes."""
    ranked = sorted(samples)
    first, median, third = (
        statistics.quantiles(ranked, n=4, method="inclusive") if len(ranked) > 1 else ranked * 3
    )
    return {"n": len(ranked), "median": median, "quartiles": [first, third], "range": [ranked[0], ranked[-1]]}


def describe_speed(seconds: Sequence[float], workload: Workload, ceilings: Rates) -> dict[str, Any]:
    """Returns how fast the trials were trained, all of them counted, and how near to the device's ceilings.

    Args:
      seconds: of each epoch of all trials.
      workload: what was trained.
      ceilings: what the device reached in a matrix product and in a copy.
    """
    shape = (workload.model, workload.image_size)
    step = statistics.median(seconds) / (workload.steps * workload.lanes)
    flops = workload.batch_size * training_flops(*shape) / step
    traffic = training_bytes(*shape, workload.batch_size, workload.precision) / step
    floor = steps_floor(*shape, workload.batch_size, workload.precision, ceilings)
    return {
        "seconds": list(seconds),
        "epoch_seconds": describe_samples(seconds),
        "lane_step_milliseconds": 1e3 * step,
        "images_per_second": workload.batch_size / step,
        "tflops": flops / 1e12,
        "share_of_matrix_product": flops / ceilings[0],
        "least_gigabytes_per_second": traffic / 1e9,
        "share_of_copy": traffic / ceilings[1],
        "share_of_floor": floor / step,
    }


def compute_ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Returns how many times faster each of hpjax's systems is than each other one, round by round."""
    return {
        f"{ours} / {theirs}": describe_samples(
            [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
        )
        for ours in OF_HPJAX
        for theirs in seconds
        if ours in seconds and ours != theirs
    }


def compare_losses(
    losses: Mapping[str, Sequence[float]], last: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Returns whether all losses are finite and whether systems that start alike agree.

    Args:
      losses: each system's mean losses of the trials over the first epoch.
      last: the same over the last epoch.
    """
    ours = [name for name in losses if name in OF_HPJAX or name.startswith("processes")]
    spread = max(
        (_largest_difference([losses[n][i] for n in ours]) for i in _lanes(losses, ours)), default=0.0
    )
    finite = {name: all(map(math.isfinite, values)) for name, values in last.items()}
    return {"finite": finite, "hpjax_systems": ours, "largest_relative_difference": spread}


def _lanes(losses: Mapping[str, Sequence[float]], names: Sequence[str]) -> range:
    return range(len(losses[names[0]])) if names else range(0)


def _largest_difference(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / abs(min(values, key=abs))
