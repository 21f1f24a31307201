"""Which pass over the training examples a lane is at, and what is drawn for it."""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int32, Key, UInt32

from hpjax.config.fields import Config
from hpjax.config.seeds import seed_of
from hpjax.data.batches import epoch_order
from hpjax.train.state import purpose_key


class Shuffle(NamedTuple):
    """One pass over the training examples: its order and its augmentations follow from these two alone."""

    seed: int
    epoch: int  # from 0


class Draw(NamedTuple):
    """What is random about one pass; with a leading lane axis where lanes are at different ones."""

    order: Int32[Array, "*lanes steps batch"]  # the examples of each step
    key: Key[Array, "*lanes"]  # draws the augmentations; folded with the step


def choose_shuffle(config: Config, seed_index: int, epoch: int, group_epoch: int) -> Shuffle:
    """Returns the pass that a trial takes, as `lanes.data_order` says.

    Args:
      config: the sweep's.
      seed_index: which replicate of its setting the trial is.
      epoch: how many epochs the trial has trained.
      group_epoch: how many its group has.
    """
    if config.lanes.data_order == "shared":
        return Shuffle(config.seed, group_epoch)
    return Shuffle(seed_of(config, seed_index), epoch)


def agree(shuffles: Iterable[Shuffle | None]) -> bool:
    """Returns whether lanes can share their batches; None stands for an idle lane, which takes any."""
    return len({shuffle for shuffle in shuffles if shuffle is not None}) <= 1


def fill_idle(shuffles: Sequence[Shuffle | None]) -> list[Shuffle]:
    """Returns a shuffle for every lane: idle ones join the first busy one."""
    some = next((shuffle for shuffle in shuffles if shuffle is not None), Shuffle(0, 0))
    return [shuffle or some for shuffle in shuffles]


@functools.partial(jax.jit, static_argnums=(2, 3))
def draw(seed: Array | int, epoch: Array | int, num_examples: int, batch_size: int) -> Draw:
    """Returns what one pass over `num_examples` examples is made of."""
    order = epoch_order(order_key(seed, epoch), num_examples, batch_size)
    return Draw(order, jax.random.fold_in(purpose_key(seed, "augment"), epoch))


@functools.partial(jax.jit, static_argnums=(2, 3))
def draw_lanes(
    seeds: UInt32[Array, " lanes"], epochs: Int32[Array, " lanes"], num_examples: int, batch_size: int
) -> Draw:
    """Returns every lane's own pass, with a leading lane axis."""
    return jax.vmap(lambda seed, epoch: draw(seed, epoch, num_examples, batch_size))(seeds, epochs)


def draw_for(shuffles: Sequence[Shuffle], num_examples: int, batch_size: int, own: bool) -> Draw:
    """Returns the pass of the first lane, which all share; or each lane's `own`."""
    if not own:
        return draw(*shuffles[0], num_examples, batch_size)
    seeds, epochs = zip(*shuffles, strict=True)
    return draw_lanes(np.array(seeds, np.uint32), np.array(epochs, np.int32), num_examples, batch_size)


def order_key(seed: Array | int, epoch: Array | int) -> Key[Array, ""]:
    """Returns the key that the order of examples is drawn from."""
    return jax.random.fold_in(purpose_key(seed, "order"), epoch)
