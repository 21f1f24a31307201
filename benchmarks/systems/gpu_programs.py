"""The standard workloads' programs, compiled for a GPU that isn't there."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.config import parse_config
from hpjax.data.dataset import Dataset, Split
from hpjax.lanes import group
from hpjax.lanes.population import create_lane, stack_lanes
from hpjax.lanes.program import Program
from hpjax.lanes.residents import Examples
from hpjax.ops import gpus, target
from hpjax.train.metrics import zero_sums

CLASSES = 6
EXAMPLES = 1024  # of the data set on the device; a step reads a batch of them
EVALUATED = 250  # images of a batch


@dataclass(frozen=True)
class Work:
    """A network, its batches and how many lanes train it."""

    model: str
    image_size: int
    batch_size: int
    lanes: int
    precision: str

    def __str__(self) -> str:
        """Returns the key under which its results are kept."""
        shape = f"{self.image_size}_b{self.batch_size}_x{self.lanes}"
        return f"{self.model}_{shape}_{self.precision}"


def compile_program(work: Work, name: str, gpu: gpus.Gpu) -> Any:
    """Returns the program `name`, one of `PROGRAMS`, compiled for `gpu`."""
    device = gpus.create_device(gpu)
    with target.compiling_for(gpu.target):
        return PROGRAMS[name](work, functools.partial(gpus.place_shapes, device=device)).compile()


def train(work: Work, place: Callable, many: bool = True) -> Any:
    """The steps of an epoch in a loop on the device; one of them where not `many`."""
    program, population = _population(work)
    sums, key = zero_sums((work.lanes,)), jax.eval_shape(lambda: jax.random.key(0))
    state, sums, hparams, data, order, key, row = place(
        (population.state, sums, population.hparams, _examples(work), _order(work), key, _row())
    )
    if many:
        return program.train_many.lower(state, sums, hparams, data, order, key, row, row)
    return program.train_one.lower(state, sums, hparams, data, order, key, row)


def evaluate(work: Work, place: Callable) -> Any:
    """A pass over the test split in a loop on the device."""
    program, population = _population(work)
    state, data = place((population.state, _examples(work)))
    return program.evaluate_many.lower(state, data, EVALUATED)


def admit(work: Work, place: Callable) -> Any:
    """A fresh trial put into a lane."""
    program, population = _population(work)
    trial = jax.eval_shape(lambda: program.create(_hparams()))
    return program.insert.lower(*place((population, _row(), trial)))


def copy(work: Work, place: Callable) -> Any:
    """Lanes that go on from others' weights."""
    program, population = _population(work)
    sources = jax.ShapeDtypeStruct((work.lanes,), jnp.int32)
    return program.take.lower(*place((population, sources)))


PROGRAMS: dict[str, Callable[[Work, Callable], Any]] = {
    "train": train,
    "train_one": functools.partial(train, many=False),
    "evaluate": evaluate,
    "admit": admit,
    "copy": copy,
}


@functools.lru_cache(maxsize=4)
def _population(work: Work) -> tuple[Program, Any]:
    config = parse_config({"model": {"name": work.model}, "train": {"precision": work.precision}})
    split = Split(np.zeros((2, work.image_size, work.image_size, 3), np.uint8), np.zeros(2, np.int32))
    dataset = Dataset("shapes", tuple(map(str, range(CLASSES))), split, None, split, fingerprint="")
    program = group.create_program(config, dataset)
    shapes = jax.eval_shape(lambda: stack_lanes(create_lane(program._init(_hparams()), _hparams()), work.lanes))
    return program, shapes


def _hparams() -> Any:
    from hpjax.train.hparams import create_hparams

    return create_hparams(learning_rate=1e-3, weight_decay=1e-4, seed=0)


def _examples(work: Work) -> Examples:
    side = work.image_size
    images = jax.ShapeDtypeStruct((EXAMPLES, side, side, 3), jnp.uint8)
    return Examples(images, jax.ShapeDtypeStruct((EXAMPLES,), jnp.int32))


def _order(work: Work) -> Any:
    return jax.ShapeDtypeStruct((EXAMPLES // work.batch_size, work.batch_size), jnp.int32)


def _row() -> Any:
    return jax.ShapeDtypeStruct((), jnp.int32)
