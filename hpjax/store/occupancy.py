"""Which trial sat in which lane from when to when, read from the order in which events were recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stay:
    """A trial's time in a lane, in seconds of epochs since the sweep began.

    Attributes:
      trial: its number.
      group: the program that it ran in.
      lane: of all that were busy at that time.
      begin: when it was admitted.
      end: when it trained last; the same as `begin` before its first epoch.
      epochs: that it trained there.
    """

    trial: int
    group: int
    lane: int
    begin: float
    end: float
    epochs: int = 0


@dataclass
class _Rounds:
    """The rounds of a group: in each, every lane of the group trains an epoch."""

    begin: float  # of the newest round
    end: float
    trained: set[int] = field(default_factory=set)  # in the newest round
    is_open: bool = False  # whether further epochs may be of the newest round


@dataclass
class Occupancy:
    """Lanes over the time of a sweep, followed event by event.

    A group records a round's epochs, then which trials ended, then which ones were admitted, the lowest idle
    lane first. Groups that run side by side take turns in that; one that begins does so when what was
    recorded last had happened.

    Attributes:
      stays: in the order in which they began; a trial of a sweep that was extended has several.
      seconds: how long all rounds took, those side by side once.
    """

    stays: list[Stay] = field(default_factory=list)
    seconds: float = 0.0
    _now: float = 0.0  # when the newest event happened
    _rounds: dict[int, _Rounds] = field(default_factory=dict)  # of each group
    _newest: dict[int, Stay] = field(default_factory=dict)  # of each trial
    _lanes: dict[int, int] = field(default_factory=dict)  # which trial is in them

    def start(self, trial: int, group: int) -> None:
        """Follows that a trial was admitted."""
        rounds = self._rounds.setdefault(group, _Rounds(self._now, self._now))
        rounds.is_open = False
        lane = next(lane for lane in range(len(self._lanes) + 1) if lane not in self._lanes)
        self._lanes[lane] = trial
        stay = Stay(trial, group, lane, rounds.end, rounds.end)
        self._newest[trial] = stay
        self.stays.append(stay)

    def train(self, trial: int, seconds: float) -> None:
        """Follows that a trial was trained for an epoch."""
        stay = self._newest[trial]
        rounds = self._rounds[stay.group]
        if not rounds.is_open or trial in rounds.trained:
            rounds.begin, rounds.trained, rounds.is_open = rounds.end, set(), True
        rounds.trained.add(trial)
        rounds.end = max(rounds.end, rounds.begin + seconds)
        stay.end = self._now = rounds.end
        stay.epochs += 1
        self.seconds = max(self.seconds, rounds.end)

    def finish(self, trial: int) -> None:
        """Follows that a trial ended."""
        self._now = self._rounds[self._newest[trial].group].end
        self._lanes = {lane: held for lane, held in self._lanes.items() if held != trial}

    def apply(self, event: Mapping) -> None:
        """Follows an event of a history."""
        if event["kind"] in ("start", "again"):
            self.start(event["trial"], event["group"])
        elif event["kind"] == "epoch":
            self.train(event["trial"], event.get("epoch_seconds", 0.0))
        elif event["kind"] == "finish":
            self.finish(event["trial"])
