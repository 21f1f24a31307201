"""The standard workloads' programs, compiled for a GPU that isn't there: hpjax's, and plain JAX's."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hpjax.compiled import gpus
from hpjax.config import parse_config
from hpjax.data.dataset import Dataset, Split
from hpjax.lanes import group
from hpjax.lanes.population import Population
from hpjax.lanes.program import Program
from hpjax.lanes.residents import Examples
from hpjax.ops import target
from hpjax.train.hparams import Hparams, create_hparams
from systems import plain_models, plain_vmap
from systems.workload import CLASSES, Trial

EXAMPLES = 1024  # of the data set on the device; a step reads a batch of them
EVALUATED = 250  # images of a batch

Place = Callable[[Any], Any]  # shapes onto the GPU


@dataclass(frozen=True)
class Work:
    """A network, its batches and how many lanes train it."""

    model: str
    image_size: int
    batch_size: int
    lanes: int
    precision: str

    def __str__(self) -> str:
        """Returns the name under which its results are kept."""
        return f"{self.model}_{self.image_size}_b{self.batch_size}_x{self.lanes}_{self.precision}"


def lower_program(work: Work, name: str, gpu: gpus.Gpu) -> Any:
    """Returns the program `name`, one of `PROGRAMS`, as XLA is given it to compile for `gpu`."""
    device = gpus.create_device(gpu)
    with target.compiling_for(gpu.target):
        return PROGRAMS[name](work, functools.partial(gpus.place_shapes, device=device))


def train(work: Work, place: Place) -> Any:
    """The steps of an epoch, in a loop on the device."""
    row = _row()
    return create_program(work).train_many.lower(*place((*training(work), row, row)))


def train_one(work: Work, place: Place) -> Any:
    """One step a call."""
    return create_program(work).train_one.lower(*place((*training(work), _row())))


def evaluate(work: Work, place: Place) -> Any:
    """A pass over the test split, in a loop on the device."""
    population = _population(work)
    state, data, options = place((population.state, _examples(work), population.hparams.options))
    return create_program(work).evaluate_many.lower(state, data, EVALUATED, options)


def admit(work: Work, place: Place) -> Any:
    """A fresh trial put into a lane."""
    program = create_program(work)
    trial = jax.eval_shape(lambda: program._create(_hparams()))
    return program.insert.lower(*place((_population(work), _row(), trial)))


def copy(work: Work, place: Place) -> Any:
    """Lanes that go on from others' weights."""
    sources = jax.ShapeDtypeStruct((work.lanes,), jnp.int32)
    return create_program(work).take.lower(*place((_population(work), sources)))


def train_plainly(work: Work, place: Place, map_lanes: Callable = jax.vmap) -> Any:
    """The steps of an epoch as plain JAX, Flax and optax have them, in a loop on the device."""
    dtype = jnp.dtype(work.precision)
    graphdefs = []

    def create() -> tuple:
        model = plain_models.create_model(work.model, work.image_size, CLASSES, nnx.Rngs(0), dtype)
        graphdef, params, stats = nnx.split(model, nnx.Param, ...)
        graphdefs.append(graphdef)
        numbers: Any = jax.tree.map(jnp.asarray, Trial(1e-3, 1e-4, 0))
        opt_state = plain_vmap.create_optimizer(numbers).init(params)
        return (params, stats, opt_state, jax.random.key_data(jax.random.key(0))), numbers

    state, numbers = _stacked(jax.eval_shape(create), work.lanes)
    data, total = _examples(work), jax.ShapeDtypeStruct((work.lanes,), jnp.float32)
    loop = plain_vmap.make_loop(plain_vmap.make_step(graphdefs[0], dtype, map_lanes))
    arguments = place((state, total, numbers, data.images, data.labels, _order(work), _row()))
    return jax.jit(loop, donate_argnums=(0, 1)).lower(*arguments)


def _one_after_the_other(f: Callable, in_axes: tuple) -> Callable:
    del in_axes
    return lambda state, numbers, *shared: jax.lax.map(lambda own: f(*own, *shared), (state, numbers))


def _unrolled(f: Callable, in_axes: tuple) -> Callable:
    del in_axes

    def unrolled(state, numbers, *shared):
        lanes = range(jax.tree.leaves(numbers)[0].shape[0])
        each = [f(*jax.tree.map(lambda x, k=k: x[k], (state, numbers)), *shared) for k in lanes]
        return jax.tree.map(lambda *xs: jnp.stack(xs), *each)

    return unrolled


PROGRAMS: dict[str, Callable[[Work, Place], Any]] = {
    "train": train,
    "train_one": train_one,
    "evaluate": evaluate,
    "admit": admit,
    "copy": copy,
    "vmap": train_plainly,
    "lax_map": functools.partial(train_plainly, map_lanes=_one_after_the_other),
    "unrolled": functools.partial(train_plainly, map_lanes=_unrolled),
}


def create_program(work: Work) -> Program:
    """Returns hpjax's functions, to be compiled for the target of this context."""
    config = parse_config({"model": {"name": work.model}, "train": {"precision": work.precision}})
    split = Split(np.zeros((2, work.image_size, work.image_size, 3), np.uint8), np.zeros(2, np.int32))
    classes = tuple(map(str, range(CLASSES)))
    return group.create_program(config, Dataset("shapes", classes, split, None, split, fingerprint=""))


def training(work: Work) -> tuple:
    population = _population(work)
    key = jax.eval_shape(lambda: jax.random.key(0))
    sums = jax.eval_shape(lambda: create_program(work).zero_sums(work.lanes))
    return population.state, sums, population.hparams, _examples(work), _order(work), key


@functools.lru_cache(maxsize=4)
def _population(work: Work) -> Population:
    return create_program(work).shapes(_hparams(), work.lanes)


def _hparams() -> Hparams:
    return create_hparams(learning_rate=1e-3, weight_decay=1e-4, seed=0)


def _stacked(shapes: Any, lanes: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype), shapes)


def _examples(work: Work) -> Examples:
    side = work.image_size
    images: Any = jax.ShapeDtypeStruct((EXAMPLES, side, side, 3), jnp.uint8)
    labels: Any = jax.ShapeDtypeStruct((EXAMPLES,), jnp.int32)
    return Examples(images, labels)


def _order(work: Work) -> Any:
    return jax.ShapeDtypeStruct((EXAMPLES // work.batch_size, work.batch_size), jnp.int32)


def _row() -> Any:
    return jax.ShapeDtypeStruct((), jnp.int32)
