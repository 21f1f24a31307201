"""What is compiled is counted, once."""

import jax
import jax.numpy as jnp

from hpjax.ops.compiler import compile_seconds


def test_compile_time_is_counted_once():
    f = jax.jit(lambda x: jnp.sin(x) @ x.T)
    x = jnp.ones((7, 5))
    before = compile_seconds()
    f(x).block_until_ready()
    after = compile_seconds()
    f(x).block_until_ready()
    assert before < after == compile_seconds()
