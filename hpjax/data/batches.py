"""From a split to training batches: gathered on the device, or streamed to it through grain."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, Key, Shaped

from hpjax.config import DataConfig, check_field
from hpjax.data.splits import Split

_DEVICE_SHARE = 0.5  # of the device's memory that images may take before they are streamed


class HostBatch(NamedTuple):
    """Examples of one step, in host memory."""

    images: Shaped[np.ndarray, "..."]
    labels: Shaped[np.ndarray, "..."]


def epoch_order(key: Key[Array, ""], num_examples: int, batch_size: int) -> Int32[Array, "steps batch"]:
    """Returns which examples each step of an epoch takes: a fresh permutation, cut into rows.

    The last row is filled up with examples from the permutation's start; its first
    `num_examples % batch_size` are the epoch's own.

    Args:
      key: draws the permutation.
      num_examples: of the training split.
      batch_size: examples of a step; may exceed `num_examples`.
    """
    steps = num_steps(num_examples, batch_size)
    order = jax.random.permutation(key, num_examples).astype(jnp.int32)
    return jnp.resize(order, (steps, batch_size))


def num_steps(num_examples: int, batch_size: int) -> int:
    """Returns how many steps an epoch has, the partial one included."""
    return -(-num_examples // batch_size)


def stream_batches(
    split: Split, order: Int[np.ndarray, "steps *batch"], threads: int = 2, prefetch: int = 4
) -> Iterator[HostBatch]:
    """Gathers batches in background threads, in the order in which the device would gather them.

    Args:
      split: its arrays may be memory-mapped.
      order: indices into `split` of each step, as from `epoch_order`; any shape after the first axis.
      threads: how many batches are gathered at once.
      prefetch: how many are kept ready.

    Yields:
      One batch per row of `order`.
    """
    import grain

    steps = grain.MapDataset.source(_Gathered(split, np.asarray(order)))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    yield from steps.to_iter_dataset(options)


def residency(data: DataConfig, num_bytes: int, device_limit: int | None) -> str:
    """Returns where the images live: `device` or `stream`.

    Args:
      data: `residency` device or stream is obeyed, auto decides by size.
      num_bytes: of all images that training and evaluation need.
      device_limit: the device's memory in bytes; None or 0 where it is unknown.

    Raises:
      ConfigError: `data.residency` is none of these.
    """
    if check_field("data.residency", data.residency) != "auto":
        return data.residency
    return "stream" if device_limit and num_bytes > _DEVICE_SHARE * device_limit else "device"


class _Gathered:
    """The batches of an epoch as a random-access source."""

    def __init__(self, split: Split, order: np.ndarray):
        self._split, self._order = split, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> HostBatch:
        rows = self._order[index]
        return HostBatch(self._split.images[rows], self._split.labels[rows])

    def __repr__(self) -> str:
        return f"_Gathered({len(self)} steps)"
