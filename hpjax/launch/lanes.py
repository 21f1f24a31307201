"""Lanes that are spread over the engines of several workers, and seen as one engine's.

Lanes are numbered through: the first worker has the first ones. Numbers of lanes differ by one at most.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from hpjax.lanes.engine import EpochResult, Layout, smaller_size
from hpjax.lanes.population import continue_arrays_as
from hpjax.lanes.program import Program
from hpjax.lanes.shuffle import Shuffle
from hpjax.lanes.task import Task
from hpjax.store.parts import Part, SavedLanes
from hpjax.sweep.workers import Work
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import Sums

Call = tuple[Any, str, tuple]  # worker, method, arguments


class Pool(Protocol):
    """What reaches the workers; see `hpjax.launch.ray.RayWorkers.ask`."""

    def ask(
        self, calls: Sequence[Call], should_stop: Callable[[], bool] | None = None, to_the_end: bool = False
    ) -> list[Any]:
        """Returns what workers answer; they work side by side."""
        ...


class SpreadLanes:
    """Lanes of one program on several workers; see `hpjax.sweep.workers.Lanes` for what it does.

    Args:
      pool: reaches the workers.
      workers: those that have lanes, as the pool knows them.
      work: what the lanes do.
      program: the group's functions, here.
      task: what the group learns.
      num_lanes: on all workers.
      layout: of each worker's lanes.
      should_stop: asked while an epoch runs.

    Attributes:
      workers: as above; those of them that came last may have no lane.
    """

    def __init__(
        self,
        pool: Pool,
        workers: Sequence[Any],
        work: Work,
        program: Program,
        task: Task,
        num_lanes: int,
        layout: Layout,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        self._pool, self.workers, self._work = pool, list(workers), work
        self.program, self.task, self.layout, self._should_stop = program, task, layout, should_stop
        self._sizes = [0] * len(self.workers)
        self._resize(self._even(num_lanes))

    @property
    def num_lanes(self) -> int:
        """How many lanes there are, busy or idle."""
        return sum(self._sizes)

    @property
    def lanes_per_device(self) -> int:
        """How many of them the device has that has most."""
        return -(-max(self._sizes) // self.layout.devices)

    @property
    def traces(self) -> int:
        """How often the worker that did so most traced a training step."""
        return max(self._ask_all("call", "traces"))

    def admit(self, lane: int, hparams: Hparams) -> None:
        """Puts a fresh trial into `lane`."""
        self._ask_one(lane, "admit", jax.device_get(hparams))

    def put(self, lane: int, arrays: dict[str, np.ndarray]) -> None:
        """Puts a trial into `lane` that goes on from what `take_out` returned."""
        self._ask_one(lane, "put", arrays)

    def take_out(self, lane: int) -> dict[str, np.ndarray]:
        """Returns host copies of everything that a lane goes on from."""
        return self._ask_one(lane, "take_out")

    def run_epoch(self, shuffles: Sequence[Shuffle | None], splits: Sequence[str]) -> EpochResult:
        """Trains all lanes for one epoch and evaluates them, all workers at once.

        Raises:
          Stopped: `should_stop()` turned true.
        """
        parts = [("run_epoch", part, tuple(splits)) for part in self._split(shuffles)]
        results: list[EpochResult] = self._ask_each("call", parts, self._should_stop)
        return EpochResult(
            _join([result.train for result in results]),
            {name: _join([result.evaluated[name] for result in results]) for name in splits},
            np.concatenate([result.diverged_step for result in results]),
            max(result.train_seconds for result in results),
            any(result.own for result in results),
            max(result.compile_seconds for result in results),
        )

    def evaluate(self, split: str) -> Sums:
        """Returns each lane's sums over a split."""
        return _join(self._ask_all("call", "evaluate", split))

    def keep_best(self, scores: np.ndarray) -> None:
        """Notes the present weights of each lane whose score is its highest so far."""
        self._ask_each("call", [("keep_best", np.asarray(part)) for part in self._split(scores)])

    def weights(self, lane: int) -> dict[str, Any]:
        """Returns a lane's best weights as nested dicts of host arrays."""
        return self._ask_one(lane, "weights")

    def copy_lanes(self, sources: list[int]) -> None:
        """Makes lane i go on from the weights and optimizer state of lane `sources[i]`, as itself."""
        places = [self._find(lane) for lane in range(self.num_lanes)]
        far = [lane for lane, source in enumerate(sources) if places[lane][0] != places[source][0]]
        copied = {source: self.take_out(source) for source in {sources[lane] for lane in far}}
        near: list[list[int]] = [list(range(size)) for size in self._sizes]
        for lane, source in enumerate(sources):
            if lane not in far:
                worker, index = places[lane]
                near[worker][index] = places[source][1]
        self._ask_each("call", [("copy_lanes", near[worker]) for worker in self._used()])
        for lane in far:
            self.put(lane, continue_arrays_as(copied[sources[lane]], self.take_out(lane)))

    def set_hparams(self, lane: int, hparams: Hparams) -> None:
        """Gives a lane other hyperparameters."""
        self._ask_one(lane, "set_hparams", jax.device_get(hparams))

    def shrink(self, busy: Sequence[int]) -> list[int] | None:
        """Drops idle lanes where that saves work, and spreads those that are left evenly.

        Args:
          busy: the lanes that have a trial, in order.

        Returns:
          Which lanes stay, in their new order; None where nothing changed.
        """
        per_call = self.layout.lanes_per_shard * self.layout.devices * len(self.workers)
        size = smaller_size(self.num_lanes, len(busy), per_call)
        if size is None:
            return None
        idle = [lane for lane in range(self.num_lanes) if lane not in busy]
        kept = sorted([*busy, *idle[: size - len(busy)]])
        self._rearrange(kept)
        return kept

    def change_layout(self, layout: Layout) -> None:
        """Goes on with the same lanes in another layout."""
        self._ask_all("call", "change_layout", layout)
        self.layout = layout

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns host copies of everything that `restore` needs."""
        parts = self._ask_all("call", "snapshot")
        # One by one, so that what is in memory twice is one array.
        return {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Puts back what `snapshot` returned, from any layout, workers and number of lanes."""
        self._resize(self._even(len(next(iter(arrays.values())))))
        parts = [{name: array[a:b] for name, array in arrays.items()} for a, b in self._bounds()]
        self._ask_each("call", [("restore", part) for part in parts])

    def write(self, folder: Path) -> tuple[Part, ...] | None:
        """Has each worker write its lanes into a folder; returns None, and writes nothing, if one can't."""
        if not all(self._ask_all("can_write", str(folder))):
            return None
        calls = [(self.workers[i], "write_lanes", (str(folder),)) for i in self._used()]
        return tuple(self._pool.ask(calls, to_the_end=True))

    def read(self, saved: SavedLanes) -> None:
        """Puts back what `write` has written, as `restore` does; each worker reads what it needs."""
        self._resize(self._even(saved.num_lanes))
        self._ask_each("restore_lanes", [(saved, a, b) for a, b in self._bounds()])

    def take_in(self, workers: Sequence[Any], num_lanes: int) -> None:
        """Spreads lanes evenly over more workers.

        Args:
          workers: those that come.
          num_lanes: on all workers; those that come after the ones that there are, are idle.
        """
        self.workers += workers
        self._sizes += [0] * len(workers)
        self._rearrange([*range(self.num_lanes), *[None] * (num_lanes - self.num_lanes)])

    def _rearrange(self, sources: Sequence[int | None]) -> None:
        """Makes lane i what lane `sources[i]` was; what changes its worker travels by way of this process."""
        places = [self._find(source or 0) for source in sources]  # an idle lane is a copy of any
        sizes = self._even(len(sources))
        bounds = list(itertools.pairwise(np.cumsum([0, *sizes])))
        owner = [worker for worker, (a, b) in enumerate(bounds) for _ in range(a, b)]
        moving = {
            lane: self.take_out(source)
            for lane, source in enumerate(sources)
            if source is not None and places[lane][0] != owner[lane]
        }
        calls = []
        for worker, (a, b) in enumerate(bounds):
            # A lane that comes from elsewhere is another's copy until it is put there.
            local = [places[lane][1] if lane not in moving else 0 for lane in range(a, b)]
            if b > a and self._sizes[worker] and local != list(range(self._sizes[worker])):
                calls.append((self.workers[worker], "call", ("rearrange", local)))
        self._pool.ask(calls)
        self._sizes = [
            size if before and size else before for before, size in zip(self._sizes, sizes, strict=True)
        ]
        self._resize(sizes)
        for lane, arrays in moving.items():
            self.put(lane, arrays)

    def _resize(self, sizes: list[int]) -> None:
        """Has each worker make, or let go of, as many lanes as it is to have, where they aren't as many."""
        calls: list[Call] = []
        for worker, before, size in zip(self.workers, self._sizes, sizes, strict=True):
            if size and size != before:
                calls.append((worker, "create_lanes", (self._work, size, self.layout)))
            elif before and not size:
                calls.append((worker, "drop_lanes", ()))
        self._pool.ask(calls)
        self._sizes = sizes

    def _even(self, num_lanes: int) -> list[int]:
        each, more = divmod(num_lanes, len(self.workers))
        return [each + (worker < more) for worker in range(len(self.workers))]

    def _used(self) -> list[int]:
        return [worker for worker, size in enumerate(self._sizes) if size]

    def _find(self, lane: int) -> tuple[int, int]:
        for worker, size in enumerate(self._sizes):
            if lane < size:
                return worker, lane
            lane -= size
        raise IndexError(lane)

    def _split(self, per_lane: Sequence[Any] | np.ndarray) -> list[Any]:
        return [per_lane[a:b] for a, b in self._bounds()]

    def _bounds(self) -> list[tuple[int, int]]:
        """Returns the first lane, and that after the last one, of each worker that has lanes."""
        cuts = np.cumsum([0, *self._sizes]).tolist()
        return [(a, b) for a, b in itertools.pairwise(cuts) if b > a]

    def _ask_one(self, lane: int, name: str, *args: Any) -> Any:
        worker, index = self._find(lane)
        return self._pool.ask([(self.workers[worker], "call", (name, index, *args))])[0]

    def _ask_all(self, method: str, *args: Any) -> list[Any]:
        return self._ask_each(method, [args] * len(self._used()))

    def _ask_each(
        self, method: str, args: Sequence[tuple], should_stop: Callable[[], bool] | None = None
    ) -> list[Any]:
        """Returns the answers of the workers that have lanes, of each to its own arguments."""
        calls = [(self.workers[i], method, own) for i, own in zip(self._used(), args, strict=True)]
        return self._pool.ask(calls, should_stop)


def _join(sums: Sequence[Sums]) -> Sums:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *sums)
