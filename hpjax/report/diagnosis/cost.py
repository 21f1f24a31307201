"""The rule on time: is it training that takes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.runs import Sweep

MOST_BESIDES = 0.5  # of an epoch: beyond, more goes into what isn't training
LEAST_ROUNDS = 4  # epochs of a full program: single ones are disturbed by whatever else the machine does
LEAST_SECONDS = 0.5  # of an epoch: shorter ones are mostly the start of programs
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
        f"{worst['share']:.0%} of an epoch's time isn't training: of {worst['epoch_seconds']:.3g} s, "
        f"training takes {worst['train_seconds']:.3g} s; evaluation takes most of the rest.",
        "Evaluate on fewer images (data.max_test_examples, or a smaller data.validation_fraction).",
        {**worst, "images": sweep.images},
    )


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
