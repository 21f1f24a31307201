"""How long lowerings take on this device."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from hpjax.ops import lowerings, target
from hpjax.ops.compiler import compiler_options
from hpjax.ops.kernels import Numerics
from hpjax.ops.key import Key

# After the first round a candidate this many times slower than the fastest is not timed again.
HOPELESS = 2.5
# Calls of one sample where an accelerator takes them ahead of time: one call would be bound by the host.
QUEUED = 20


def measure(key: Key, names: Sequence[str], *, repeats: int = 5) -> dict[str, float]:
    """Returns the median milliseconds of each lowering of `key` that runs here and keeps lanes apart.

    Works while something else is being traced. The lowerings take turns, so that a busy machine slows all
    alike.
    """
    samples = sample(key, names, repeats=repeats)
    return {name: statistics.median(times) for name, times in samples.items()}


def sample(
    key: Key, names: Sequence[str], *, repeats: int = 5, hopeless: float = HOPELESS
) -> dict[str, list[float]]:
    """Returns the milliseconds of every timed call of each lowering; of hopeless ones two calls."""
    with jax.ensure_compile_time_eval():
        operands = random_operands(key)
        programs = {name: p for name in names if (p := _compiled(key, name, operands)) is not None}
        samples = {name: [_milliseconds(p, operands) for _ in range(2)] for name, p in programs.items()}
        fastest = min((min(times) for times in samples.values()), default=0.0)
        kept = [name for name, times in samples.items() if min(times) <= hopeless * fastest]
        for _ in range(repeats - 2):
            for name in kept:
                samples[name].append(_milliseconds(programs[name], operands))
    return samples


def random_operands(key: Key) -> tuple[Array, Array]:
    """Returns operands of the key's shapes, drawn from a normal distribution."""
    draws = np.random.default_rng(0)
    shapes = [
        (*s[:axis], key.lanes, *s[axis:]) if has else s
        for s, has, axis in zip((key.a, key.b), key.own, lane_axes(key), strict=True)
    ]
    a, b = (jax.device_put(draws.standard_normal(s, np.float32).astype(key.dtype)) for s in shapes)
    return a, b


def lane_axes(key: Key) -> tuple[int, int]:
    """Returns where the operands' lanes are in training, where they have some."""
    if target.backend() == "cpu":
        return 0, 0
    beside = lowerings.BESIDE_CHANNELS
    return beside, beside if key.op == "weight_gradient" else 0


def make_program(key: Key, name: str) -> Callable[[Array, Array], Array]:
    """Returns the lowering `name` of `key` as a function of its two operands."""
    numerics = Numerics(np.dtype(key.dtype))
    if key.lanes == 1:
        return functools.partial(
            lowerings.lower_lane, name, key.op, widths=key.widths, geometry=key.geometry, numerics=numerics
        )
    return functools.partial(_lower_lanes, key, name, lane_axes(key), numerics)


def _lower_lanes(key: Key, name: str, axes: tuple[int, int], numerics: Numerics, a: Array, b: Array) -> Array:
    """Returns the lanes' results where training has them: moved there from the front, if need be."""
    a, b = (
        jnp.moveaxis(v, axis, 0) if has else v for v, axis, has in zip((a, b), axes, key.own, strict=True)
    )
    y = lowerings.lower_lanes(name, key.op, a, b, key.own, key.widths, key.geometry, numerics)
    return jnp.moveaxis(y, 0, lowerings.result_axis(key.op, key.own))


def _compiled(key: Key, name: str, operands: tuple[Array, Array]) -> Callable | None:
    try:
        program = jax.jit(make_program(key, name)).lower(*operands).compile(compiler_options())
        jax.block_until_ready(program(*operands))
        isolated = key.lanes == 1 or is_isolated(key, program, operands)
    except jax.errors.JaxRuntimeError:
        return None
    return program if isolated else None


def is_isolated(key: Key, program: Callable, operands: tuple[Array, Array]) -> bool:
    """Returns whether NaN in the first lane leaves every bit of the other lanes as it is."""
    axes = lane_axes(key)
    ill = [
        v.at[(slice(None),) * axis + (0,)].set(np.nan) if has else v
        for v, has, axis in zip(operands, key.own, axes, strict=True)
    ]
    results_lanes = lowerings.result_axis(key.op, key.own)
    return bool(_same_bits(program(*operands), program(*ill), results_lanes))


@functools.partial(jax.jit, static_argnums=2)
def _same_bits(a: Array, b: Array, axis: int) -> Array:
    """Returns whether all but the first along `axis` are the same; NaN, too."""
    bits = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[a.dtype.itemsize]
    first, second = (lax.slice_in_dim(lax.bitcast_convert_type(v, bits), 1, None, 1, axis) for v in (a, b))
    return jnp.array_equal(first, second)


def _milliseconds(program: Callable, operands: tuple[Array, Array]) -> float:
    """Returns the milliseconds of a call; on an accelerator, of one among many that it is given at once."""
    calls = 1 if target.backend() == "cpu" else QUEUED
    start = time.perf_counter()
    for _ in range(calls):
        y = program(*operands)
    jax.block_until_ready(y)
    return 1e3 * (time.perf_counter() - start) / calls
