"""What a sweep is going to compile, hold and take: `plan.json` and the table of `--plan`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class GroupPlan:
    """One program and the trials that pass through it.

    Attributes:
      static: the swept hyperparameters that shape the program.
      trials: how many pass through; None where a sampler decides.
      lanes: how many train side by side.
      lanes_per_call: how many one call of the program advances; 1 is sequential.
      devices: over how many the lanes are spread.
      steps_per_epoch: optimizer steps of one epoch.
      epochs: of each trial.
      memory_bytes: of the device, for one call; 0 where it wasn't measured.
      lane_step_seconds: one step of one lane; 0 where it wasn't measured.
      speedup: over one lane at a time; 0 where it wasn't measured.
    """

    static: Mapping[str, Any]
    trials: int | None
    lanes: int
    lanes_per_call: int
    devices: int
    steps_per_epoch: int
    epochs: int
    memory_bytes: int = 0
    lane_step_seconds: float = 0.0
    speedup: float = 0.0

    @property
    def programs(self) -> int:
        """Programs to compile at most: the full one, and smaller ones as the last trials end."""
        return 1 + (self.lanes_per_call - 1).bit_length()

    @property
    def seconds(self) -> float | None:
        """Training time of all its trials if none ends early; None where it isn't known."""
        if not self.lane_step_seconds or self.trials is None:
            return None
        return self.lane_step_seconds * self.steps_per_epoch * self.epochs * self.trials


@dataclass(frozen=True)
class Plan:
    """All groups that are known so far, and what the checkpoints may take.

    Attributes:
      groups: one per program.
      trials: of the whole sweep.
      disk_bytes: of the checkpoints at most.
    """

    groups: tuple[GroupPlan, ...]
    trials: int
    disk_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `plan.json`."""
        groups = [
            {**dataclasses.asdict(g), "static": dict(g.static), "programs": g.programs, "seconds": g.seconds}
            for g in self.groups
        ]
        return {
            "trials": self.trials,
            "disk_bytes": self.disk_bytes,
            "seconds": self._seconds(),
            "groups": groups,
        }

    def __str__(self) -> str:
        head = (
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
        rows = [head, *(_row(group) for group in self.groups)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["  ".join(_align(text, widths[i], i) for i, text in enumerate(row)).rstrip() for row in rows]
        total = (
            f"{self.trials} trials, {_duration(self._seconds())}, checkpoints up to {_size(self.disk_bytes)}"
        )
        return "\n".join([*lines, total])

    def _seconds(self) -> float | None:
        times = [group.seconds for group in self.groups]
        return None if None in times else sum(t for t in times if t is not None)


def _row(group: GroupPlan) -> tuple[str, ...]:
    static = ", ".join(f"{name}={value}" for name, value in group.static.items()) or "all"
    return (
        static,
        "?" if group.trials is None else str(group.trials),
        str(group.lanes),
        f"{group.lanes_per_call} fused" if group.lanes_per_call > 1 else "1",
        str(group.steps_per_epoch),
        str(group.epochs),
        str(group.programs),
        _size(group.memory_bytes),
        f"{group.speedup:.2f}x" if group.speedup else "?",
        _duration(group.seconds),
    )


def _align(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _size(num: int) -> str:
    if not num:
        return "?"
    return f"{num / 2**30:.1f} GiB" if num >= 2**30 else f"{num / 2**20:.0f} MiB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
