"""A GPU's rules on a CPU: they compute the same. And none of them reaches a CPU's programs."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import custom_batching
from test_conv import NHWC, TOLERANCE, cases, draw_normal, reference
from tiny_network import Tiny

from hpjax.ops import conv, lane_op, lowerings, target, tuning
from hpjax.ops.geometry import Geometry
from hpjax.ops.key import Key, create_key
from hpjax.ops.norm_pool import batch_norm_max_pool, normalize_max_pool
from hpjax.ops.phases import find_phases

GPU = target.Target("gpu", "any")


@pytest.mark.parametrize("own", [(False, True), (True, False), (True, True)])
@settings(max_examples=3, deadline=None, derandomize=True)
@given(case=cases())
def test_lanes_are_those_of_float64(own, case):
    """Values and both gradients, whichever operands the lanes share."""
    sizes, widths, channels, features, strides, padding, dilation = case
    lanes = 2
    x, w = draw_normal(0, lanes, 2, *sizes, channels), draw_normal(1, lanes, *widths, channels, features)
    x, w = (v if has else v[0] for v, has in zip((x, w), own, strict=True))
    axes = tuple(0 if has else None for has in own)

    def value_and_gradients(x, w):
        y, vjp = jax.vjp(lambda x, w: conv(x, w, strides, padding, None, dilation, NHWC), x, w)
        return y, *vjp(draw_normal(2, *y.shape))

    with target.compiling_for(GPU):
        got = jax.jit(jax.vmap(value_and_gradients, axes))(x, w)
    for k in range(lanes):
        one = [v[k] if has else v for v, has in zip((x, w), own, strict=True)]
        want = reference(*one, lambda shape: draw_normal(2, *shape), strides, padding, dilation)
        for mine, exact in zip(got, want, strict=True):
            # Sums of up to thousands of products.
            np.testing.assert_allclose(mine[k], exact, rtol=1e-3, atol=1e-3)


def test_lanes_of_lanes():
    x, w = draw_normal(0, 2, 3, 2, 6, 6, 3), draw_normal(1, 2, 3, 3, 3, 3, 4)
    apply = jax.vmap(jax.vmap(lambda x, w: conv(x, w, (2, 2), "SAME", None, None, NHWC)))
    with target.compiling_for(GPU):
        got = jax.jit(apply)(x, w)
    np.testing.assert_allclose(got, apply(x, w), **TOLERANCE)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(case=cases())
def test_phases_are_every_pair_of_a_pixel_and_a_tap(case):
    sizes, widths, _, _, strides, padding, dilation = case
    from hpjax.ops.geometry import create_geometry

    geometry = create_geometry(sizes, widths, strides, padding, dilation).transposed(sizes, widths)
    outputs = create_geometry(sizes, widths, strides, padding, dilation).output_sizes(sizes, widths)
    for axis in (0, 1):
        met = geometry.meetings(axis, outputs[axis], widths[axis])
        pairs = ((m.tap, zip(_range(m.outputs), _range(m.pixels), strict=True)) for m in met)
        wanted = {(tap, *place) for tap, places in pairs for place in places}
        found = set()
        for phase in find_phases(geometry, axis, outputs[axis], widths[axis]):
            for i, tap in enumerate(range(widths[axis])[phase.taps]):
                for place in range(phase.count):
                    pixel = place + i * phase.dilation - phase.padding[0]
                    if 0 <= pixel < outputs[axis]:
                        out = phase.start + place * geometry.input_dilation[axis]
                        found.add((tap, out, pixel))
        assert found == wanted


def _range(part):
    return range(part.start, part.stop, part.step)


@pytest.mark.parametrize("sizes", [((3, 3), (2, 2), ((1, 1), (1, 1))), ((2, 2), (2, 2), ((0, 0), (0, 0)))])
def test_norm_and_pool_of_overlapping_windows(sizes):
    window, strides, pads = sizes
    draws = np.random.default_rng(0)
    x = jnp.asarray(draws.standard_normal((3, 7, 8, 5)), jnp.float32)
    scale, bias = jnp.asarray(draws.standard_normal((2, 5)), jnp.float32)

    def train(x, scale, bias):
        y, _ = batch_norm_max_pool(x, scale, bias, window=window, strides=strides, pads=pads)
        return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum(), y

    def everything(*operands):
        trained = jax.value_and_grad(train, (0, 1, 2), has_aux=True)(*operands)
        return trained, normalize_max_pool(
            x, bias, scale**2, scale, bias, window=window, strides=strides, pads=pads
        )

    want = jax.jit(everything)(x, scale, bias)
    with target.compiling_for(GPU):
        got = jax.jit(everything)(x, scale, bias)
    # Sums run in another order: float32 rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), got, want)


def test_a_nan_is_not_lost_in_a_window():
    x = jnp.zeros((1, 2, 4, 1)).at[0, 1, 0, 0].set(jnp.nan)
    ones = jnp.ones(1)
    with target.compiling_for(GPU):
        y = normalize_max_pool(x, 0 * ones, ones, ones, ones)
    assert np.isnan(y).ravel().tolist() == [True, False]


def test_a_gpu_chooses_from_a_handful():
    strided = Geometry(input_dilation=(2, 2), padding=((1, 1), (1, 1)))
    for op, geometry in (
        ("forward", Geometry()),
        ("weight_gradient", Geometry()),
        ("input_gradient", strided),
    ):
        key = Key(op, (8, 9, 9, 64), (3, 3, 64, 64), (3, 3), (True, True), 8, "float32", geometry)
        with target.compiling_for(GPU):
            names = key.candidates()
            assert tuning.by_rule(key) in names and len(names) <= 6
        assert not {n for n in key.candidates() if "phases" in n}
    with target.compiling_for(GPU):
        assert tuning.by_rule(key) == "grouped:phases"


def test_a_cpu_is_given_what_custom_vmap_would_make(monkeypatch):
    """The same program, to the letter: lanes in front, and nothing that is for a GPU alone."""
    model, example = _tiny_step()
    mine = jax.jit(jax.vmap(model)).lower(example).as_text()
    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules["hpjax.ops.conv"], "lane_op", _by_custom_vmap)
    model, example = _tiny_step()
    assert jax.jit(jax.vmap(model)).lower(example).as_text() == mine
    assert "optimization_barrier" not in mine
    with target.compiling_for(GPU):
        model, example = _tiny_step()
        assert "optimization_barrier" in jax.jit(jax.vmap(model)).lower(example).as_text()


def _tiny_step():
    from flax import nnx

    graphdef, params, rest = nnx.split(Tiny(num_classes=3, image_size=12, rngs=nnx.Rngs(0)), nnx.Param, ...)

    def step(params):
        def loss(params):
            images = jnp.ones((2, 12, 12, 3))
            return nnx.merge(graphdef, params, rest, copy=True)(images, rngs=nnx.Rngs(dropout=0)).sum()

        return jax.grad(loss)(params)

    return step, jax.tree.map(lambda x: jnp.stack([x, x]), params)


def _by_custom_vmap(op, a, b, *windows):
    @custom_batching.custom_vmap
    def one(a, b):
        key = create_key(op, a, b, (False, False), *windows[:2])
        return lowerings.lower_lane(tuning.choose(key), op, a, b, *windows)

    @one.def_vmap
    def add_lanes(lanes, batched, a, b):
        del lanes
        return lane_op._lanes_op(op, tuple(batched), *windows)(a, b), True

    return one(a, b)
