"""What a sweep is going to compile, hold and take: `plan.json` and the table of `--plan`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpjax.search.space import MOST_SETTINGS

HEAD = (
    "group",
    "trials",
    "lanes",
    "a call",
    "steps/epoch",
    "epochs",
    "programs",
    "memory",
    "speed-up",
    "time",
)
_SPEEDUP = HEAD.index("speed-up")
# Of `Plan.logs_bytes`, with room for long names and many hyperparameters.
TRIAL_BYTES, EPOCH_BYTES = 8 << 10, 2 << 10
WINNER_BYTES = 96 << 10  # of small pictures, mostly


@dataclass(frozen=True)
class GroupPlan:
    """One program and the trials that pass through it.

    Attributes:
      static: the swept hyperparameters that shape the program.
      trials: how many pass through; None where a sampler decides.
      most_trials: how many may pass through at most.
      may_end_early: whether a pruner or a sampler may make the group shorter than its time says.
      lanes: how many train side by side.
      lanes_per_call: how many one call of the program advances.
      threads: of the host, each with calls of its own.
      workers: processes over which the lanes are spread.
      devices: of all of them, over which the lanes are spread.
      steps_per_epoch: optimizer steps of one epoch.
      epochs: of each trial.
      memory_bytes: of the device, for one call in each thread; 0 where it wasn't measured.
      population_bytes: of one checkpoint of all lanes.
      weights_bytes: of one trial's weights on disk.
      lane_step_seconds: one step of one lane, all threads at work; 0 where it wasn't measured.
      speedup: over one lane at a time; 0 where it wasn't measured.
      trained_lane_step_seconds: what training then took, as the group began; 0 where it can't be compared.
      available_bytes: of the device when it was planned; 0 where it isn't known.
      setup_seconds: what it took to read the images, and to measure and compile, before the first step.
      changes: layouts that training changed to, since it was slower than planned, each with both figures.
      streamed: whether training images pass through the device, batch by batch, instead of lying there.
    """

    static: Mapping[str, Any]
    trials: int | None
    lanes: int
    lanes_per_call: int
    devices: int
    steps_per_epoch: int
    epochs: int
    threads: int = 1
    workers: int = 1
    most_trials: int = 0
    may_end_early: bool = False
    memory_bytes: int = 0
    population_bytes: int = 0
    weights_bytes: int = 0
    lane_step_seconds: float = 0.0
    speedup: float = 0.0
    trained_lane_step_seconds: float = 0.0
    available_bytes: int = 0
    setup_seconds: float = 0.0
    changes: tuple[Mapping[str, Any], ...] = ()
    streamed: bool = False

    @property
    def programs(self) -> int:
        """Programs to compile at most: the full one, and smaller ones as the last trials end."""
        return 1 + (self.lanes_per_call - 1).bit_length()

    @property
    def strategy(self) -> str:
        """How lanes share the device: `fused` in one call, in `threads` of their own, or `sequential`."""
        if self.lanes_per_call > 1:
            return "fused"
        return "threads" if self.threads > 1 else "sequential"

    @property
    def trial_seconds(self) -> float | None:
        """Training time that a trial adds if it doesn't end early; None where it wasn't measured."""
        if not self.lane_step_seconds:
            return None
        return self.lane_step_seconds * self.steps_per_epoch * self.epochs / self.devices

    @property
    def seconds(self) -> float | None:
        """Training time of all its trials if none ends early; None where it isn't known."""
        trials = self.most_trials if self.trials is None else self.trials
        return None if self.trial_seconds is None else self.trial_seconds * trials

    def layout(self) -> dict[str, Any]:
        """Returns what was chosen, and how much faster it trains than one lane at a time."""
        chosen = ("lanes", "lanes_per_call", "threads", "devices", "speedup")
        chosen += ("steps_per_epoch", "lane_step_seconds", "trained_lane_step_seconds", "changes", "streamed")
        entries = {name: getattr(self, name) for name in chosen}
        return {"static": dict(self.static), "strategy": self.strategy, **entries}

    def to_dict(self) -> dict[str, Any]:
        """Returns an entry of `plan.json`."""
        derived = {"strategy": self.strategy, "programs": self.programs, "seconds": self.seconds}
        return {**dataclasses.asdict(self), "static": dict(self.static), **derived}


@dataclass(frozen=True)
class Plan:
    """All groups that are known so far, and what the checkpoints may take.

    Attributes:
      groups: one per program.
      trials: of the whole sweep.
      disk_bytes: of the checkpoints at most, for the groups that are known; 0 where it isn't.
      most_groups: how many there may be at most, those that aren't known yet included.
      workers: that groups share, side by side; 1: groups follow each other.
    """

    groups: tuple[GroupPlan, ...]
    trials: int
    disk_bytes: int = 0
    most_groups: int = 0
    workers: int = 1

    @property
    def logs_bytes(self) -> int:
        """What history, study, tables and TensorBoard take on disk at most; 0 where no group is known.

        Figures and the page, a few megabytes, are left out where they don't fit.
        """
        epochs = max((group.epochs for group in self.groups), default=None)
        return 0 if epochs is None else self.trials * (TRIAL_BYTES + epochs * EPOCH_BYTES) + WINNER_BYTES

    @property
    def seconds(self) -> float | None:
        """Training time of all trials if none ends early; None where it isn't known.

        Where a sampler decides which group a trial belongs to, all are taken to belong to the slowest one
        that is known.
        """
        if any(group.trials is None for group in self.groups):
            times = [(group.trial_seconds, group.workers) for group in self.groups]
            shared = self.workers > 1
            each = [seconds * (workers if shared else 1) for seconds, workers in times if seconds]
            return None if len(each) < len(times) else max(each) * self.trials / self.workers
        times = [(group.seconds, group.workers) for group in self.groups]
        known = [(seconds, workers) for seconds, workers in times if seconds is not None]
        if len(known) < len(times):
            return None
        if self.workers == 1:
            return sum(seconds for seconds, _ in known)
        shared = sum(seconds * workers for seconds, workers in known) / self.workers
        return max(shared, *(seconds for seconds, _ in known), 0.0)

    @property
    def setup_seconds(self) -> float:
        """Of all groups that are known: reading images, measuring and compiling, before the first step."""
        return sum(group.setup_seconds for group in self.groups)

    @property
    def total_seconds(self) -> float | None:
        """Training and what comes before it; None where the time of training isn't known."""
        return None if self.seconds is None else self.seconds + self.setup_seconds

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `plan.json`."""
        return {
            "trials": self.trials,
            "disk_bytes": self.disk_bytes,
            "logs_bytes": self.logs_bytes,
            "seconds": self.seconds,
            "setup_seconds": self.setup_seconds,
            "most_groups": max(self.most_groups, len(self.groups)),
            "groups": [group.to_dict() for group in self.groups],
        }

    def __str__(self) -> str:
        rows = [HEAD, *(_row(group) for group in self.groups)]
        if not any(group.speedup for group in self.groups):
            rows = [(*row[:_SPEEDUP], *row[_SPEEDUP + 1 :]) for row in rows]
        lines = format_rows(rows)
        parts = [
            "1 trial" if self.trials == 1 else f"{self.trials} trials",
            self._describe_time(),
            f"{_duration(self.setup_seconds, False)} to read, measure and compile",
            f"checkpoints up to {describe_size(self.disk_bytes)}",
            f"logs and tables up to {describe_size(self.logs_bytes)}",
        ]
        if self.setup_seconds < 1:
            del parts[2]
        return "\n".join([*lines, ", ".join(parts), *self._list_too_large()])

    def _list_too_large(self) -> list[str]:
        """Returns a line for each group that needs more memory than there was."""
        return [
            f"beyond this machine: {describe_static(group.static)} needs {describe_size(group.memory_bytes)}"
            f" of memory, and {describe_size(group.available_bytes)} are free: lower lanes.count,"
            " train.batch_size, data.image_size"
            for group in self.groups
            if 0 < group.available_bytes < group.memory_bytes
        ]

    def _describe_time(self) -> str:
        known = len({tuple(group.static.items()) for group in self.groups})
        if known >= self.most_groups:
            return _duration(self.seconds, any(group.may_end_early for group in self.groups))
        searched = any(group.trials is None for group in self.groups)
        first = "the first" if known == 1 else f"the first {known}"
        most = "many" if self.most_groups >= MOST_SETTINGS else f"up to {self.most_groups:,}"
        rest = f"{'if all were of' if searched else 'for'} {first} of {most} groups"
        return f"{_duration(self.seconds, at_most=False)} {rest}"


def format_rows(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Returns the lines of a table; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(_align(text, widths[i], i) for i, text in enumerate(row)).rstrip() for row in rows]


def describe_static(static: Mapping[str, Any]) -> str:
    """Returns what distinguishes a group, in words."""
    return ", ".join(f"{name}={value}" for name, value in static.items()) or "all"


def _row(group: GroupPlan) -> tuple[str, ...]:
    return (
        describe_static(group.static),
        f"≤ {group.most_trials}" if group.trials is None else str(group.trials),
        str(group.lanes),
        _describe_call(group),
        str(group.steps_per_epoch),
        str(group.epochs),
        str(group.programs),
        describe_size(group.memory_bytes),
        f"{group.speedup:.2f}x" if group.speedup else "?",
        _duration(group.seconds, group.may_end_early),
    )


def _describe_call(group: GroupPlan) -> str:
    """Returns how lanes are advanced: `4 fused`, `1 in 2 threads`, `1`; lanes are those of one call."""
    fused = f"{group.lanes_per_call} fused" if group.lanes_per_call > 1 else "1"
    return f"{fused} in {group.threads} threads" if group.threads > 1 else fused


def _align(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def describe_size(num: int) -> str:
    """Returns bytes in MiB or GiB; `?` where they aren't known."""
    if not num:
        return "?"
    if num >= 2**30:
        return f"{num / 2**30:.1f} GiB"
    return f"{max(1, round(num / 2**20))} MiB"


def _duration(seconds: float | None, at_most: bool) -> str:
    if seconds is None:
        return "time unknown"
    prefix = "≤ " if at_most else ""
    if seconds < 90:
        return f"{prefix}{seconds:.0f} s"
    return prefix + (f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h")
