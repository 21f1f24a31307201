"""Rules on time: is it training that takes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.runs import Sweep
from hpjax.report.style import format_amount

MOST_BESIDES = 0.5  # of an epoch: beyond, more goes into what isn't training
LEAST_ROUNDS = 4  # epochs of a full program: single ones are disturbed by whatever else the machine does
LEAST_SECONDS = 0.5  # of an epoch: shorter ones are mostly the start of programs
SLOWER = 2.5  # times a step as measured before: an allocator or a busy machine make it up to 1.6 times slower
TYPICAL = 0.25  # quantile of the epochs' seconds: as the machine is when nothing else disturbs it


def evaluation_takes_the_time(sweep: Sweep) -> Finding | None:
    """Says that more than half of an epoch's time is evaluation and input; of the group where it is most."""
    found = [
        entry
        for group, layout in enumerate(sweep.facts.layouts)
        if (entry := _split_time(sweep, group, layout)) is not None
    ]
    worst = max(found, key=lambda entry: entry["share"], default=None)
    if worst is None or worst["share"] < MOST_BESIDES:
        return None
    return Finding(
        "evaluation_takes_the_time",
        "info",
        f"{worst['share']:.0%} of an epoch's time isn't training: of {format_amount(worst['epoch_seconds'])} "
        f"s, training takes {format_amount(worst['train_seconds'])} s; evaluation takes most of the rest.",
        "Evaluate on fewer images (data.max_test_examples, or a smaller data.validation_fraction).",
        {**worst, "images": sweep.images},
    )


def input_takes_the_time(sweep: Sweep) -> Finding | None:
    """Says that steps wait for their images, where those don't lie on the device; of the worst group."""
    found = [_compare_steps(group, layout) for group, layout in enumerate(sweep.facts.layouts)]
    worst = max(filter(None, found), key=lambda entry: entry["ratio"], default=None)
    if worst is None or worst["ratio"] < SLOWER:
        return None
    return Finding(
        "input_takes_the_time",
        "info",
        f"A step took {worst['ratio']:.1f} times as long in training as when it was measured with a batch at "
        f"hand ({format_amount(1e3 * worst['trained_seconds'])} ms instead of "
        f"{format_amount(1e3 * worst['step_seconds'])} ms): "
        "images pass through the device batch by batch, and steps wait for them.",
        "Keep them on the device (data.residency=device), or make them fewer or smaller "
        "(data.max_train_examples, data.image_size).",
        worst,
    )


def _compare_steps(group: int, layout: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a step's seconds as measured and as trained; None where images lie on the device."""
    step, trained = layout.get("lane_step_seconds", 0.0), layout.get("trained_lane_step_seconds", 0.0)
    if not (layout.get("streamed") and step and trained) or layout.get("changes"):
        return None
    if trained * layout.get("steps_per_epoch", 0) * layout.get("lanes", 0) < LEAST_SECONDS:
        return None
    return {"group": group, "ratio": trained / step, "step_seconds": step, "trained_seconds": trained}


def _split_time(sweep: Sweep, group: int, layout: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what of an epoch isn't training; None where the two weren't measured in the same layout."""
    lanes, step = layout.get("lanes", 0), layout.get("trained_lane_step_seconds", 0.0)
    steps = layout.get("steps_per_epoch", 0)
    if not lanes or not step or not steps or layout.get("changes"):
        return None
    seconds = _full_epochs(sweep, group, lanes)
    if len(seconds) < LEAST_ROUNDS * lanes:
        return None
    epoch = float(np.quantile(seconds, TYPICAL))
    train = step * steps * -(-lanes // layout.get("devices", 1))
    if epoch < LEAST_SECONDS:
        return None
    share = max(0.0, 1 - train / epoch)
    return {"group": group, "share": share, "epoch_seconds": epoch, "train_seconds": train, "lanes": lanes}


def _full_epochs(sweep: Sweep, group: int, lanes: int) -> Sequence[float]:
    """Returns the seconds of the epochs in which every lane of a group trained a trial."""
    runs = (run for run in sweep.runs if run.trial.group == group)
    return [
        float(seconds * lanes)
        for run in runs
        for seconds, shared in zip(run.seconds, run.lanes, strict=True)
        if shared == lanes
    ]
