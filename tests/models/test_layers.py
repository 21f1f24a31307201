import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hpjax.errors import ModelError
from hpjax.models.layers import BatchNorm, Dropout, UniformInit, create_conv, torch_init


def test_inits_are_values():
    assert torch_init(25) == UniformInit(0.2)
    assert hash(torch_init(25)) == hash(UniformInit(0.2))


def test_running_statistics_move_by_a_tenth_and_are_unbiased():
    norm = BatchNorm(2)
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 2)) + 4
    norm(x)
    flat = np.asarray(x, np.float64).reshape(-1, 2)
    np.testing.assert_allclose(norm.mean[...], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_an_offset_is_as_good_as_added(training):
    offset, x = jnp.array([3.0, -2.0]), jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    results = []
    for norm, arguments in ((BatchNorm(2), {"offset": offset}), (BatchNorm(2), {})):
        norm.mean[...] = jnp.array([0.5, 1.0])
        norm.use_running_average = not training
        y = norm.relu_max_pool(x if arguments else x + offset.reshape(1, 1, 1, 2), **arguments)
        results.append((y, nnx.state(norm)))
    # Batch statistics of other values, rounded differently.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_a_bias_is_drawn_as_in_pytorch_and_left_to_the_norm():
    layer = create_conv(3, 2000, 2, bias=True, rngs=nnx.Rngs(0))
    bound = (3 * 2 * 2) ** -0.5
    assert 0.99 * bound < float(jnp.abs(layer.bias[...]).max()) <= bound
    np.testing.assert_array_equal(layer(jnp.zeros((1, 2, 2, 3))), 0)


def test_one_value_per_feature_keeps_statistics_finite():
    norm = BatchNorm(2)
    norm(jnp.ones((1, 1, 1, 2)))
    assert jnp.isfinite(norm.var[...]).all()


def test_dropout_keeps_the_mean():
    x = jnp.ones((100, 1000))
    y = Dropout()(x, rate=jnp.float32(0.3), rngs=nnx.Rngs(dropout=0))
    # 1e5 draws: the mean's deviation is 0.002.
    assert float((y == 0).mean()) == pytest.approx(0.3, abs=0.01)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.01)


def test_dropout_draws_anew_at_each_call():
    rngs, dropout = nnx.Rngs(dropout=0), Dropout()
    x = jnp.ones(100)
    assert (dropout(x, rate=0.5, rngs=rngs) != dropout(x, rate=0.5, rngs=rngs)).any()


def test_dropout_without_streams():
    dropout = Dropout()
    with pytest.raises(ModelError, match="rngs"):
        dropout(jnp.ones(3), rate=0.5, rngs=None)
    np.testing.assert_array_equal(dropout(jnp.ones(3), rate=0.0, rngs=None), 1)
    dropout.eval()
    np.testing.assert_array_equal(dropout(jnp.ones(3), rate=0.5, rngs=None), 1)
