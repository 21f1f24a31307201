"""Whether a group trains as fast as its plan measured; where it doesn't, another layout is taken, once.

A few steps on fresh memory can promise what whole epochs don't keep. So the first epochs are compared with
what other layouts were measured at. What was decided is remembered with the measurement: run again, the same
sweep changes its layout at the same epoch, and gives the same bits.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from hpjax.lanes.capacity import LEAST_GAIN, Choice, create_layout
from hpjax.lanes.engine import Layout
from hpjax.lanes.probe import Candidate, parse_candidate
from hpjax.ops import memory

EPOCHS = 2  # of each layout that are compared; the faster one counts: others' work only adds to an epoch


@dataclass
class Correction:
    """The layouts that a group may change to, and what training took in those it had.

    Everything is JSON, so that a ledger can hold it. Candidates stand under their names.

    Attributes:
      own: whether the plan measured batches of the lanes' own; epochs with shared ones aren't compared.
      key: under which the decision is remembered; empty: it isn't.
      planned: seconds per lane and step that were measured beforehand.
      trained: seconds per lane and step of the fastest epoch so far.
      current: the candidate in use.
      changes: candidates by the epoch after which they were taken.
      epochs: that the current one was watched for.
      decided: nothing is changed any more.
      replays: `changes` were remembered, and are repeated.
    """

    own: bool = False
    key: str = ""
    planned: dict[str, float] = field(default_factory=dict)
    trained: dict[str, float] = field(default_factory=dict)
    current: str = ""
    changes: dict[str, str] = field(default_factory=dict)
    epochs: int = 0
    decided: bool = False
    replays: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; `Correction(**values)` takes them back."""
        return asdict(self)

    def describe(self) -> dict[str, Any]:
        """Returns what training took, and the layouts that were changed to, for plans and summaries."""
        rows = []
        for epoch, name in self.changes.items():
            candidate = parse_candidate(name) or Candidate(1)
            rows.append(
                {
                    "after_epoch": int(epoch),
                    "lanes_per_call": candidate.lanes,
                    "threads": candidate.threads,
                    "planned_lane_step_seconds": self.planned.get(name),
                    "trained_lane_step_seconds": self.trained.get(name),
                }
            )
        first = next(iter(self.trained.values()), 0.0)
        return {"trained_lane_step_seconds": first, "changes": tuple(rows)}

    def next_layout(self, epoch: int, lane_step_seconds: float, layout: Layout) -> Layout | None:
        """Returns the layout to go on with; None to stay.

        Args:
          epoch: the group's epochs so far.
          lane_step_seconds: wall time of the last epoch's training per lane and step; infinite where it says
            nothing, as with idle lanes.
          layout: the present one.
        """
        if self.current and lane_step_seconds < float("inf"):
            known = self.trained.get(self.current, lane_step_seconds)
            self.trained[self.current] = min(known, lane_step_seconds)
        name = self.changes.get(str(epoch)) if self.replays else self._decide(epoch, lane_step_seconds)
        candidate = parse_candidate(name) if name else None
        if candidate is None:
            return None
        self.current, self.epochs = candidate.name, 0
        return create_layout(candidate, self.planned.get(candidate.name, lane_step_seconds), layout.devices)

    def _decide(self, epoch: int, lane_step_seconds: float) -> str | None:
        if self.decided or not self.current or lane_step_seconds == float("inf"):
            return None
        self.epochs += 1
        if self.epochs < EPOCHS:
            return None
        name = self._faster()
        self.decided = name is None or bool(self.changes)
        if name is not None:
            self.changes[str(epoch)] = name
        if self.decided and self.key:
            milliseconds = {candidate: 1e3 * seconds for candidate, seconds in self.trained.items()}
            memory.remember(f"{self.key}; changes", json.dumps(self.changes), milliseconds)
        return name

    def _faster(self) -> str | None:
        """Returns the candidate that training is slower than: after a change, the one that it began with."""
        known = self.trained if self.changes else self.planned
        others = {name: seconds for name, seconds in known.items() if name != self.current}
        best = min(others, key=others.__getitem__, default=None)
        if best is None or others[best] * LEAST_GAIN > self.trained[self.current]:
            return None
        return best


def create_correction(choice: Choice) -> Correction:
    """Returns what watches a group that is trained as `choice` says.

    It changes to layouts only that advance no more lanes at once than there are.
    """
    if choice.candidate is None:
        return Correction(decided=True)
    per_device = choice.num_lanes // choice.layout.devices
    planned = {
        candidate.name: seconds
        for candidate, seconds in choice.measured.items()
        if candidate.at_once <= per_device
    }
    changes = _recall(choice.key)
    return Correction(
        own=not choice.in_step,
        key=choice.key,
        planned=planned,
        current=choice.candidate.name,
        changes=changes or {},
        replays=changes is not None,
    )


def _recall(key: str) -> dict[str, str] | None:
    """Returns the changes that were decided on when the same program was trained; None: it never was."""
    text = memory.load().get(f"{key}; changes") if key else None
    try:
        changes = json.loads(text) if text else None
    except ValueError:
        return None
    known = isinstance(changes, dict) and all(parse_candidate(name) for name in changes.values())
    return changes if known else None
