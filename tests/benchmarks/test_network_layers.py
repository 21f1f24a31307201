"""The arithmetic that rates are computed from."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from systems import layers, plain_models
from systems.workload import CLASSES


@pytest.mark.parametrize(("model", "expected"), [("custom_cnn", 54e6), ("resnet18", 0.87e9)])
def test_forward_multiplies_at_150_pixels(model, expected):
    assert layers.forward_multiplies(model, 150) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("model", ["custom_cnn", "resnet18"])
def test_counts_what_the_network_computes(model):
    create = lambda: plain_models.create_model(model, 48, CLASSES, nnx.Rngs(0))  # noqa: E731
    graphdef, state = nnx.split(nnx.eval_shape(create))
    call = lambda state, x: nnx.merge(graphdef, state)(x, rngs=nnx.Rngs(0))  # noqa: E731
    jaxpr = jax.make_jaxpr(call)(state, jnp.zeros((1, 48, 48, 3)))
    assert layers.forward_multiplies(model, 48) == sum(map(_multiplies, _equations(jaxpr.jaxpr)))


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _multiplies(equation):
    out = equation.outvars[0].aval
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape  # height, width, channels, features
        return out.size * kernel[0] * kernel[1] * kernel[2]
    if equation.primitive.name == "dot_general":
        ((contracted, _), _) = equation.params["dimension_numbers"]
        return out.size * equation.invars[0].aval.shape[contracted[0]]
    return 0
