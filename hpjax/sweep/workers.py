"""Who trains the lanes of a group: this process, or others that a launcher has started."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.own_code import OwnCode
from hpjax.errors import HpjaxError
from hpjax.lanes.capacity import Choice, choose_layout, count_devices, device_memory_limit, fixed_choice
from hpjax.lanes.engine import Engine, EpochResult, Layout
from hpjax.lanes.group import trial_hparams
from hpjax.lanes.machine import describe_machine
from hpjax.lanes.program import Program
from hpjax.lanes.shuffle import Shuffle
from hpjax.lanes.task import Task
from hpjax.ops import tuning
from hpjax.ops.memory import usable_cores
from hpjax.search.trial import Trial
from hpjax.store.parts import SavedLanes
from hpjax.sweep.inputs import Files
from hpjax.sweep.surroundings import describe_surroundings
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import Sums

T = TypeVar("T")
Arrays = dict[str, np.ndarray]  # of some lanes, each with a leading axis of them
PROGRAMS_KEPT = 4  # groups' compiled programs that live at once in a process


class WorkersLost(HpjaxError):
    """A worker, or what runs it, died or hangs: its lanes are gone; says which."""


class LaneLimit(NamedTuple):
    """Lanes of one device at most; 0: as many as planned."""

    at_once: int = 0  # that the calls under way advance, with all that a step needs
    resident: int = 0  # whose state is in its memory


@dataclass(frozen=True)
class Work:
    """What the lanes of a group do.

    Attributes:
      sweep: names the sweep, as long as a process has it open.
      key: what its trials have in common.
      config: the sweep's.
      first: one of its trials.
      tests_each_epoch: whether the test split is evaluated each epoch.
      fingerprints: of the sweep's data sets.
      files: hashes of the code and the weights that shape its results.
      code: of the user's own, as it was read when the sweep began.
      given: arrays that the sweep was given in a call, if any.
    """

    sweep: str
    key: str
    config: Config
    first: Trial
    tests_each_epoch: bool
    fingerprints: dict[str, str]
    files: Files
    code: Mapping[Path, OwnCode]
    given: Any = None

    @property
    def of_trial(self) -> Config:
        """The first trial's configuration."""
        return apply_hyperparameters(self.config, self.first.hyperparameters)

    @property
    def hparams(self) -> Hparams:
        """The first trial's dynamic hyperparameters."""
        return trial_hparams(self.of_trial, self.first.seed)


class Asked(NamedTuple):
    """What is asked of a layout; see `choose_layout`."""

    wanted: int
    count: int
    strategy: str
    devices: int
    name: str
    lane_steps: int
    in_step: bool


class Device(NamedTuple):
    """What a worker trains on.

    Attributes:
      kind: in words, for a line.
      name: as `made_with` of a summary has it.
      machine: what shapes the last bits of results; see `describe_machine`.
    """

    kind: str
    name: str
    machine: dict[str, Any]


class Lanes(Protocol):
    """Lanes of one program, wherever they are; see `hpjax.lanes.engine.Engine`, which has them here."""

    program: Program
    task: Task
    layout: Layout

    @property
    def num_lanes(self) -> int:
        """How many lanes there are, busy or idle."""
        ...

    @property
    def lanes_per_device(self) -> int:
        """How many of them the device has that has most."""
        ...

    @property
    def traces(self) -> int:
        """How often a training step was traced: once for each shape of a call, if all is well."""
        ...

    def admit(self, lane: int, hparams: Hparams) -> None:
        """Puts a fresh trial into `lane`."""

    def put(self, lane: int, arrays: dict[str, np.ndarray]) -> None:
        """Puts a trial into `lane` that goes on from what `take_out` returned."""

    def take_out(self, lane: int) -> dict[str, np.ndarray]:
        """Returns host copies of everything that a lane goes on from."""
        ...

    def run_epoch(self, shuffles: Sequence[Shuffle | None], splits: Sequence[str]) -> EpochResult:
        """Trains all lanes for one epoch and evaluates them."""
        ...

    def evaluate(self, split: str) -> Sums:
        """Returns each lane's sums over a split."""
        ...

    def keep_best(self, scores: np.ndarray) -> None:
        """Notes the present weights of each lane whose score is its highest so far."""

    def weights(self, lane: int) -> dict[str, Any]:
        """Returns a lane's best weights as nested dicts of host arrays."""
        ...

    def copy_lanes(self, sources: list[int]) -> None:
        """Makes lane i go on from the weights and optimizer state of lane `sources[i]`, as itself."""

    def set_hparams(self, lane: int, hparams: Hparams) -> None:
        """Gives a lane other hyperparameters."""

    def shrink(self, busy: Sequence[int]) -> list[int] | None:
        """Drops idle lanes where that saves work; returns which stay, None where nothing changed."""
        ...

    def change_layout(self, layout: Layout) -> None:
        """Goes on with the same lanes in another layout."""

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns host copies of everything that `restore` needs."""
        ...

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Puts back what `snapshot` returned, from any layout and number of lanes."""


class Crew(Protocol):
    """Workers that a group has to itself."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    def available_bytes(self) -> int:
        """Returns how much memory one of them has left."""
        ...

    def choose_layout(
        self, work: Work, program: Program, task: Task, asked: Asked, limit: LaneLimit
    ) -> Choice:
        """Returns how one of them is to train its lanes."""
        ...

    def create_lanes(
        self,
        work: Work,
        program: Program,
        task: Task,
        num_lanes: int,
        layout: Layout,
        should_stop: Callable[[], bool],
    ) -> Lanes:
        """Returns lanes that are spread over all of them."""
        ...

    def join(self, crew: "Crew") -> None:
        """Takes in the workers of another one."""

    def spread(self, lanes: Lanes, num_lanes: int) -> None:
        """Spreads lanes over all of them; those beyond the ones that there are, are idle."""

    def save(self, lanes: Lanes, folder: Path | None) -> Arrays | SavedLanes:
        """Returns everything that `restore` needs.

        Args:
          lanes: theirs.
          folder: of the workdir, for lanes in parts; None where `Workers.are_elsewhere` is False.
        """
        ...

    def restore(self, lanes: Lanes, saved: Arrays | SavedLanes) -> None:
        """Puts back what whichever workers saved, in whatever layout and number of lanes."""


class Workers(Protocol):
    """Processes that train lanes, each with devices of its own."""

    @property
    def are_elsewhere(self) -> bool:
        """Whether their lanes are in other processes, each of which may save its own."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def welcome(self) -> None:
        """Takes in those that have come since."""

    def are_leaving(self) -> bool:
        """Returns whether one of them is soon to end, as whoever runs it has given notice."""
        ...

    def recover(self) -> None:
        """Starts again, elsewhere, those that were lost or are leaving, after `WorkersLost`.

        None has a group then. Waits until there is one.
        """

    def describe(self) -> Device:
        """Returns what one of them trains on."""
        ...

    def lend(self, num: int) -> Crew:
        """Returns so many that have no group, for one."""
        ...

    def take_back(self, crew: Crew) -> None:
        """A group is at its end: those that it had may have another one."""


class Here:
    """This process, as all workers and as those of a group."""

    are_elsewhere = False
    size = 1

    def welcome(self) -> None:
        """Does nothing: it is there."""

    def are_leaving(self) -> bool:
        """Returns False: whoever ends it sends a signal."""
        return False

    def recover(self) -> None:
        """Does nothing: it can't lose itself."""

    def describe(self) -> Device:
        """Returns what it trains on."""
        kind = jax.devices()[0].device_kind
        if jax.default_backend() == "cpu":
            kind = f"{kind} ({usable_cores()} cores)"
        return Device(kind, describe_surroundings()["device"], describe_machine())

    def lend(self, num: int) -> "Here":
        """Returns itself."""
        assert num == 1
        return self

    def take_back(self, crew: Crew) -> None:
        """Does nothing: it has no other group."""

    def available_bytes(self) -> int:
        """Returns how much memory its devices have left, each."""
        return device_memory_limit()

    def choose_layout(
        self, work: Work, program: Program, task: Task, asked: Asked, limit: LaneLimit
    ) -> Choice:
        """Returns how it is to train a group's lanes; measures that where it isn't fixed."""
        tuning.enable(work.config.lanes.tune)
        if limit.at_once:  # what may not fit isn't measured
            most = min(asked.count or asked.wanted, limit.resident * count_devices(asked.devices))
            return fixed_choice(asked.strategy, most, asked.devices, limit.at_once)
        return choose_layout(program, task, work.hparams, *asked)

    def create_lanes(
        self,
        work: Work,
        program: Program,
        task: Task,
        num_lanes: int,
        layout: Layout,
        should_stop: Callable[[], bool],
    ) -> Engine:
        """Returns lanes on its devices."""
        tuning.enable(work.config.lanes.tune)
        return Engine(program, task, work.hparams, num_lanes, layout, should_stop)

    def join(self, crew: Crew) -> None:
        """Isn't asked for: there are no others."""
        raise NotImplementedError

    def spread(self, lanes: Lanes, num_lanes: int) -> None:
        """Isn't asked for: there are no others."""
        raise NotImplementedError

    def save(self, lanes: Lanes, folder: Path | None) -> Arrays | SavedLanes:
        """Returns host copies of everything that `restore` needs."""
        del folder
        return lanes.snapshot()

    def restore(self, lanes: Lanes, saved: Arrays | SavedLanes) -> None:
        """Puts back what whichever workers saved, in whatever layout and number of lanes."""
        lanes.restore(saved.load() if isinstance(saved, SavedLanes) else saved)


def deal(sizes: Sequence[int], workers: int) -> list[int]:
    """Returns how many workers the first groups have, side by side: one each, more where most trials are.

    Args:
      sizes: trials of each group that waits, the first one first.
      workers: how many there are, at least one.
    """
    dealt = [1] * min(len(sizes), workers)
    for _ in range(workers - len(dealt) if dealt else 0):
        shares = [size / given for size, given in zip(sizes, dealt, strict=False)]
        if max(shares) > 1:  # a worker without a trial is of no use
            dealt[shares.index(max(shares))] += 1
    return dealt


def find_or_create(programs: dict[str, T], key: str, create: Callable[[], T]) -> T:
    """Returns what there is under a key, or creates it; it is the newest then, and the oldest may go."""
    found = programs.pop(key, None)
    programs[key] = create() if found is None else found
    if len(programs) > PROGRAMS_KEPT:
        del programs[next(iter(programs))]
    return programs[key]
