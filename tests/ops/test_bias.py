"""A bias, a sum and a ReLU behind a convolution: of lanes as of one, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conv import draw_normal

from hpjax.ops.bias import add_bias

X, BIAS, ADDED = draw_normal(0, 3, 2, 4, 5, 6), draw_normal(1, 3, 6), draw_normal(2, 3, 2, 4, 5, 6)


def _expected(x, bias, added, relu):
    y = np.asarray(x) + np.asarray(bias) + (0 if added is None else np.asarray(added))
    return np.maximum(y, 0) if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "own", [(True, True, True), (True, False, None), (False, True, True), (True, True, False)]
)
def test_lanes_are_those_of_numpy(own, relu):
    """Whichever operands they share."""
    operands = [
        None if has is None else v if has else v[0] for v, has in zip((X, BIAS, ADDED), own, strict=True)
    ]
    axes = tuple(0 if has else None for has in own)
    got = jax.jit(jax.vmap(lambda *v: add_bias(*v, relu), axes))(*operands)
    for k in range(3):
        one = [v[k] if has else v for v, has in zip(operands, own, strict=True)]
        np.testing.assert_array_equal(got[k], _expected(*one, relu))


def test_lanes_of_lanes():
    x, bias = draw_normal(0, 2, 3, 2, 4, 5, 6), draw_normal(1, 2, 3, 6)
    got = jax.jit(jax.vmap(jax.vmap(lambda x, bias: add_bias(x, bias, None, True))))(x, bias)
    np.testing.assert_array_equal(got, np.maximum(x + bias[:, :, None, None, None], 0))


@pytest.mark.parametrize("relu", [False, True])
def test_gradients_are_those_of_jax(relu):
    def plain(x, bias, added):
        y = x + bias[None, None, None] + added
        return jnp.maximum(y, 0) if relu else y

    def gradients(f):
        weigh = lambda *operands: (f(*operands) * jnp.cos(operands[0])).sum()  # noqa: E731
        return jax.jit(jax.vmap(jax.grad(weigh, (0, 1, 2))))(X, BIAS, ADDED)

    for mine, theirs in zip(gradients(lambda *v: add_bias(*v, relu)), gradients(plain), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_nan_stays_in_its_lane():
    got = jax.vmap(lambda x, bias: add_bias(x, bias, None, True))(X.at[1].set(jnp.nan), BIAS)
    assert np.isnan(got).all((1, 2, 3, 4)).tolist() == [False, True, False]
    assert np.isfinite(got[::2]).all()
