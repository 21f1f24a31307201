"""What a ledger says besides its marks, checked before anything is made of it: it is JSON from a disk."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpjax.errors import CheckpointError
from hpjax.lanes.correction import Correction
from hpjax.lanes.engine import Layout
from hpjax.search.trial import Trial
from hpjax.store.arrays import Nested
from hpjax.store.parts import SavedLanes
from hpjax.store.typed import read_as
from hpjax.sweep.protocol import Slot

MOST_AT_ONCE = 1 << 12  # lanes, devices or threads of a layout
MOST_COUNTED = 1 << 31  # epochs, or steps of a call


@dataclass
class Tally:
    """Counts of a sweep; saved with every checkpoint, and shown in `summary.json` under the same names.

    Attributes:
      saves: checkpoints written.
      epochs: of all trials together.
      groups: that ran to their end.
      lane_epochs: epochs times lanes of those groups.
      busy_lane_epochs: of these, those in which the lane trained a trial.
      traces: training steps traced.
      damaged_checkpoints: passed over when the sweep was continued.
      reduced_to_lanes: the most lanes at once after memory ran out; 0: it didn't.
      fewer_epochs: of those planned, that trials which ended early didn't need.
      best_trial: the one that ranks first so far.
      best_score: its score, higher is better.
      final_setting: the setting that was run with further seeds.
      not_tested: trials of the winner whose weights were damaged or not kept.
      wall_seconds: that the sweep took, all processes together, as far as they were saved.
      without_effect: hyperparameters that are swept and change nothing, each with the reason.
    """

    saves: int = 0
    epochs: int = 0
    groups: int = 0
    lane_epochs: int = 0
    busy_lane_epochs: int = 0
    traces: int = 0
    damaged_checkpoints: int = 0
    reduced_to_lanes: int = 0
    fewer_epochs: int = 0
    best_trial: int | None = None
    best_score: float | None = None
    final_setting: int | None = None
    not_tested: list[int] = field(default_factory=list)
    wall_seconds: float = 0.0
    without_effect: dict[str, str] = field(default_factory=dict)

    @property
    def utilisation(self) -> float | None:
        """The share of lanes that were busy in the groups that ended; None before the first."""
        return self.busy_lane_epochs / self.lane_epochs if self.lane_epochs else None


@dataclass(frozen=True)
class RunLedger:
    """What a group's run goes on from, besides the arrays of its lanes, as JSON holds it.

    Attributes:
      epoch: the group's epochs done.
      slots: of each lane; None for an idle one.
      lane_epochs: epochs times lanes.
      busy_lane_epochs: of these, those in which the lane trained a trial.
      layout: of the engine.
      correction: of the layout.
    """

    epoch: int
    slots: list[dict[str, Any] | None]
    lane_epochs: int
    busy_lane_epochs: int
    layout: dict[str, Any]
    correction: dict[str, Any]


def name_arrays(runs: Sequence[Nested | SavedLanes]) -> Nested:
    """Returns the arrays of all runs' lanes as a checkpoint has them; `list_runs` finds them there."""
    return {f"run_{i}": arrays for i, arrays in enumerate(runs)} or {"none": np.zeros(1)}


def list_runs(ledger: Mapping[str, Any], arrays: Nested) -> list[tuple[dict[str, Any], Any]]:
    """Returns the runs that a checkpoint found under way, as its ledger has them, and their lanes' arrays.

    Args:
      ledger: the checkpoint's; an older one has a single `run`.
      arrays: the checkpoint's.

    Raises:
      ValueError: They aren't what this version of hpjax writes, or don't go together.
    """
    if "runs" not in ledger:
        found = [(ledger["run"], arrays)] if ledger.get("run") else []
    else:
        found = [(run, arrays[f"run_{i}"]) for i, run in enumerate(ledger["runs"])]
    for run, lanes in found:
        slots = check_run(run["ledger"])["slots"]
        if _count_lanes(lanes) != {len(slots)}:
            raise ValueError("the lanes aren't those of the arrays")
    return found


def _count_lanes(lanes: Nested | SavedLanes) -> set[int]:
    if isinstance(lanes, SavedLanes):
        return {lanes.num_lanes}
    return {len(array) for array in lanes.values()}


def check_run(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's ledger as it is, if every field has its type; else raises ValueError."""
    run = read_as(RunLedger, values)
    parse_layout(run.layout)
    read_as(Correction, run.correction)
    slots = [read_as(Slot, slot) for slot in run.slots if slot is not None]
    if not all(0 <= epoch < MOST_COUNTED for epoch in (run.epoch, *(slot.epoch for slot in slots))):
        raise ValueError("no run is at such an epoch")
    return values


def read_slot(values: Any, trial: Trial) -> Slot:
    """Returns where a trial stood when its state was kept.

    Raises:
      CheckpointError: That isn't what this version of hpjax writes.
    """
    try:
        slot = read_as(Slot, values)
    except ValueError as error:
        told = f"the kept state of trial {trial.number} isn't one that this version of hpjax writes ({error})"
        raise CheckpointError(f"{told}: restore it, or choose another workdir") from error
    return dataclasses.replace(slot, trial=trial)


def parse_layout(values: dict[str, Any]) -> Layout:
    """Returns a layout; raises ValueError where it can't be one."""
    layout = read_as(Layout, values)
    at_once = (layout.lanes_per_shard, layout.devices, layout.threads)
    if not all(1 <= n <= MOST_AT_ONCE for n in at_once) or not 1 <= layout.steps_per_call < MOST_COUNTED:
        raise ValueError(f"no layout has {values}")
    return layout
