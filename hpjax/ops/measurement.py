"""How long lowerings take on this device."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import Array

from hpjax.ops import lowerings
from hpjax.ops.compiler import compiler_options
from hpjax.ops.kernels import Numerics
from hpjax.ops.key import Key

# After the first round a candidate this many times slower than the fastest is not timed again.
HOPELESS = 2.5


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
    shapes = [(key.lanes, *s) if has else s for s, has in zip((key.a, key.b), key.own, strict=True)]
    a, b = (jax.device_put(draws.standard_normal(s, np.float32).astype(key.dtype)) for s in shapes)
    return a, b


def make_program(key: Key, name: str) -> Callable[[Array, Array], Array]:
    """Returns the lowering `name` of `key` as a function of its two operands."""
    numerics = Numerics(np.dtype(key.dtype))
    if key.lanes == 1:
        return functools.partial(
            lowerings.lower_lane, name, key.op, widths=key.widths, geometry=key.geometry, numerics=numerics
        )
    return functools.partial(
        lowerings.lower_lanes,
        name,
        key.op,
        own=key.own,
        widths=key.widths,
        geometry=key.geometry,
        numerics=numerics,
    )


def _compiled(key: Key, name: str, operands: tuple[Array, Array]) -> Callable | None:
    try:
        program = jax.jit(make_program(key, name)).lower(*operands).compile(compiler_options())
        jax.block_until_ready(program(*operands))
        isolated = key.lanes == 1 or is_isolated(program, operands, key.own)
    except jax.errors.JaxRuntimeError:
        return None
    return program if isolated else None


def is_isolated(program: Callable, operands: tuple[Array, Array], own: tuple[bool, bool]) -> bool:
    """Returns whether NaN in the first lane leaves every bit of the other lanes as it is."""
    ill = [v.at[0].set(np.nan) if has else v for v, has in zip(operands, own, strict=True)]
    healthy, infected = (np.asarray(program(*values)[1:]) for values in (operands, ill))
    return healthy.tobytes() == infected.tobytes()


def _milliseconds(program: Callable, operands: tuple[Array, Array]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*operands))
    return 1e3 * (time.perf_counter() - start)
