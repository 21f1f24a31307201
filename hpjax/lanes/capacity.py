"""How many lanes fit, and which layout trains them fastest: by measurement of a few steps."""

import os
import statistics
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from hpjax.data.batches import epoch_order
from hpjax.lanes.engine import Layout, Task
from hpjax.lanes.population import Population
from hpjax.lanes.program import Examples, Program, augment_key, create_population
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import zero_sums

MEMORY_MARGIN = 0.85  # of the device's limit may be used
LEAST_GAIN = 1.03  # a wider program must train at least so much faster per lane
FUSED_MAX = 64  # lanes of one program when nothing else limits them
SHORT_STEP = 2e-3  # seconds; below it a call a step may be bound by dispatch


@dataclass(frozen=True)
class Choice:
    """The layout that a group is trained with, and what it rests on."""

    layout: Layout
    num_lanes: int
    step_seconds: float  # one step of one shard; 0 when nothing was measured
    speedup: float  # over one lane at a time; 1 when sequential, 0 when unknown
    memory_bytes: int  # device memory of the program, 0 when unknown
    lane_step_seconds: dict[int, float]  # measured seconds per lane and step, by lanes per call


class Probe:
    """Compiles and times a group's training step at different numbers of lanes."""

    def __init__(self, program: Program, task: Task, hparams: Hparams):
        self.program, self.task, self.hparams = program, task, hparams
        steps = max(1, min(8, len(task.train) // task.batch_size))
        num = min(len(task.train), steps * task.batch_size)
        self.data = Examples(*jax.device_put((task.train.images[:num], task.train.labels[:num])))
        self.order = epoch_order(jax.random.key(0), num, task.batch_size)
        self.full_steps = num // task.batch_size

    def memory(self, num_lanes: int) -> int:
        """Returns the bytes of device memory that a step of `num_lanes` lanes needs."""
        population = self.program.shapes(self.hparams, num_lanes)
        order = jax.eval_shape(self._order, num_lanes)
        key = augment_key(0, 0)
        lowered = self.program.train_one.lower(
            population.state, zero_sums((num_lanes,)), population.hparams, self.data, order, key, 0
        )
        analysis = lowered.compile().memory_analysis()
        if analysis is None:
            return 0
        used = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
        best = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(population.best))
        return used - analysis.alias_size_in_bytes + best

    def seconds(self, num_lanes: int, steps_per_call: int = 1, repeats: int = 5) -> float:
        """Returns the median seconds of a step of `num_lanes` lanes, compile time apart."""
        population = create_population(self.program, self.hparams, num_lanes)
        times = []
        state, sums = population.state, zero_sums((num_lanes,))
        for _ in range(repeats + 1):
            jax.block_until_ready(sums)
            start = time.perf_counter()
            state, sums = self._steps(state, sums, population, steps_per_call)
            jax.block_until_ready(sums)
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:]) / min(steps_per_call, self.full_steps)

    def _steps(self, state, sums, population: Population, steps: int):
        arguments = (population.hparams, self.data, self._order(sums.loss.shape[0]), augment_key(0, 0))
        return self.program.train(state, sums, *arguments, 0, min(steps, self.full_steps))

    def _order(self, num_lanes: int):
        if not self.program.own_order:
            return self.order
        return jnp.broadcast_to(self.order, (num_lanes, *self.order.shape))


def choose_layout(
    program: Program,
    task: Task,
    hparams: Hparams,
    wanted: int,
    count: int = 0,
    strategy: str = "auto",
    devices: int = 0,
) -> Choice:
    """Returns how to train a group.

    Args:
      program: the group's functions.
      task: its data.
      hparams: any trial's.
      wanted: how many trials could run side by side.
      count: lanes asked for; 0: as many as fit and pay.
      strategy: auto (measure), fused or sequential.
      devices: devices to spread over; 0: all.
    """
    num_devices = min(devices or len(jax.devices()), len(jax.devices()))
    limit = count or min(wanted, FUSED_MAX * num_devices)
    if limit == 1 or (strategy != "auto" and count):
        return _fixed("sequential" if limit == 1 else strategy, limit, num_devices)
    probe = Probe(program, task, hparams)
    fits = _lanes_that_fit(probe, -(-limit // num_devices))
    if strategy != "auto":
        return _fixed(strategy, min(limit, fits * num_devices), num_devices)
    return _measure(probe, limit, fits, num_devices, keep_count=bool(count))


def device_memory_limit() -> int:
    """Returns the bytes that arrays may take on the first device; on a CPU, what is available now."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _fixed(strategy: str, num_lanes: int, devices: int) -> Choice:
    per_shard = 1 if strategy == "sequential" else -(-num_lanes // devices)
    layout = Layout(per_shard, _steps_per_call(), devices)
    return Choice(layout, num_lanes, 0.0, 1.0 if per_shard == 1 else 0.0, 0, {})


def _steps_per_call() -> int:
    return 1 if jax.default_backend() == "cpu" else 1_000_000


def _lanes_that_fit(probe: Probe, wanted: int) -> int:
    one, two = probe.memory(1), probe.memory(2)
    per_lane = max(two - one, 1)
    room = MEMORY_MARGIN * device_memory_limit() - (one - per_lane)
    return max(1, min(wanted, int(room // per_lane)))


def _measure(probe: Probe, limit: int, fits: int, devices: int, keep_count: bool) -> Choice:
    steps = _steps_per_call()
    lane_seconds = {1: probe.seconds(1, steps)}
    best, wider = 1, 2
    while best < fits:
        wider = min(wider, fits)
        lane_seconds[wider] = probe.seconds(wider, steps) / wider
        if lane_seconds[wider] * LEAST_GAIN > lane_seconds[best] and wider > 2:
            break
        if lane_seconds[wider] * LEAST_GAIN <= lane_seconds[best]:
            best = wider
        if wider == fits:
            break
        wider *= 2
    num_lanes = limit if keep_count else min(limit, best * devices)
    layout = Layout(best, steps, devices)
    speedup = lane_seconds[1] / lane_seconds[best]
    return Choice(layout, num_lanes, lane_seconds[best] * best, speedup, probe.memory(best), lane_seconds)
