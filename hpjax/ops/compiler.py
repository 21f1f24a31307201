"""How XLA is brought to compile hpjax's operations well."""

import contextlib
import functools
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import custom_batching, lax
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import Array, PyTree

from hpjax.ops import target
from hpjax.ops.memory import cache_dir

log = logging.getLogger("hpjax")

CACHE_BYTES = 2 << 30  # of compiled programs on disk; the longest unused go first

# Of XLA's YNNPACK fusions only the products: those of convolutions run several times slower than XLA's own
# code, some a hundred times; without those of products, one with a transposed operand runs 14 times slower.
# Measured with jaxlib 0.10.2; no public issue known.
_CPU: dict[str, Any] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


# cuDNN's gradients that add with atomic operations give other bits each time: the same trial twice, a resumed
# sweep, and lanes beside one that diverges would differ. XLA then refuses the gradient of its max pooling,
# of which it has no other kind (its docs/determinism.md).
_GPU: dict[str, Any] = {"xla_gpu_exclude_nondeterministic_ops": True}
_QUICK: dict[str, Any] = {"xla_backend_optimization_level": 1}

_COMPILING = (  # jax's own names of what it times
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


def compiler_options(same_bits: bool = True) -> dict[str, Any]:
    """Returns `jax.jit`'s `compiler_options` for this backend; none for a CPU where jaxlib doesn't know them.

    Args:
      same_bits: whether a GPU's algorithms have to give the same bits each time; what has no such algorithm
        can't be compiled then.
    """
    backend = target.backend()
    if backend == "cpu":
        return _cpu_options()
    # For a GPU that isn't here XLA can't tell which algorithms those are.
    return dict(_GPU) if same_bits and backend == "gpu" and not target.is_elsewhere() else {}


@functools.cache
def _cpu_options() -> dict[str, Any]:
    try:
        jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((), "float32")).compile(_CPU)
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_CPU)


def quick_options() -> dict[str, Any]:
    """Returns `compiler_options()` for what runs once a trial: on a CPU, LLVM optimises it less.

    The random bits of initial weights take it four times as long else, and come out the same.
    """
    return {**compiler_options(), **_QUICK} if target.backend() == "cpu" else {}


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk for the next start, below `cache_dir()`.

    Where jax has been given a cache of its own (`JAX_COMPILATION_CACHE_DIR`), or was told to use none
    (`JAX_ENABLE_COMPILATION_CACHE=0`), that holds.
    """
    if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:  # type: ignore
        return
    folder = cache_dir() / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_unused(folder, CACHE_BYTES)
    except OSError as error:
        log.warning("compiled programs can't be kept in %s: %s", folder, error.strerror)
        return
    # What can't be read, because it was cut off, is compiled: nobody needs to be told.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()  # jax decides once, at its first compilation, whether there is one


def remove_unused(folder: Path, most: int) -> None:
    """Removes the programs that were unused for longest, where all take more than `most` bytes.

    jax's own limit would read the whole folder whenever a program is added, while others wait: half a second
    at 3,000 programs.
    """
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process has just removed it
            status = entry.stat()
            files.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
    excess = sum(size for _, size, _ in files) - most
    for _, size, path in sorted(files):
        if excess <= 0:
            break
        with contextlib.suppress(OSError):
            os.remove(path)
        excess -= size


def compile_seconds() -> float:
    """Returns how long this process has compiled programs, or loaded them from disk, since first asked."""
    return _clock()[0]


@functools.cache
def _clock() -> list[float]:
    seconds = [0.0]

    def note(event: str, duration_secs: float, **kwargs: Any) -> None:
        del kwargs
        if event in _COMPILING:
            seconds[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(note)
    return seconds


def compute_apart(f: Callable[..., PyTree], arrays: tuple[Array, ...], *static: Any) -> PyTree:
    """Returns `f(*arrays, *static)`, computed once, however many operations use it.

    XLA's CPU backend computes elementwise operations again in each loop that reads them, and drops its own
    barriers before it decides so. It never looks into a loop whose number of rounds it can't know.

    Args:
      f: not differentiated.
      arrays: the first is floating; the loop's bound reads it, too.
      static: hashable arguments.
    """
    # Measured with jaxlib 0.10.2; no public issue known. It can go when barriers hold there.
    if target.backend() != "cpu":
        return f(*arrays, *static)
    return _loop_once(f, static)(*arrays)


def kept(large: PyTree) -> PyTree:
    """Returns the same values, which a GPU computes together, once, and reads from memory from then on.

    XLA's GPU backend computes a cheap value again wherever it is used, from inputs that may be larger.
    """
    return large if target.backend() == "cpu" else lax.optimization_barrier(large)


def recomputed(small: PyTree) -> PyTree:
    """Returns the same values, from which a GPU computes again what was computed from them before.

    XLA's GPU backend keeps a value that two kernels need in memory, however large and however cheap.
    """
    return small if target.backend() == "cpu" else lax.optimization_barrier(small)


@functools.cache
def _loop_once(f: Callable[..., PyTree], static: tuple) -> Callable[..., PyTree]:
    @custom_batching.custom_vmap
    def looped(*arrays):
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(compute, *arrays))
        rounds = 1 + jnp.isnan(arrays[0].ravel()[0]).astype(int)  # a second round would change nothing
        return lax.fori_loop(0, rounds, lambda _, __: compute(*arrays), zeros)

    def compute(*arrays):
        return f(*arrays, *static)

    @looped.def_vmap
    def add_lanes(lanes, batched, *arrays):
        del lanes
        axes = tuple(0 if has else None for has in batched)
        shapes = jax.eval_shape(
            compute, *(v[0] if has else v for v, has in zip(arrays, batched, strict=True))
        )
        return _loop_once(_Mapped(f, static, axes), ())(*arrays), jax.tree.map(lambda _: True, shapes)

    return looped


class _Mapped(NamedTuple):
    """`f` with a lane axis; a value, so that it is traced once."""

    f: Callable[..., PyTree]
    static: tuple
    axes: tuple

    def __call__(self, *arrays: Array) -> PyTree:
        return jax.vmap(lambda *a: self.f(*a, *self.static), self.axes)(*arrays)
