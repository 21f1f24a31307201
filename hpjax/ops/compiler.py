"""Options under which XLA should compile programs with hpjax's operations."""

import functools
from typing import Any

import jax

# XLA's YNNPACK fusions run many convolutions several times slower than its own code, some a hundred times.
_CPU: dict[str, Any] = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def compiler_options() -> dict[str, Any]:
    """Returns `jax.jit`'s `compiler_options` for this backend; empty where jaxlib doesn't know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((), "float32")).compile(_CPU)
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_CPU)
