"""Lanes at work: shards of a population, one or more devices, one epoch at a time.

A shard is a population that one call of the compiled program advances. All lanes in one shard are fused; a
shard per lane is sequential training; a shard per device spreads the lanes. Whoever drives the engine sees
lanes numbered from 0 and never a shard.
"""

import dataclasses
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.data.batches import epoch_order, stream_batches
from hpjax.data.dataset import Split
from hpjax.lanes.population import (
    Population,
    concatenate,
    continue_as,
    from_arrays,
    lane_weights,
    set_hparams,
    set_weights,
    to_arrays,
)
from hpjax.lanes.program import (
    Examples,
    Program,
    augment_key,
    create_population,
    lane_orders,
    order_key,
)
from hpjax.lanes.task import Task
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import Sums, zero_sums
from hpjax.train.state import TrainState
from hpjax.train.step import Batch


@dataclass(frozen=True)
class Layout:
    """How lanes lie on the devices and how steps are called."""

    lanes_per_shard: int  # lanes that one call advances
    steps_per_call: int = 1  # 1: a call a step; more: a loop on the device
    devices: int = 1  # shards go round these
    threads: int = 1  # of the host, that shards are run in; more than one keeps a CPU's cores busier


class EpochResult(NamedTuple):
    """What an epoch gave; every array has one entry per lane."""

    train: Sums
    evaluated: dict[str, Sums]
    diverged_step: np.ndarray  # -1: healthy


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
        self.program, self.task, self.layout, self._should_stop = program, task, layout, should_stop
        self._devices = jax.devices()[: layout.devices]
        self._data = [] if task.streamed else [_put(task.train, d) for d in self._devices]
        self._evaluated = [
            {name: _put(split, d) for name, split in task.evaluated.items()} for d in self._devices
        ]
        self._order = jax.jit(epoch_order, static_argnums=(1, 2))
        self._lane_orders = jax.jit(lane_orders, static_argnums=(2, 3))
        sizes = _shard_sizes(num_lanes, layout.lanes_per_shard)
        self._shards = self._place([create_population(program, hparams, size) for size in sizes])
        self._dispatch = threading.Lock()

    @property
    def num_lanes(self) -> int:
        """How many lanes there are, busy or idle."""
        return sum(map(_size, self._shards))

    def admit(self, lane: int, hparams: Hparams) -> None:
        """Puts a fresh trial into `lane`."""
        shard, index = self._find(lane)
        trial = jax.device_put(self.program.create(hparams), self._device(shard))
        self._shards[shard] = self.program.insert(self._shards[shard], jnp.asarray(index), trial)

    def run_epoch(self, epoch: int, lane_epochs: list[int], splits: Sequence[str]) -> EpochResult:
        """Trains all lanes for one epoch and evaluates them.

        Args:
          epoch: counts the group's epochs; picks the shared order of examples.
          lane_epochs: each lane's own count, for orders of the lanes' own.
          splits: which of `task.evaluated` to evaluate on.

        Raises:
          Stopped: `should_stop()` turned true between two steps; the lanes are then between two epochs
            no more.
        """
        bounds = np.cumsum([0, *map(_size, self._shards)])
        epochs = [jnp.asarray(lane_epochs[a:b], jnp.int32) for a, b in itertools.pairwise(bounds)]
        train = self._each_shard(lambda i: self._train_shard(i, epoch, epochs[i]))
        evaluated = {name: self._each_shard(lambda i, n=name: self._evaluate_shard(i, n)) for name in splits}
        diverged = np.concatenate([np.asarray(s.state.diverged_step) for s in self._shards])
        return EpochResult(_join(train), {name: _join(sums) for name, sums in evaluated.items()}, diverged)

    def evaluate(self, split: str) -> Sums:
        """Returns each lane's sums over a split of `task.evaluated`."""
        return _join(self._each_shard(lambda i: self._evaluate_shard(i, split)))

    def load_weights(self, lane: int, weights: dict[str, Any]) -> None:
        """Makes `weights`, as `self.weights` gives them, the present ones of a lane."""
        shard, index = self._find(lane)
        state = self._shards[shard].state
        params = set_weights(state.params, index, weights["params"])
        batch_stats = set_weights(state.batch_stats, index, weights.get("batch_stats", {}))
        state = dataclasses.replace(state, params=params, batch_stats=batch_stats)
        self._shards[shard] = self._shards[shard]._replace(state=state)

    def keep_best(self, scores: np.ndarray) -> None:
        """Notes the present weights of each lane whose score (higher is better) is its highest so far."""
        for i, part in enumerate(self._split(scores)):
            self._shards[i] = self.program.keep_best(self._shards[i], jnp.asarray(part, jnp.float32))

    def weights(self, lane: int) -> dict:
        """Returns a lane's best weights as nested dicts of host arrays."""
        shard, index = self._find(lane)
        return lane_weights(self._shards[shard], index)

    def copy_lanes(self, sources: list[int]) -> None:
        """Makes lane i go on from the weights and optimizer state of lane `sources[i]`, as itself."""
        own = self._shards
        self.rearrange(sources)
        self._shards = [continue_as(*pair) for pair in zip(self._shards, own, strict=True)]

    def set_hparams(self, lane: int, hparams: Hparams) -> None:
        """Gives a lane other hyperparameters."""
        shard, index = self._find(lane)
        self._shards[shard] = set_hparams(self._shards[shard], index, hparams)

    def rearrange(self, sources: list[int]) -> None:
        """Makes lane i what lane `sources[i]` was; fewer sources than lanes shrink the program."""
        if len(self._shards) == 1:
            self._shards = [self.program.take(self._shards[0], jnp.asarray(sources))]
        else:
            home = self._devices[0]
            everything = concatenate([jax.device_put(s, home) for s in self._shards])
            bounds = np.cumsum([0, *_shard_sizes(len(sources), self.layout.lanes_per_shard)])
            parts = [sources[a:b] for a, b in itertools.pairwise(bounds)]
            self._shards = self._place([self.program.take(everything, jnp.asarray(p)) for p in parts])

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns host copies of everything that `restore` needs."""
        return to_arrays(concatenate([jax.device_put(s, self._devices[0]) for s in self._shards]))

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Puts back what `snapshot` returned, from any layout and number of lanes."""
        population = from_arrays(self._shards[0], arrays)
        bounds = np.cumsum([0, *_shard_sizes(_size(population), self.layout.lanes_per_shard)])
        parts = [np.arange(a, b) for a, b in itertools.pairwise(bounds)]
        self._shards = self._place([self.program.take(population, jnp.asarray(p)) for p in parts])

    def _each_shard(self, work: Callable[[int], Sums]) -> list[Sums]:
        """Returns what `work` gives for each shard; with threads, several at once."""
        shards = range(len(self._shards))
        if self.layout.threads == 1:
            return [work(i) for i in shards]
        with ThreadPoolExecutor(self.layout.threads) as pool:
            return list(pool.map(lambda i: jax.block_until_ready(work(i)), shards))

    def _train_shard(self, i: int, epoch: int, lane_epochs) -> Sums:
        shard, key = self._shards[i], augment_key(self.task.seed, epoch)
        order = self._epoch_order(shard, epoch, lane_epochs)
        order, key, sums = jax.device_put((order, key, zero_sums((_size(shard),))), self._device(i))
        steps = self._streamed_steps if self.task.streamed else self._resident_steps
        state, sums = steps(i, sums, order, key)
        self._shards[i] = shard._replace(state=state)
        return sums

    def _resident_steps(self, i: int, sums: Sums, order, key) -> tuple[TrainState, Sums]:
        program, task, shard = self.program, self.task, self._shards[i]
        data = self._data[i % len(self._devices)]
        full, rest = divmod(len(task.train), task.batch_size)
        state, hparams, most = shard.state, shard.hparams, self.layout.steps_per_call
        for start in range(0, full, most):
            if self._should_stop():
                raise Stopped
            stop = min(start + most, full)
            with self._dispatch:  # so that one thread compiles, and the others find it done
                state, sums = program.train(state, sums, hparams, data, order, key, start, stop, most)
        if rest and task.keep_remainder:
            with self._dispatch:
                mask = self._mask(rest)
                state, sums = program.train_masked(state, sums, hparams, data, order, key, full, mask)
        return state, sums

    def _streamed_steps(self, i: int, sums: Sums, order, key) -> tuple[TrainState, Sums]:
        task, shard = self.task, self._shards[i]
        full, state = len(task.train) // task.batch_size, shard.state
        for step, host in enumerate(stream_batches(task.train, np.asarray(order)[: task.steps_per_epoch])):
            if self._should_stop():
                raise Stopped
            mask = None if step < full else self._mask(len(task.train) % task.batch_size)
            batch = Batch(*jax.device_put((*host, mask), self._device(i)))
            with self._dispatch:
                state, sums = self.program.train_batch(state, sums, shard.hparams, batch, key, step)
        return state, sums

    def _mask(self, real: int) -> np.ndarray:
        return (np.arange(self.task.batch_size) < real).astype(np.float32)

    def _epoch_order(self, shard: Population, epoch: int, lane_epochs):
        num, batch_size = len(self.task.train), self.task.batch_size
        if self.program.own_order:
            return self._lane_orders(shard.hparams.seed, lane_epochs, num, batch_size)
        return self._order(order_key(self.task.seed, epoch), num, batch_size)

    def _evaluate_shard(self, i: int, split: str) -> Sums:
        state, task = self._shards[i].state, self.task
        data = self._evaluated[i % len(self._devices)][split]
        if self.layout.steps_per_call > 1:
            with self._dispatch:
                return self.program.evaluate_many(state, data, task.eval_batch_size)
        sums = jax.device_put(zero_sums((_size(self._shards[i]),)), self._device(i))
        for step in range(-(-data.labels.shape[0] // task.eval_batch_size)):
            with self._dispatch:
                sums = self.program.evaluate_one(state, sums, data, step, task.eval_batch_size)
        return sums

    def _place(self, shards: list[Population]) -> list[Population]:
        return [jax.device_put(s, self._devices[i % len(self._devices)]) for i, s in enumerate(shards)]

    def _device(self, shard: int) -> Any:
        return self._devices[shard % len(self._devices)]

    def _find(self, lane: int) -> tuple[int, int]:
        for i, shard in enumerate(self._shards):
            if lane < _size(shard):
                return i, lane
            lane -= _size(shard)
        raise IndexError(lane)

    def _split(self, per_lane: np.ndarray) -> list[np.ndarray]:
        return np.split(per_lane, np.cumsum([_size(s) for s in self._shards])[:-1])


def _put(split: Split, device: Any) -> Examples:
    return Examples(*jax.device_put((split.images, split.labels), device))


def _join(sums: list[Sums]) -> Sums:
    joined: Any = [np.concatenate(field) for field in zip(*jax.device_get(sums), strict=True)]
    return Sums(*joined)


def _size(shard: Population) -> int:
    return shard.state.step.shape[0]


def _shard_sizes(num_lanes: int, lanes_per_shard: int) -> list[int]:
    full, rest = divmod(num_lanes, lanes_per_shard)
    return [lanes_per_shard] * full + [rest] * bool(rest)
