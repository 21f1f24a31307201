"""Lanes at work: shards of a population, one or more devices, one epoch at a time.

A shard is a population that one call of the compiled program advances, an equal part of it on each device.
All lanes in one shard are fused; a shard of a lane per device is sequential training. Whoever drives the
engine sees lanes numbered from 0 and never a shard, nor the lanes that fill up the last one where the devices
don't divide it.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.data.batches import stream_batches
from hpjax.lanes.mesh import first_devices
from hpjax.lanes.population import (
    Population,
    check_arrays,
    concatenate,
    continue_as,
    from_arrays,
    lane_arrays,
    lane_weights,
    to_arrays,
)
from hpjax.lanes.program import Program, create_population
from hpjax.lanes.residents import place
from hpjax.lanes.shuffle import Shuffle, agree, draw_for, fill_idle
from hpjax.lanes.task import Task
from hpjax.ops.compiler import compile_seconds
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import Sums
from hpjax.train.state import TrainState
from hpjax.train.step import Batch


@dataclass(frozen=True)
class Layout:
    """How lanes lie on the devices and how steps are called."""

    lanes_per_shard: int  # lanes of each device that one call advances
    steps_per_call: int = 1  # 1: a call a step; more: a loop on the device
    devices: int = 1  # every call is on all of these
    threads: int = 1  # of the host, that shards are run in; more keep a CPU's cores busier

    @property
    def at_once(self) -> int:
        """How many lanes of one device the calls under way advance."""
        return self.lanes_per_shard * self.threads


class EpochResult(NamedTuple):
    """What an epoch gave; every array has one entry per lane."""

    train: Sums
    evaluated: dict[str, Sums]
    diverged_step: np.ndarray  # -1: healthy
    train_seconds: float  # wall time of training alone, compiling apart
    own: bool  # lanes of one call took batches of their own: they were at different passes
    compile_seconds: float = 0.0  # of all that was done


class Stopped(Exception):
    """An epoch was left unfinished because the engine's owner asked to stop."""


class Engine:
    """K lanes of one program.

    Args:
      program: the group's compiled functions.
      task: data and batch size.
      hparams: hyperparameters of idle lanes; any trial's will do.
      num_lanes: K.
      layout: shards, steps per call, devices.
      should_stop: asked between two steps.
    """

    def __init__(
        self,
        program: Program,
        task: Task,
        hparams: Hparams,
        num_lanes: int,
        layout: Layout,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        self._mesh = first_devices(layout.devices)
        self.program, self.task, self.layout = program.on(self._mesh), task, layout
        self._should_stop = should_stop
        for split in [*task.evaluated.values(), *([] if task.streamed else [task.train])]:
            place(split, self._mesh)
        self._num_lanes = num_lanes
        sizes = self._shard_sizes(num_lanes)
        self._shards = [create_population(program, self._mesh, hparams, size) for size in sizes]
        self._dispatch = threading.Lock()
        self._trained: set[tuple[int, bool]] = set()  # lanes of a call, whether their batches were their own

    @property
    def num_lanes(self) -> int:
        """How many lanes there are, busy or idle."""
        return self._num_lanes

    @property
    def lanes_per_device(self) -> int:
        """How many of them the device has that has most."""
        return -(-self._num_lanes // self.layout.devices)

    @property
    def traces(self) -> int:
        """How often a training step was traced for the calls that were made: once each, if all is well."""
        return sum(self.program.traces["train", size, own] for size, own in self._trained)

    def admit(self, lane: int, hparams: Hparams) -> None:
        """Puts a fresh trial into `lane`."""
        self._insert(lane, jax.device_put(self.program.create(hparams), self._mesh.everywhere))

    def put(self, lane: int, arrays: dict[str, np.ndarray]) -> None:
        """Puts a trial into `lane` that goes on from what `take_out` returned."""
        check_arrays(self._shards[0], {name: array[None] for name, array in arrays.items()})
        self._insert(lane, from_arrays(self._shards[0], arrays, self._mesh.everywhere))

    def take_out(self, lane: int) -> dict[str, np.ndarray]:
        """Returns host copies of everything that a lane goes on from."""
        return lane_arrays(*self._piece(lane))

    def run_epoch(self, shuffles: Sequence[Shuffle | None], splits: Sequence[str]) -> EpochResult:
        """Trains all lanes for one epoch and evaluates them.

        Args:
          shuffles: the pass over the training examples that each lane takes; None: the lane is idle. Lanes
            of one shard that take the same one share its batches.
          splits: which of `task.evaluated` to evaluate on.

        Raises:
          Stopped: `should_stop()` turned true between two steps; the lanes are then between two epochs
            no more.
        """
        parts, compiled = self._split(shuffles), compile_seconds()
        with _timed() as clock:
            train = self._join(self._each_shard(lambda i: self._train_shard(i, parts[i])))
        evaluated = {name: self.evaluate(name) for name in splits}
        diverged = self._join([shard.state.diverged_step for shard in self._shards])
        own, compiled = not all(map(agree, parts)), compile_seconds() - compiled
        return EpochResult(train, evaluated, diverged, clock.seconds, own, compiled)

    def evaluate(self, split: str) -> Sums:
        """Returns each lane's sums over a split of `task.evaluated`."""
        return self._join(self._each_shard(lambda i: self._evaluate_shard(i, split)))

    def keep_best(self, scores: np.ndarray) -> None:
        """Notes the present weights of each lane whose score (higher is better) is its highest so far."""
        for i, part in enumerate(self._split(scores.tolist(), -np.inf)):
            placed = jax.device_put(np.array(part, np.float32), self._mesh.lanes)
            self._shards[i] = self.program.keep_best(self._shards[i], placed)

    def weights(self, lane: int) -> dict:
        """Returns a lane's best weights as nested dicts of host arrays."""
        return lane_weights(*self._piece(lane))

    def copy_lanes(self, sources: list[int]) -> None:
        """Makes lane i go on from the weights and optimizer state of lane `sources[i]`, as itself."""
        own = self._shards
        self.rearrange(sources)
        self._shards = [continue_as(*pair) for pair in zip(self._shards, own, strict=True)]

    def set_hparams(self, lane: int, hparams: Hparams) -> None:
        """Gives a lane other hyperparameters."""
        i, index = self._find(lane)
        shard, new = self._shards[i], jax.device_put(hparams, self._mesh.everywhere)
        self._shards[i] = shard._replace(hparams=self.program.insert(shard.hparams, jnp.asarray(index), new))

    def shrink(self, busy: Sequence[int]) -> list[int] | None:
        """Drops idle lanes where that saves work.

        The number of lanes is halved as long as the busy ones fit, so that few sizes are ever compiled, and
        shards of idle lanes alone are dropped.

        Args:
          busy: the lanes that have a trial, in order.

        Returns:
          Which lanes stay, in their new order; None where nothing changed.
        """
        per_call = self.layout.lanes_per_shard * self._mesh.size
        size = smaller_size(self.num_lanes, len(busy), per_call)
        if size is None:
            return None
        idle = [lane for lane in range(self.num_lanes) if lane not in busy]
        kept = [*busy, *idle[: size - len(busy)]]
        self.rearrange(kept)
        return kept

    def rearrange(self, sources: Sequence[int]) -> None:
        """Makes lane i what lane `sources[i]` was; fewer sources than lanes shrink the program."""
        sizes, devices = self._shard_sizes(len(sources)), self._mesh.devices
        filled = [*sources, *[sources[0]] * (sum(sizes) * len(devices) - len(sources))]
        shards, taken = [], iter(filled)
        for size in sizes:
            parts = [[next(taken) for _ in range(size)] for _ in devices]
            shards.append(self._mesh.join(list(map(self._gather, parts, devices))))
        self._shards, self._num_lanes = shards, len(sources)

    def change_layout(self, layout: Layout) -> None:
        """Goes on with the same lanes in another layout on the same devices."""
        assert layout.devices == self.layout.devices
        self.layout = layout
        self.rearrange(range(self.num_lanes))

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns host copies of everything that `restore` needs."""
        shards = [to_arrays(shard) for shard in _on_their_way(self._shards)]
        names = shards[0]
        return {name: np.concatenate([s[name] for s in shards])[: self._num_lanes] for name in names}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Puts back what `snapshot` returned, from any layout and number of lanes."""
        check_arrays(self._shards[0], arrays)
        self._num_lanes = len(next(iter(arrays.values())))
        bounds = np.cumsum([0, *self._shard_sizes(self._num_lanes)]) * self._mesh.size
        # A lane that fills up the last shard is a copy of the first.
        rows = [i if i < self._num_lanes else 0 for i in range(bounds[-1])]
        self._shards = [
            from_arrays(self._shards[0], {name: v[rows[a:b]] for name, v in arrays.items()}, self._mesh.lanes)
            for a, b in itertools.pairwise(bounds)
        ]

    def _each_shard(self, work: Callable[[int], Sums]) -> list[Sums]:
        """Returns what `work` gives for each shard; threads work side by side."""
        shards, workers = range(len(self._shards)), self.layout.threads
        if workers == 1:
            return [work(i) for i in shards]
        with ThreadPoolExecutor(workers) as pool:
            take = lambda first: [jax.block_until_ready(work(i)) for i in shards[first::workers]]  # noqa: E731
            by_worker = list(pool.map(take, range(workers)))
        return [by_worker[i % workers][i // workers] for i in shards]

    def _train_shard(self, i: int, shuffles: Sequence[Shuffle | None]) -> Sums:
        shard, own = self._shards[i], not agree(shuffles)
        self._trained.add((_size(shard) // self._mesh.size, own))
        drawn = draw_for(fill_idle(shuffles), len(self.task.train), self.task.batch_size, own)
        order, key = jax.device_put(tuple(drawn), self._mesh.lanes if own else self._mesh.everywhere)
        sums = self._zero_sums(i)
        steps = self._streamed_steps if self.task.streamed else self._resident_steps
        state, sums = steps(i, sums, order, key)
        self._shards[i] = shard._replace(state=state)
        return sums

    def _resident_steps(self, i: int, sums: Sums, order, key) -> tuple[TrainState, Sums]:
        program, task, shard = self.program, self.task, self._shards[i]
        data = place(task.train, self._mesh)
        full, rest = divmod(len(task.train), task.batch_size)
        state, hparams, most = shard.state, shard.hparams, self.layout.steps_per_call
        for start in range(0, full, most):
            if self._should_stop():
                raise Stopped
            stop = min(start + most, full)
            with self._dispatch:  # so that one thread compiles, and the others find it done
                state, sums = program.train(state, sums, hparams, data, order, key, start, stop, most)
        if rest and task.keep_remainder:
            mask = self._mask(rest)
            with self._dispatch:
                state, sums = program.train_one(state, sums, hparams, data, order, key, full, mask)
        return state, sums

    def _streamed_steps(self, i: int, sums: Sums, order, key) -> tuple[TrainState, Sums]:
        task, shard = self.task, self._shards[i]
        full, state = len(task.train) // task.batch_size, shard.state
        rows = np.moveaxis(np.asarray(order), -2, 0)[: task.steps_per_epoch]  # steps first, then any lanes
        for step, host in enumerate(stream_batches(task.train, rows)):
            if self._should_stop():
                raise Stopped
            mask = None if step < full else self._mask(len(task.train) % task.batch_size)
            placing = self._mesh.lanes if rows.ndim == 3 else self._mesh.everywhere
            batch = Batch(*jax.device_put((*host, mask), (placing, placing, self._mesh.everywhere)))
            with self._dispatch:
                state, sums = self.program.train_batch(state, sums, shard.hparams, batch, key, step)
        return state, sums

    def _mask(self, real: int) -> np.ndarray:
        return (np.arange(self.task.batch_size) < real).astype(np.float32)

    def _evaluate_shard(self, i: int, split: str) -> Sums:
        (state, hparams, _), task = self._shards[i], self.task
        data = place(task.evaluated[split], self._mesh)
        if self.layout.steps_per_call > 1:
            with self._dispatch:
                return self.program.evaluate_many(state, data, task.eval_batch_size, hparams.options)
        sums = self._zero_sums(i)
        for step in range(-(-data.labels.shape[0] // task.eval_batch_size)):
            with self._dispatch:
                sums = self.program.evaluate_one(
                    state, sums, data, step, task.eval_batch_size, hparams.options
                )
        return sums

    def _gather(self, lanes: Sequence[int], device: Any) -> Population:
        """Returns a shard on `device` of lanes from anywhere; only they travel."""
        parts = []
        for (i, source), run in itertools.groupby(map(self._locate, lanes), key=lambda found: found[:2]):
            piece, indices = self._mesh.pieces(self._shards[i])[source], [index for *_, index in run]
            parts.append(jax.device_put(self.program.take(piece, jnp.asarray(indices)), device))
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def _insert(self, lane: int, trial: Population) -> None:
        shard, index = self._find(lane)
        self._shards[shard] = self.program.insert(self._shards[shard], jnp.asarray(index), trial)

    def _zero_sums(self, i: int) -> Sums:
        return jax.device_put(self.program.zero_sums(_size(self._shards[i])), self._mesh.lanes)

    def _piece(self, lane: int) -> tuple[Population, int]:
        """Returns the lanes that lie with a lane on a device, and which of them it is."""
        shard, device, index = self._locate(lane)
        return self._mesh.pieces(self._shards[shard])[device], index

    def _locate(self, lane: int) -> tuple[int, int, int]:
        """Returns the shard of a lane, the device and which of that device's lanes it is."""
        shard, index = self._find(lane)
        return (shard, *divmod(index, _size(self._shards[shard]) // self._mesh.size))

    def _find(self, lane: int) -> tuple[int, int]:
        for i, shard in enumerate(self._shards):
            if lane < _size(shard):
                return i, lane
            lane -= _size(shard)
        raise IndexError(lane)

    def _split(self, per_lane: Sequence[Any], idle: Any = None) -> list[Any]:
        """Returns each shard's part of what there is for every lane; `idle` is for those that fill up."""
        bounds = np.cumsum([0, *map(_size, self._shards)])
        filled = [*per_lane, *[idle] * (int(bounds[-1]) - len(per_lane))]
        return [filled[a:b] for a, b in itertools.pairwise(bounds)]

    def _join(self, per_shard: Sequence[Any]) -> Any:
        """Returns host arrays with an entry per lane, of each shard's."""
        join = lambda *parts: np.concatenate(parts)[: self._num_lanes]  # noqa: E731
        return jax.tree.map(join, *jax.device_get(per_shard))

    def _shard_sizes(self, num_lanes: int) -> list[int]:
        """Returns the lanes that each device has of each shard."""
        per_shard, devices = self.layout.lanes_per_shard, self._mesh.size
        full, rest = divmod(num_lanes, per_shard * devices)
        return [per_shard] * full + [-(-rest // devices)] * bool(rest)


def smaller_size(num_lanes: int, busy: int, per_call: int) -> int | None:
    """Returns how many lanes are left where so many are busy; None where all stay.

    Args:
      num_lanes: busy or idle.
      busy: of them.
      per_call: that one call advances.
    """
    size = num_lanes
    while busy and size // 2 >= busy:
        size //= 2
    size = min(size, -(-busy // per_call) * per_call)
    return size if busy and size < num_lanes else None


@dataclass
class _Clock:
    seconds: float = 0.0


@contextlib.contextmanager
def _timed() -> Iterator[_Clock]:
    """Measures the wall time of a block without what was compiled in it."""
    clock, start, compiled = _Clock(), time.perf_counter(), compile_seconds()
    yield clock
    clock.seconds = max(time.perf_counter() - start - (compile_seconds() - compiled), 1e-9)


def _on_their_way(shards: list[Population]) -> list[Population]:
    """Starts all transfers to the host before the first is waited for."""
    for leaf in jax.tree.leaves(shards):
        leaf.copy_to_host_async()
    return shards


def _size(shard: Population) -> int:
    return shard.state.step.shape[0]
