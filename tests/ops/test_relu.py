"""A ReLU that a GPU computes otherwise is the same ReLU."""

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.ops.relu import relu
from hpjax.ops.target import Target, compiling_for


def test_values_and_gradients_are_the_usual_ones():
    x = jnp.asarray([-1.0, -0.0, 0.0, 2.0, jnp.inf, jnp.nan])
    both = jax.value_and_grad(lambda x: (relu(x) * jnp.arange(6.0)).sum())
    want = both(x)
    with compiling_for(Target("gpu", "any")):
        got = both(x)
        y = relu(x)
    np.testing.assert_array_equal(y, jax.nn.relu(x))
    jax.tree.map(np.testing.assert_array_equal, got, want)
