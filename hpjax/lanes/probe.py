"""A group's programs at different numbers of lanes: what memory they need, and how long a step takes."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from hpjax.data.splits import Split
from hpjax.lanes.exhaustion import is_out_of_memory
from hpjax.lanes.mesh import first_devices
from hpjax.lanes.population import Population, count_bytes
from hpjax.lanes.program import Program, create_population
from hpjax.lanes.residents import Examples, place
from hpjax.lanes.shuffle import Draw, Shuffle, draw_for
from hpjax.lanes.task import Task
from hpjax.train.hparams import Hparams
from hpjax.train.metrics import Sums

SAMPLE_SECONDS = 0.05  # that a measurement lasts at least
SHORTEST_SECONDS = 1e-4  # that a call is held to take: a clock may be coarse, or stand still
MANY_STEPS = 1_000_000  # more than an epoch has
MOST_STEPS = 8  # that are measured in one go


class Candidate(NamedTuple):
    """A way to train a group, told of one device; all do the same."""

    lanes: int  # advanced by one call
    threads: int = 1  # of the host, each with calls of its own
    steps: int = 1  # of one call

    @property
    def name(self) -> str:
        """The JSON under which it is remembered; `parse_candidate` reads it."""
        return json.dumps(self)

    @property
    def at_once(self) -> int:
        """Lanes that all its calls under way advance."""
        return self.lanes * self.threads


def parse_candidate(name: Any) -> Candidate | None:
    """Returns the candidate that was remembered under a name; None if it was none."""
    try:
        candidate = Candidate(*json.loads(name))
        return candidate if all(isinstance(n, int) and n > 0 for n in candidate) else None
    except (ValueError, TypeError):
        return None


class Probe:
    """Compiles and times a group's training step at different numbers of lanes of each device.

    Args:
      program: the group's functions.
      task: its data.
      hparams: any trial's.
      own: whether each lane takes batches of its own, as lanes do that aren't in step.
      devices: that the lanes are spread over.
    """

    def __init__(self, program: Program, task: Task, hparams: Hparams, own: bool = False, devices: int = 1):
        # Committed to devices, as in an engine: else jax would compile for those again.
        self.mesh = first_devices(devices)
        self.program, self.task, self.hparams, self.own = program.on(self.mesh), task, hparams, own
        self.full_steps = max(1, min(MOST_STEPS, len(task.train) // task.batch_size))
        self.data = self._examples()
        self.compile_seconds = 0.0  # of the first program
        self._memory: dict[int, int] = {}

    def memory(self, num_lanes: int) -> int:
        """Returns the bytes that training `num_lanes` lanes needs on a device; 0 where XLA can't say."""
        if num_lanes not in self._memory:
            start = time.perf_counter()
            self._memory[num_lanes] = self._analyse(num_lanes)
            self.compile_seconds = self.compile_seconds or time.perf_counter() - start
        return self._memory[num_lanes]

    def evaluation_memory(self, num_lanes: int) -> int:
        """Returns the bytes that evaluating `num_lanes` lanes needs on a device; 0 where XLA can't say."""
        if not self.task.evaluated:
            return 0
        population, program = self._population(num_lanes), self.program
        examples = Examples(*_arrays(max(self.task.evaluated.values(), key=len)))
        data = self._committed(examples, self.mesh.everywhere)
        batch_size, options = self.task.eval_batch_size, population.hparams.options
        if steps_per_call() > 1:
            lowered = program.evaluate_many.lower(population.state, data, batch_size, options)
        else:
            sums = self._sums(num_lanes)
            lowered = program.evaluate_one.lower(population.state, sums, data, 0, batch_size, options)
        own = held_bytes(lowered.compile(), arguments=False)
        return 0 if own is None else own + self._lane_bytes(population) + self._resident_bytes()

    @property
    def evaluation_bound(self) -> float:
        """How many times the memory of training evaluation may need: it holds less of more examples."""
        return max(1.0, self.task.eval_batch_size / self.task.batch_size) if self.task.evaluated else 1.0

    def _examples(self) -> Examples:
        if not self.task.streamed:
            return place(self.task.train, self.mesh)
        num = min(len(self.task.train), self.full_steps * self.task.batch_size)
        images, labels = _arrays(self.task.train)
        return Examples(*jax.device_put((images[:num], labels[:num]), self.mesh.everywhere))

    def _analyse(self, num_lanes: int) -> int:
        population, most = self._population(num_lanes), steps_per_call()
        order, key = self._committed(jax.eval_shape(lambda: self._draw(num_lanes)), self._drawn(num_lanes))
        train = self.program.train_one if most == 1 else self.program.train_many
        steps = (0,) if most == 1 else (0, self.full_steps)
        state, sums = population.state, self._sums(num_lanes)
        lowered = train.lower(state, sums, population.hparams, self.data, order, key, *steps)
        if (used := held_bytes(lowered.compile(), arguments=True)) is None:
            return 0
        best = self._lane_bytes(population.best)
        return used + best - count_bytes(self.data) + self._resident_bytes()

    def _population(self, num_lanes: int) -> Population:
        shapes = self.program.shapes(self.hparams, num_lanes * self.mesh.size)
        return self._committed(shapes, self.mesh.lanes)

    def _sums(self, num_lanes: int) -> Sums:
        shapes = jax.eval_shape(lambda: self.program.zero_sums(num_lanes * self.mesh.size))
        return self._committed(shapes, self.mesh.lanes)

    def _committed(self, tree: Any, sharding: Any) -> Any:
        """Returns the shapes of arrays on the devices: what is compiled for them is what a call takes."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    def _lane_bytes(self, tree: Any) -> int:
        """Returns the bytes that a device has of what is split over all."""
        return count_bytes(tree) // self.mesh.size

    def _resident_bytes(self) -> int:
        """Returns the bytes of all images that lie on a device."""
        splits = [*self.task.evaluated.values(), *([] if self.task.streamed else [self.task.train])]
        return sum(array.nbytes for split in splits for array in _arrays(split))

    def seconds(self, candidate: Candidate, repeats: int = 5) -> float:
        """Returns the least seconds per step and lane of a device; others' work only adds to it.

        Compiling isn't counted.
        """
        lanes, threads, steps = candidate
        steps = min(steps, self.full_steps)
        shards = [self._advance(self._create(lanes), steps) for _ in range(threads)]
        with ThreadPoolExecutor(threads) as pool:

            def measure(calls: int) -> float:
                start = time.perf_counter()
                shards[:] = pool.map(lambda shard: self._advance(shard, steps, calls), shards)
                return max(time.perf_counter() - start, SHORTEST_SECONDS) / calls

            calls = math.ceil(SAMPLE_SECONDS / measure(1))
            best = min(measure(calls) for _ in range(repeats))
        return best / (steps * lanes * threads)

    def seconds_if_it_fits(self, candidate: Candidate, repeats: int = 5) -> float:
        """Returns `seconds`, or infinity where memory runs out."""
        try:
            return self.seconds(candidate, repeats)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return math.inf

    def _create(self, num_lanes: int) -> tuple:
        population = create_population(self.program, self.mesh, self.hparams, num_lanes)
        sums = self.program.zero_sums(num_lanes * self.mesh.size)
        return population.state, jax.device_put(sums, self.mesh.lanes), population.hparams

    def _advance(self, shard: tuple, steps: int, calls: int = 1) -> tuple:
        """Returns a shard after `calls` calls of `steps` steps; waits for the last only, as epochs do."""
        state, sums, hparams = shard
        num_lanes = sums.loss.shape[0] // self.mesh.size
        order, key = jax.device_put(tuple(self._draw(num_lanes)), self._drawn(num_lanes))
        for call in range(calls):
            start = call % (self.full_steps // steps) * steps
            state, sums = self.program.train(
                state, sums, hparams, self.data, order, key, start, start + steps, steps
            )
        return (*jax.block_until_ready((state, sums)), hparams)

    def _draw(self, num_lanes: int) -> Draw:
        num, batch_size, total = len(self.data.labels), self.task.batch_size, num_lanes * self.mesh.size
        return draw_for([Shuffle(seed, 0) for seed in range(total)], num, batch_size, self._is_own(total))

    def _drawn(self, num_lanes: int) -> Any:
        """Returns where it lies."""
        return self.mesh.lanes if self._is_own(num_lanes * self.mesh.size) else self.mesh.everywhere

    def _is_own(self, total: int) -> bool:
        return self.own and total > 1


def held_bytes(compiled: Any, arguments: bool) -> int | None:
    """Returns the bytes that a call of a program holds, beside its arguments or with them.

    None where XLA can't say.
    """
    if (of := compiled.memory_analysis()) is None:
        return None
    own = of.temp_size_in_bytes + of.output_size_in_bytes
    return own + of.argument_size_in_bytes - of.alias_size_in_bytes if arguments else own


def steps_per_call() -> int:
    """Returns the steps of one call where that isn't measured: a device that isn't a CPU loops by itself."""
    return 1 if jax.default_backend() == "cpu" else MANY_STEPS


def _arrays(split: Split) -> tuple:
    return split.images, split.labels
