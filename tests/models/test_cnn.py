import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hpjax.errors import ConfigError
from hpjax.models.cnn import CustomCNN, feature_map_side, smallest_image_size


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def init(size, widths, padding, classes, seed):
    return nnx.state(build(size, widths, padding, classes, seed))


def create(size=40, widths=(5, 5, 7), padding="reference", classes=6, seed=0):
    """Returns the model of `build`, initialised in one program, which is quicker."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(size, widths, padding, classes, seed)))
    return nnx.merge(graphdef, init(size, widths, padding, classes, seed), copy=True)


def build(size=40, widths=(5, 5, 7), padding="reference", classes=6, seed=0):
    return CustomCNN(
        num_classes=classes,
        image_size=size,
        kernel_widths=widths,
        padding=padding,
        rngs=nnx.Rngs(params=seed),
    )


@nnx.jit
def call(model, batch, mask=None, dropout_rate=0.0):
    """Calls the model in one program: by single operations takes ten times as long."""
    return model(batch, mask=mask, dropout_rate=dropout_rate)


def images(size=40, batch=4):
    return jax.random.uniform(jax.random.key(9), (batch, size, size, 3))


def test_reference_shapes():
    model = nnx.eval_shape(lambda: build(150))
    assert model.feature_map == (15, 15, 10)
    assert model.linear1.kernel.shape == (2250, 1024)
    assert model.linear2.kernel.shape == (1024, 512)
    assert model.linear3.kernel.shape == (512, 6)
    assert [c.kernel.shape for c in (model.conv1, model.conv2, model.conv3)] == [
        (5, 5, 3, 10),
        (5, 5, 10, 20),
        (7, 7, 20, 10),
    ]


def _shapes(**options):
    model = nnx.eval_shape(
        lambda: CustomCNN(num_classes=6, image_size=40, rngs=nnx.Rngs(params=0), **options)
    )
    layers = (model.conv1, model.conv2, model.conv3, model.linear1, model.linear2, model.linear3)
    return [layer.kernel.shape for layer in layers]


def test_each_width_has_an_option_of_its_own():
    own = {"features1": 4, "features2": 5, "features3": 6, "dense1": 7, "dense2": 8}
    kernels = {"kernel1": 3, "kernel3": 1, "kernel_widths": (9, 5, 9), "padding": "same"}
    *convolutions, dense1, dense2, dense3 = _shapes(**own, **kernels)
    assert convolutions == [(3, 3, 3, 4), (5, 5, 4, 5), (1, 1, 5, 6)]
    assert (dense1, dense2, dense3) == ((5 * 5 * 6, 7), (7, 8), (8, 6))
    for option in (*own, "kernel1", "kernel2", "kernel3"):
        for value in (0, 10**9):
            with pytest.raises(ConfigError, match=f"model.options.{option}={value}"):
                _shapes(**{option: value})


@pytest.mark.parametrize("padding", ["reference", "same"])
@pytest.mark.parametrize("widths", [(3, 3, 3), (5, 5, 7), (9, 9, 9), (2, 4, 6), (1, 1, 1)])
def test_works_from_the_smallest_size_on(widths, padding):
    smallest = smallest_image_size(widths, padding)
    for size in (smallest, smallest + 1):
        logits = jax.eval_shape(
            lambda x, s=size: build(s, widths, padding)(x, dropout_rate=0.0), images(size, 2)
        )
        assert logits.shape == (2, 6)
    with pytest.raises(ConfigError, match=f"at least {smallest} pixels"):
        build(smallest - 1, widths, padding)


@pytest.mark.parametrize("widths", [(3, 3, 3), (2, 4, 6), (9, 9, 9)])
def test_same_padding_only_halves(widths):
    assert feature_map_side(150, widths, "same") == 18


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"padding": "valid"}, "model.padding"),
        ({"widths": (5, 5)}, "model.kernel_widths"),
        ({"widths": (5, 0, 7)}, "model.kernel_widths"),
    ],
)
def test_refuses(arguments, key):
    with pytest.raises(ConfigError) as error:
        build(**arguments)
    assert error.value.key == key


def test_initialisation_is_uniform_within_the_root_of_fan_in():
    model = create(60)
    for kernel, fan_in in (
        (model.conv3.kernel, 980),
        (model.linear2.kernel, 1024),
        (model.linear2.bias, 1024),
    ):
        bound = fan_in**-0.5
        assert jnp.abs(kernel[...]).max() <= bound
        assert jnp.abs(kernel[...]).max() > 0.98 * bound
        # The deviation of a uniform distribution; 512 draws or more estimate it to 5 %.
        np.testing.assert_allclose(kernel[...].std(), bound / 3**0.5, rtol=0.05)


def test_masked_examples_change_nothing():
    x, mask = images(), jnp.array([1.0, 1.0, 1.0, 0.0])
    results = []
    for batch, m in ((x, mask), (x.at[3].set(7.0), mask), (x[:3], None)):
        model = create()
        results.append((call(model, batch, m)[:3], nnx.state(model, nnx.BatchStat)))
    for other in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), results[0], other)


def test_dropout_rate_can_differ_by_lane():
    model = create()
    graphdef, state = nnx.split(model)

    def logits(rate, key):
        merged = nnx.merge(graphdef, state, copy=True)
        return merged(images(), dropout_rate=rate, rngs=nnx.Rngs(dropout=key))

    keys = jnp.stack([jax.random.key(3)] * 3)
    lanes = jax.jit(jax.vmap(logits))(jnp.array([0.0, 0.5, 0.5]), keys)
    np.testing.assert_array_equal(lanes[1], lanes[2])
    assert not np.allclose(lanes[0], lanes[1])
    np.testing.assert_allclose(lanes[0], call(model, images()), rtol=1e-4, atol=1e-5)


def test_evaluation_uses_running_statistics_and_no_dropout():
    model = create()
    model.eval()
    before = nnx.state(model, nnx.BatchStat)
    batch = images()
    np.testing.assert_allclose(call(model, batch)[:1], call(model, batch[:1]), rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model, nnx.BatchStat))


def test_bfloat16_gives_float32_logits_and_statistics():
    model = create()
    graphdef, params, stats = nnx.split(model, nnx.Param, ...)
    half = nnx.merge(graphdef, jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), stats, copy=True)
    logits = call(half, images().astype(jnp.bfloat16))
    assert logits.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(nnx.state(half, nnx.BatchStat))} == {jnp.dtype(jnp.float32)}
    # bfloat16 has 8 bits of mantissa, and there are nine layers.
    np.testing.assert_allclose(logits, call(model, images()), atol=0.05)
