"""A group's training step compiled for a GPU that isn't here: what it would hold, and what it would move."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.compiled.gpus import Gpu, create_device, place_shapes
from hpjax.compiled.kernels import read_step, summarize
from hpjax.config.fields import Config
from hpjax.data.dataset import Dataset
from hpjax.data.splits import Split
from hpjax.lanes.capacity import MEMORY_MARGIN
from hpjax.lanes.group import create_program, create_task, is_streamed, trial_hparams
from hpjax.lanes.population import Population, count_bytes
from hpjax.lanes.probe import held_bytes
from hpjax.lanes.program import Program
from hpjax.lanes.residents import Examples
from hpjax.lanes.shuffle import Shuffle, draw_for
from hpjax.lanes.task import Task
from hpjax.ops import target

JAX_SHARE = 0.75  # of a GPU's memory that jax takes, where it isn't told otherwise
STREAMED_STEPS = 8  # whose images lie on the device where not all do


class Needs(NamedTuple):
    """What so many fused lanes would need of a GPU.

    Attributes:
      lanes: that one call advances.
      memory_bytes: of weights, moments, the best weights so far, images, and all that a step holds.
      limit_bytes: that may be used of the GPU.
      moved_bytes: that a step of all lanes reads and writes.
      lane_step_seconds: of a step of one lane by roofline: no step is faster.
      kernels: that a step of all lanes launches.
    """

    lanes: int
    memory_bytes: int
    limit_bytes: int
    moved_bytes: int
    lane_step_seconds: float
    kernels: int

    @property
    def fits(self) -> bool:
        """Whether the memory is enough."""
        return self.memory_bytes <= self.limit_bytes


def usable_bytes(gpu: Gpu) -> int:
    """Returns the bytes that a sweep may use of a GPU; the rest is left to cuDNN's workspaces and others."""
    return int(MEMORY_MARGIN * JAX_SHARE * gpu.memory_bytes)


def compile_for(
    gpu: Gpu, config: Config, dataset: Dataset, tests_each_epoch: bool, lanes: int, *, in_step: bool = True
) -> Needs:
    """Returns what the training of a group, fused, would need of a GPU.

    Args:
      gpu: what is compiled for; it needn't be here.
      config: any trial's of the group.
      dataset: what is learned.
      tests_each_epoch: whether the test split lies on the device too.
      lanes: how many one call advances.
      in_step: whether they share each batch; else each takes its own.

    Raises:
      NotImplementedError: XLA's plugin for CUDA isn't installed.
    """
    place = functools.partial(place_shapes, device=create_device(gpu))
    task, limit = create_task(config, dataset, tests_each_epoch), usable_bytes(gpu)
    streamed = is_streamed(config, [task.train, *task.evaluated.values()], limit)
    with target.compiling_for(gpu.target):
        program = create_program(config, dataset)
        population = place(program.shapes(trial_hparams(config, config.seed), lanes))
        num = min(len(task.train), STREAMED_STEPS * task.batch_size) if streamed else len(task.train)
        data = place(_shapes(task.train, num))
        training = _compile_training(program, task, population, data, place, own=lanes > 1 and not in_step)
        best = count_bytes(population.best)
        needed = [(held_bytes(training, arguments=True) or 0) + best + _size(task.evaluated.values())]
        if task.evaluated:
            largest = max(task.evaluated.values(), key=len)
            evaluation = _compile_evaluation(program, task, population, place(_shapes(largest, len(largest))))
            resident = count_bytes((population, data)) + _size(task.evaluated.values())
            needed.append((held_bytes(evaluation, arguments=False) or 0) + resident)
    step = summarize(read_step(training.as_text()), gpu, lanes)
    seconds = 1e-6 * step["lane_step_us_with_launches"]
    return Needs(lanes, max(needed), limit, int(1e9 * step["gb"]), seconds, step["kernels"])


def _compile_training(
    program: Program, task: Task, population: Population, data: Examples, place: Callable, own: bool
) -> Any:
    lanes, num = population.best.score.shape[0], len(data.labels)
    order, key = jax.eval_shape(lambda: draw_for([Shuffle(0, 0)] * lanes, num, task.batch_size, own))
    sums = jax.eval_shape(lambda: program.zero_sums(lanes))
    row = jax.ShapeDtypeStruct((), jnp.int32)
    sums, order, key, row = place((sums, order, key, row))
    return program.train_many.lower(
        population.state, sums, population.hparams, data, order, key, row, row
    ).compile()


def _compile_evaluation(program: Program, task: Task, population: Population, data: Examples) -> Any:
    options = population.hparams.options
    return program.evaluate_many.lower(population.state, data, task.eval_batch_size, options).compile()


def _shapes(split: Split, num: int) -> Examples:
    images: Any = jax.ShapeDtypeStruct((num, *split.images.shape[1:]), split.images.dtype)
    labels: Any = jax.ShapeDtypeStruct((num, *split.labels.shape[1:]), split.labels.dtype)
    return Examples(images, labels)


def _size(splits: Iterable[Split]) -> int:
    return sum(split.images.nbytes + split.labels.nbytes for split in splits)
