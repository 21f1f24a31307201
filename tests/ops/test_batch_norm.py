import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpjax.ops.batch_norm import batch_norm, normalize

SCALE = jnp.array([1.0, -0.5, 2.0])
BIAS = jnp.array([0.1, 0.0, -0.3])


@jax.numpy_rank_promotion("allow")
def plain(x, scale, bias, mask=None, relu=False):
    """The textbook's, differentiated by JAX."""
    weight = jnp.ones(x.shape[0]) if mask is None else mask
    weight = weight.reshape(-1, 1, 1, 1)
    count = weight.sum() * x.shape[1] * x.shape[2]
    mean = (x * weight).sum((0, 1, 2)) / count
    variance = (jnp.square(x - mean) * weight).sum((0, 1, 2)) / count
    y = (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias
    return (jax.nn.relu(y) if relu else y), mean, variance


def activations(seed=0, batch=6):
    return 3.0 + jax.random.normal(jax.random.key(seed), (batch, 4, 5, 3))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("mask", [None, jnp.array([1.0, 1, 1, 1, 0, 0])], ids=["all", "masked"])
def test_equals_textbook(relu, mask):
    x, weights = activations(), jax.random.normal(jax.random.key(1), (6, 4, 5, 3))
    y, moments = batch_norm(x, SCALE, BIAS, mask, relu=relu)
    expected, mean, variance = plain(x, SCALE, BIAS, mask, relu)
    # float32 sums of 120 values in another order.
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-5)
    grads = jax.grad(lambda *a: (batch_norm(*a, mask, relu=relu)[0] * weights).sum(), argnums=(0, 1, 2))
    expected_grads = jax.grad(lambda *a: (plain(*a, mask, relu)[0] * weights).sum(), argnums=(0, 1, 2))
    for ours, theirs in zip(
        jax.jit(grads)(x, SCALE, BIAS), jax.jit(expected_grads)(x, SCALE, BIAS), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_masked_examples_do_not_count():
    mask = jnp.array([1.0, 1, 1, 1, 0, 0])
    x = activations()
    garbage = x.at[4:].set(jnp.nan)
    y, moments = batch_norm(garbage, SCALE, BIAS, mask)
    expected, expected_moments = batch_norm(x[:4], SCALE, BIAS)
    np.testing.assert_allclose(y[:4], expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moments, expected_moments)


def test_moments_survive_a_large_mean():
    x = 1000.0 + activations()
    _, moments = batch_norm(x, SCALE, BIAS)
    # The values themselves are rounded to 6e-5 of their deviation here; E[x^2] - E[x]^2 would be off by 10 %.
    np.testing.assert_allclose(moments.variance, np.var(np.asarray(x, np.float64), axis=(0, 1, 2)), rtol=1e-3)


def test_bfloat16_activations_keep_float32_moments():
    x = activations().astype(jnp.bfloat16)
    scale, bias = SCALE.astype(jnp.bfloat16), BIAS.astype(jnp.bfloat16)
    y, moments = batch_norm(x, scale, bias)
    grads = jax.grad(lambda *a: batch_norm(*a)[0].astype(jnp.float32).sum(), argnums=(0, 1, 2))(
        x, scale, bias
    )
    assert y.dtype == jnp.bfloat16
    assert {m.dtype for m in moments} == {jnp.dtype(jnp.float32)}
    assert {g.dtype for g in grads} == {jnp.dtype(jnp.bfloat16)}


def test_no_gradient_through_moments():
    grad = jax.grad(lambda x: sum(m.sum() for m in batch_norm(x, SCALE, BIAS)[1]))(activations())
    assert (grad == 0).all()


def test_lanes_are_isolated():
    def loss(x, scale):
        y, moments = batch_norm(x, scale, BIAS, jnp.ones(6), relu=True)
        return (y**2).sum(), (y, moments)

    lanes = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)))
    x = jnp.stack([activations(0), activations(1), activations(2)])
    scale = jnp.stack([SCALE, SCALE, SCALE])
    healthy = lanes(x, scale)
    poisoned = lanes(x.at[1].set(jnp.nan), scale.at[1].set(jnp.inf))
    for a, b in zip(jax.tree.leaves(healthy), jax.tree.leaves(poisoned), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2], b[2])


def test_divergence_stays_visible():
    y, moments = batch_norm(activations().at[0, 0, 0, 0].set(jnp.inf), SCALE, BIAS)
    assert not jnp.isfinite(moments.variance[0]) or not jnp.isfinite(moments.mean[0])
    assert jnp.isfinite(y[..., 1:]).all()


@jax.numpy_rank_promotion("allow")
def test_normalize():
    x, mean, variance = activations(), jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 4.0, 0.25])
    expected = (x - mean) / jnp.sqrt(variance + 1e-5) * SCALE + BIAS
    np.testing.assert_allclose(normalize(x, mean, variance, SCALE, BIAS), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        normalize(x, mean, variance, SCALE, BIAS, relu=True), jax.nn.relu(expected), rtol=1e-5, atol=1e-5
    )
