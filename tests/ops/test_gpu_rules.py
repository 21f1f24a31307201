"""A GPU's rules on a CPU: they compute the same. And none of them reaches a CPU's programs."""

import contextlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from jax import custom_batching
from test_conv import NHWC, TOLERANCE, cases, draw_normal, reference
from tiny_network import Tiny

from hpjax.models.layers import BatchNorm
from hpjax.models.resnet import BasicBlock
from hpjax.ops import conv, kernels, lane_op, lowerings, measurement, target, tuning
from hpjax.ops.geometry import Geometry
from hpjax.ops.key import Key, create_key
from hpjax.ops.norm_pool import batch_norm_max_pool, normalize_max_pool

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


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.03)])
def test_in_evaluation_norms_are_in_the_kernels(dtype, tolerance):
    """A residual network gives what it gives on a CPU, in lanes too, and its statistics count."""
    draws = np.random.default_rng(0)
    nets = [BasicBlock(4, 6, 2, rngs=nnx.Rngs(params=k)) for k in range(2)]
    for net in nets:
        for norm in (net.bn1, net.bn2, net.downsample[1]):
            norm.mean[...] = jnp.asarray(draws.normal(0, 1, 6), jnp.float32)
            for values in (norm.var, norm.scale, norm.bias):
                values[...] = jnp.asarray(draws.uniform(0.5, 2, 6), jnp.float32)
        net.eval()
    graph, lanes = nnx.split(nets[0])[0], jax.tree.map(lambda *v: jnp.stack(v), *map(nnx.state, nets))
    lanes = jax.tree.map(lambda v: v.astype(dtype) if v.ndim > 2 else v, lanes)
    x = jnp.asarray(draws.standard_normal((2, 3, 9, 8, 4)), dtype)
    evaluate = jax.vmap(lambda state, x: nnx.merge(graph, state)(x))
    want = jax.jit(evaluate)(lanes, x)
    with target.compiling_for(GPU):
        got = jax.jit(evaluate)(lanes, x)
        assert not _multiplies(evaluate, ",5,4,6", lanes, x)
    assert _multiplies(evaluate, ",5,4,6", lanes, x)
    assert got.dtype == want.dtype == dtype
    np.testing.assert_allclose(*(v.astype(jnp.float32) for v in (got, want)), rtol=tolerance, atol=tolerance)


def test_frozen_statistics_in_training_are_no_evaluation():
    net = BasicBlock(4, 4, 1, rngs=nnx.Rngs(params=0))
    net.train()
    net.bn1.use_running_average = net.bn2.use_running_average = True
    x = draw_normal(0, 2, 6, 6, 4)
    with target.compiling_for(GPU):
        assert _multiplies(net, ",6,6,4", x)
        net.eval()
        assert not _multiplies(net, ",6,6,4", x)


class _Doubled(nnx.Conv):
    def __call__(self, inputs, out_sharding=None):
        return 2 * super().__call__(inputs)


class _Shifted(BatchNorm):
    def __call__(self, x, *, mask=None, relu=False):
        return super().__call__(x, mask=mask, relu=relu) + 1


def _replace_a_part(net, what):
    conv = {"kernel_size": (3, 3), "rngs": nnx.Rngs(0)}
    bias = nnx.initializers.constant(3.0)
    new = {
        "bias": lambda: nnx.Conv(4, 4, padding=1, bias_init=bias, **conv),
        "own call": lambda: _Doubled(4, 4, padding=1, use_bias=False, **conv),
        "dilation": lambda: nnx.Conv(4, 4, padding=2, kernel_dilation=2, use_bias=False, **conv),
        "groups": lambda: nnx.Conv(4, 4, padding=1, feature_group_count=2, use_bias=False, **conv),
        "padding": lambda: nnx.Conv(4, 4, padding="SAME", strides=(1, 1), use_bias=False, **conv),
        "mask": lambda: nnx.Conv(4, 4, padding=1, use_bias=False, mask=jnp.zeros((3, 3, 4, 4)), **conv),
    }
    if what in new:
        net.conv1 = new[what]()
    elif what == "own norm":
        net.bn2 = _Shifted(4)
    net.eval()
    if what == "statistics of the batch":
        net.set_attributes(use_running_average=False)


@pytest.mark.parametrize(
    "what",
    [
        "bias",
        "own call",
        "dilation",
        "groups",
        "padding",
        "mask",
        "own norm",
        "statistics of the batch",
    ],
)
def test_what_users_put_in_a_blocks_place_is_called(what):
    x, results = draw_normal(0, 3, 6, 6, 4), []
    for device in (None, GPU):
        net = BasicBlock(4, 4, 1, rngs=nnx.Rngs(params=0))
        _replace_a_part(net, what)
        with contextlib.nullcontext() if device is None else target.compiling_for(device):
            results.append(net(x))
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)


def _multiplies(f, activations, *operands):
    """Returns whether activations of a shape that ends so are multiplied by something."""
    traced = jax.make_jaxpr(lambda *operands: f(*operands))(*operands)  # anew, whatever f has become
    shapes = re.findall(r"\[([\d,]*)\] = mul ", str(traced))
    return any(shape.endswith(activations) for shape in shapes)


def test_a_nan_is_not_lost_in_a_window():
    x = jnp.zeros((1, 2, 4, 1)).at[0, 1, 0, 0].set(jnp.nan)
    ones = jnp.ones(1)
    with target.compiling_for(GPU):
        y = normalize_max_pool(x, 0 * ones, ones, ones, ones)
    assert np.isnan(y).ravel().tolist() == [True, False]


STRIDED = Geometry(input_dilation=(2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize(
    ("op", "channels", "geometry", "chosen"),
    [
        ("forward", 64, Geometry(), "grouped:native"),
        ("weight_gradient", 128, Geometry(), "grouped:native"),
        ("weight_gradient", 256, Geometry(), "batched:im2col"),
        ("forward", 512, Geometry(), "batched:im2col"),
        ("forward", 128, Geometry((2, 2)), "batched:im2col"),
        ("input_gradient", 64, STRIDED, "batched:col2im"),
        ("input_gradient", 512, Geometry(), "batched:col2im"),
        ("forward", 16, Geometry(), "batched:wide"),
        ("forward", 16, Geometry((2, 2)), "batched:im2col"),
        ("input_gradient", 16, STRIDED, "batched:col2im"),
    ],
)
def test_a_gpu_chooses_from_a_handful(op, channels, geometry, chosen):
    kernel = (3, 3, channels, channels)
    b = (8, 7, 7, channels) if op == "weight_gradient" else kernel
    key = Key(op, (8, 9, 9, channels), b, (3, 3), (True, True), 8, "float32", geometry)
    with target.compiling_for(GPU):
        names = key.candidates()
        assert tuning.by_rule(key) == chosen and chosen in names and len(names) <= 4
    assert not {n for n in key.candidates() if "col2im" in n}


@pytest.mark.parametrize(
    ("channels", "features", "chosen"),
    [(512, 64, "im2col"), (64, 512, "im2col"), (16, 64, "im2col"), (256, 32, "im2col"), (128, 64, "native")],
)
def test_both_sides_channels_count_for_all_three_operations(channels, features, chosen):
    x, w, dy = (8, 9, 9, channels), (3, 3, channels, features), (8, 7, 7, features)
    own, back = (True, True), Geometry(padding=((2, 2), (2, 2)))
    for op, a, b, geometry in (
        ("forward", x, w, Geometry()),
        ("input_gradient", dy, w, back),
        ("weight_gradient", x, dy, Geometry()),
    ):
        with target.compiling_for(GPU):
            name = tuning.by_rule(Key(op, a, b, (3, 3), own, 8, "bfloat16", geometry))
        wanted = "col2im" if (op, chosen) == ("input_gradient", "im2col") else chosen
        assert name.partition(":")[2] == wanted, op


@pytest.mark.parametrize(
    ("height", "chosen"), [(30, "batched:wide"), (10, "batched:wide"), (8, "batched:im2col")]
)
def test_few_rows_under_a_tall_kernel_are_copied(height, chosen):
    """`wide` multiplies every row of the image, whether a row of the map sees it or not."""
    x, w, dy = (8, height, 30, 16), (7, 7, 16, 20), (8, height - 6, 24, 20)
    for op, b in (("forward", w), ("weight_gradient", dy)):
        with target.compiling_for(GPU):
            key = Key(op, x, b, (7, 7), (True, True), 8, "bfloat16", Geometry())
            assert tuning.by_rule(key) == chosen and chosen in key.candidates()


def test_shares_of_half_precision_do_not_overflow_one_by_one():
    """Each tap's share may be out of range where their sum isn't."""
    w = jnp.asarray([30.0, 0.0, -30.0], jnp.float16).reshape(1, 3, 1, 1) * jnp.ones(
        (1, 3, 1, 64), jnp.float16
    )
    dy = jnp.full((1, 1, 3, 64), 40.0, jnp.float16)
    with target.compiling_for(GPU):
        dx = kernels.INPUT_GRADIENT["col2im"](
            dy, w, Geometry(padding=((0, 0), (1, 1))), kernels.Numerics(np.dtype("float16"))
        )
    assert np.isfinite(dx).ravel().tolist() == [False, True, False] and dx[0, 0, 1, 0] == 0


@pytest.mark.parametrize("op", lowerings.OPS)
def test_lanes_are_measured_where_training_has_them(op):
    """Beside the channels of images and gradients, in front of kernels; the results are the lanes' own."""
    geometry = Geometry(padding=((1, 1), (1, 1)))
    b = (2, 5, 6, 3) if op == "weight_gradient" else (3, 3, 3, 3)
    key = Key(op, (2, 5, 6, 3), b, (3, 3), (True, True), 4, "float32", geometry)
    front = measurement.random_operands(key)
    want = measurement.make_program(key, "unrolled:native")(*front)
    with target.compiling_for(GPU):
        axes = measurement.lane_axes(key)
        beside = [jnp.moveaxis(v, 0, axis) for v, axis in zip(front, axes, strict=True)]
        assert [v.shape for v in measurement.random_operands(key)] == [v.shape for v in beside]
        for name in key.candidates():
            got = measurement.make_program(key, name)(*beside)
            if op != "weight_gradient":
                got = jnp.moveaxis(got, 3, 0)
            np.testing.assert_allclose(got, want, **TOLERANCE)
        times = measurement.measure(key, key.candidates(), repeats=2)
    # On a CPU, XLA's grouped weight gradient lets lanes reach each other: it isn't timed there.
    assert len(times) >= 2 and ("grouped:native" in times) == (op != "weight_gradient")


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
