"""What the device can do at most: a matrix product and a copy, timed like any system."""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from systems.system import Epoch
from systems.workload import Workload

REPEATS = 5


def create(workload: Workload, name: str) -> "Ceilings":
    """Returns the two measurements in the workload's precision."""
    del name
    return Ceilings(workload.precision)


class Ceilings:
    """A square matrix product, and a pass over an array that is larger than any cache."""

    def __init__(self, precision: str):
        on_cpu = jax.default_backend() == "cpu"
        self._side = 2048 if on_cpu else 8192
        self._values = (1 << 28 if on_cpu else 1 << 32) // 4
        key = jax.random.key(0)
        self._a = jax.random.normal(key, (self._side, self._side)).astype(precision)
        self._x = jnp.ones(self._values, jnp.float32)
        self._multiply = jax.jit(jnp.matmul)
        self._negate = jax.jit(jnp.negative, donate_argnums=0)
        self.detail: dict[str, Any] = {
            "device_kind": jax.devices()[0].device_kind,
            "matrix_side": self._side,
            "copied_bytes": 4 * self._values,
        }

    def run_epoch(self, epoch: int) -> Epoch:
        """Measures both; the "losses" are FLOP/s and bytes/s, read and written ones counted."""
        del epoch
        start = time.perf_counter()
        product = _median_seconds(lambda: self._multiply(self._a, self._a))
        copy = _median_seconds(self._copy)
        rates = [2 * self._side**3 / product, 8 * self._values / copy]
        return Epoch(time.perf_counter() - start, rates)

    def _copy(self) -> jax.Array:
        self._x = self._negate(self._x)
        return self._x


def _median_seconds(f) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(f())
        times.append(time.perf_counter() - start)
    return statistics.median(times)
