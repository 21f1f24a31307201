"""Which trial sat in which lane from when to when, read from the order in which events were recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stay:
    """A trial's time in a lane.

    Attributes:
      trial: its number.
      group: the program that it ran in.
      lane: of the program.
      first: the round in which it trained first, from 0; in a round every lane trains an epoch.
      last: the round in which it trained last; one less than `first` before the first.
    """

    trial: int
    group: int
    lane: int
    first: int
    last: int


@dataclass
class Occupancy:
    """Lanes over the rounds of a sweep, followed event by event.

    A sweep records a round's epochs, then which trials ended, then which ones were admitted, the lowest idle
    lane first.

    Attributes:
      stays: in the order in which they began; a trial of a sweep that was extended has several.
      seconds: how long each round took.
    """

    stays: list[Stay] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _trained: set[int] = field(default_factory=set)  # in the newest round
    _newest: dict[int, Stay] = field(default_factory=dict)  # of each trial
    _lanes: dict[int, int] = field(default_factory=dict)  # which trial is in them
    _group: int = -1
    _open: bool = False  # whether further epochs may be of the newest round

    def start(self, trial: int, group: int) -> None:
        """Follows that a trial was admitted."""
        if group != self._group:
            self._group, self._lanes = group, {}
        lane = next(lane for lane in range(len(self._lanes) + 1) if lane not in self._lanes)
        self._lanes[lane], self._open = trial, False
        stay = Stay(trial, group, lane, len(self.seconds), len(self.seconds) - 1)
        self._newest[trial] = stay
        self.stays.append(stay)

    def train(self, trial: int, seconds: float) -> None:
        """Follows that a trial was trained for an epoch."""
        if not self._open or trial in self._trained:
            self.seconds.append(0.0)
            self._trained, self._open = set(), True
        self._trained.add(trial)
        self.seconds[-1] = max(self.seconds[-1], seconds)
        self._newest[trial].last = len(self.seconds) - 1

    def finish(self, trial: int) -> None:
        """Follows that a trial ended."""
        self._lanes = {lane: held for lane, held in self._lanes.items() if held != trial}

    def apply(self, event: Mapping) -> None:
        """Follows an event of a history."""
        if event["kind"] in ("start", "again"):
            self.start(event["trial"], event["group"])
        elif event["kind"] == "epoch":
            self.train(event["trial"], event.get("epoch_seconds", 0.0))
        elif event["kind"] == "finish":
            self.finish(event["trial"])
