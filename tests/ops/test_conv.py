"""Every lowering against `lax.conv_general_dilated` in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from hpjax.ops import conv, kernels, lowering_names, target, tuning
from hpjax.ops.geometry import Geometry, create_geometry
from hpjax.ops.kernels import Numerics
from hpjax.ops.key import create_key
from hpjax.ops.lowerings import OPS, lower_lane, lower_lanes

NHWC = ("NHWC", "HWIO", "NHWC")
# float32 sums of up to a few hundred products of order one.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
FLOAT32 = Numerics(np.dtype("float32"))
# One bfloat16 rounding of the result (2^-8), sums being float32.
BFLOAT16_TOLERANCE = {"rtol": 8e-3, "atol": 2e-2}
PROFILE = settings(max_examples=12, deadline=None, derandomize=True)


@st.composite
def cases(draw):
    """Draws sizes, widths, channels, features, strides, padding and dilation with at least one window."""
    axis = st.integers(1, 3)
    widths = draw(st.tuples(axis, axis))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    least = [(w - 1) * d + 1 for w, d in zip(widths, dilation, strict=True)]
    sizes = tuple(n + draw(st.integers(0, 4)) for n in least)
    pads = st.tuples(st.integers(-1, 3), st.integers(0, 3))
    padding = draw(st.one_of(st.sampled_from(["VALID", "SAME"]), st.tuples(pads, pads)))
    padding = padding if isinstance(padding, str) else tuple((max(a, -b), b) for a, b in padding)
    channels, features = draw(st.tuples(axis, axis))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return sizes, widths, channels, features, strides, padding, dilation


def draw_normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def padded_slices(sizes, padding):
    """Returns where the pixels that survive negative padding lie, in the image and in the padded image."""
    inside = [slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(sizes, padding, strict=True)]
    outside = [slice(max(0, b), n + b + a - max(0, a)) for n, (b, a) in zip(sizes, padding, strict=True)]
    return (slice(None), *inside), (slice(None), *outside)


def reference(x, w, draw_dy, strides, padding, dilation):
    """Returns output, input gradient and weight gradient in float64, tap by tap."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    sizes, widths = x.shape[1:3], w.shape[:2]
    geometry = create_geometry(sizes, widths, strides, padding, dilation)
    out = geometry.output_sizes(sizes, widths)
    inside, outside = padded_slices(sizes, geometry.padding)
    padded = np.zeros(
        (x.shape[0], *(n + sum(p) for n, p in zip(sizes, geometry.padding, strict=True)), x.shape[3])
    )
    padded[outside] = x[inside]
    y = np.zeros((x.shape[0], *out, w.shape[3]))
    dy = np.asarray(draw_dy(y.shape), np.float64)
    d_padded, dw, dx = np.zeros_like(padded), np.zeros_like(w), np.zeros_like(x)
    for i, j in np.ndindex(*widths):
        starts = (i * geometry.kernel_dilation[0], j * geometry.kernel_dilation[1])
        seen = (
            slice(None),
            *(slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, out, strides, strict=True)),
        )
        y += padded[seen] @ w[i, j]
        d_padded[seen] += dy @ w[i, j].T
        dw[i, j] = np.tensordot(padded[seen], dy, ((0, 1, 2), (0, 1, 2)))
    dx[inside] = d_padded[outside]
    return y, dx, dw


@pytest.mark.parametrize("padding", ["SAME", ((2, 1), (-1, 3))])
def test_reference_is_lax_in_float64(padding):
    x, w = (np.asarray(v, np.float64) for v in (draw_normal(0, 2, 7, 6, 3), draw_normal(1, 3, 2, 3, 4)))
    with jax.enable_x64(True):
        y, vjp = jax.vjp(
            lambda x, w: lax.conv_general_dilated(x, w, (2, 1), padding, None, (1, 2), NHWC),
            jnp.asarray(x),
            jnp.asarray(w),
        )
        want = (y, *vjp(jnp.asarray(draw_normal(2, *y.shape), jnp.float64)))
        got = reference(x, w, lambda shape: draw_normal(2, *shape), (2, 1), padding, (1, 2))
        for mine, lax_result in zip(got, want, strict=True):
            np.testing.assert_allclose(mine, lax_result, rtol=1e-12, atol=1e-12)


def lane_reference(x, w, own, lanes, *rest):
    each = [reference(x[k] if own[0] else x, w[k] if own[1] else w, *rest) for k in range(lanes)]
    return [np.stack(v) for v in zip(*each, strict=True)]


def operands_of(op, own, x, w, dy):
    """Returns the op's operands and which of them are own; output gradients are always own."""
    return {
        "forward": ((x, w), own),
        "input_gradient": ((dy, w), (True, own[1])),
        "weight_gradient": ((x, dy), (own[0], True)),
    }[op]


def draw_dy(shape):
    return draw_normal(2, *shape)


@pytest.mark.parametrize("own", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("op", OPS)
@settings(PROFILE, max_examples=2)
@given(case=cases(), batch=st.integers(1, 3))
def test_lowerings_of_lanes(op, own, case, batch):
    sizes, widths, channels, features, strides, padding, dilation = case
    lanes = 2
    x = draw_normal(0, *(lanes,) * own[0], batch, *sizes, channels)
    w = draw_normal(1, *(lanes,) * own[1], *widths, channels, features)
    geometry = create_geometry(sizes, widths, strides, padding, dilation)
    want = lane_reference(x, w, own, lanes, draw_dy, strides, padding, dilation)
    dy = jnp.broadcast_to(draw_dy(want[0].shape[1:]), want[0].shape)
    (a, b), flags = operands_of(op, own, x, w, dy)
    windows = geometry.transposed(sizes, widths) if op == "input_gradient" else geometry
    names = lowering_names(op, lanes, flags)

    def every(a, b):
        return [lower_lanes(name, op, a, b, flags, widths, windows, FLOAT32) for name in names]

    for name, got in zip(names, jax.jit(every)(a, b), strict=True):
        np.testing.assert_allclose(got, want[OPS.index(op)], **TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", lowering_names())
@pytest.mark.parametrize("op", OPS)
@settings(PROFILE, max_examples=6)
@given(case=cases(), batch=st.integers(1, 4))
def test_kernels_of_one_lane(op, name, case, batch):
    sizes, widths, channels, features, strides, padding, dilation = case
    if name not in lowering_names(op):
        return
    x, w = draw_normal(0, batch, *sizes, channels), draw_normal(1, *widths, channels, features)
    geometry = create_geometry(sizes, widths, strides, padding, dilation)
    want = reference(x, w, draw_dy, strides, padding, dilation)
    (a, b), _ = operands_of(op, (True, True), x, w, draw_dy(want[0].shape))
    windows = geometry.transposed(sizes, widths) if op == "input_gradient" else geometry
    lower = jax.jit(lambda a, b: lower_lane(name, op, a, b, widths, windows, FLOAT32))
    np.testing.assert_allclose(lower(a, b), want[OPS.index(op)], **TOLERANCE)


# Most taps, or all but one, meet padding; strides, dilation and cropping leave gaps between what they meet.
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("sizes", "widths", "strides", "padding", "dilation"),
    [
        ((1, 1), (3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1)),
        ((2, 3), (3, 3), (2, 1), [(1, 1), (2, 0)], (1, 1)),
        ((4, 4), (3, 3), (2, 2), [(1, 1), (1, 1)], (1, 1)),
        ((4, 5), (3, 2), (3, 2), [(2, 3), (1, 4)], (2, 3)),
        ((6, 5), (2, 2), (1, 2), [(-1, 2), (1, -2)], (1, 2)),
        ((4, 4), (1, 1), (2, 2), [(0, 0), (0, 0)], (1, 1)),
    ],
)
def test_taps_that_meet_little(op, sizes, widths, strides, padding, dilation):
    x, w = draw_normal(0, 2, *sizes, 3), draw_normal(1, *widths, 3, 4)
    geometry = create_geometry(sizes, widths, strides, padding, dilation)
    want = reference(x, w, draw_dy, strides, padding, dilation)
    (a, b), _ = operands_of(op, (True, True), x, w, draw_dy(want[0].shape))
    windows = geometry.transposed(sizes, widths) if op == "input_gradient" else geometry
    got = lower_lane("taps", op, a, b, widths, windows, FLOAT32)
    np.testing.assert_allclose(got, want[OPS.index(op)], **TOLERANCE)


# Each strategy once more on one plain case, so that none depends on what hypothesis happens to draw.
@pytest.mark.parametrize("own", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("op", OPS)
def test_every_strategy(op, own):
    x = draw_normal(0, *(2,) * own[0], 2, 5, 6, 2)
    w = draw_normal(1, *(2,) * own[1], 3, 2, 2, 3)
    geometry = create_geometry((5, 6), (3, 2), (1, 1), "SAME", None)
    want = lane_reference(x, w, own, 2, draw_dy, (1, 1), "SAME", None)
    dy = jnp.broadcast_to(draw_dy(want[0].shape[1:]), want[0].shape)
    (a, b), flags = operands_of(op, own, x, w, dy)
    windows = geometry.transposed((5, 6), (3, 2)) if op == "input_gradient" else geometry
    names = [n for n in lowering_names(op, 2, flags) if n.partition(":")[2] in ("native", "wide")]

    def every(a, b):
        return [lower_lanes(name, op, a, b, flags, (3, 2), windows, FLOAT32) for name in names]

    for name, got in zip(names, jax.jit(every)(a, b), strict=True):
        np.testing.assert_allclose(got, want[OPS.index(op)], **TOLERANCE, err_msg=name)


def loss_of(strides, padding, dilation, dy):
    def loss(x, w):
        y = conv(x, w, strides, padding, None, dilation, NHWC)
        return (y.astype(jnp.float32) * dy(y.shape)).sum()

    return loss


@PROFILE
@given(case=cases(), own=st.sampled_from([(0, 1), (1, 0), (1, 1)]))
def test_gradients_under_vmap(case, own):
    sizes, widths, channels, features, strides, padding, dilation = case
    x = draw_normal(0, *(2,) * own[0], 2, *sizes, channels)
    w = draw_normal(1, *(2,) * own[1], *widths, channels, features)

    loss = loss_of(strides, padding, dilation, draw_dy)
    axes = tuple(0 if has else None for has in own)
    dx, dw = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), axes))(x, w)
    want = lane_reference(x, w, own, 2, draw_dy, strides, padding, dilation)
    np.testing.assert_allclose(dx, want[1], **TOLERANCE)
    np.testing.assert_allclose(dw, want[2], **TOLERANCE)


@pytest.mark.parametrize("x_axes", [(None, None), (0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("w_axes", [(0, 0), (None, 0), (0, None)])
def test_nested_vmap(x_axes, w_axes):
    x = draw_normal(0, *(2 for a in x_axes if a == 0), 2, 6, 5, 3)
    w = draw_normal(1, *(2 for a in w_axes if a == 0), 3, 2, 3, 4)
    loss = loss_of((1, 2), "SAME", None, draw_dy)
    ours = jax.value_and_grad(loss, (0, 1))

    def theirs(x, w):
        y = lax.conv_general_dilated(x, w, (1, 2), "SAME", dimension_numbers=NHWC)
        return (y * draw_normal(2, *y.shape)).sum()

    def twice(f):
        for x_axis, w_axis in zip(x_axes[::-1], w_axes[::-1], strict=True):
            if (x_axis, w_axis) != (None, None):
                f = jax.vmap(f, (x_axis, w_axis))
        return jax.jit(f)

    got, want = twice(ours)(x, w), twice(jax.value_and_grad(theirs, (0, 1)))(x, w)
    jax.tree.map(lambda g, v: np.testing.assert_allclose(g, v, **TOLERANCE), got, want)


@settings(PROFILE, max_examples=4)
@given(case=cases(), inner=st.sampled_from([(None, 0), (0, None), (0, 0)]))
def test_nested_vmap_like_float64(case, inner):
    """Outer lanes are own in both operands, inner ones as drawn."""
    sizes, widths, channels, features, strides, padding, dilation = case
    x = draw_normal(0, 2, *(2,) * (inner[0] == 0), 2, *sizes, channels)
    w = draw_normal(1, 2, *(2,) * (inner[1] == 0), *widths, channels, features)
    gradient = jax.grad(loss_of(strides, padding, dilation, draw_dy), (0, 1))
    dx, dw = jax.jit(jax.vmap(jax.vmap(gradient, inner)))(x, w)
    own = (inner[0] == 0, inner[1] == 0)
    for k in range(2):
        want = lane_reference(x[k], w[k], own, 2, draw_dy, strides, padding, dilation)
        np.testing.assert_allclose(dx[k], want[1], **TOLERANCE)
        np.testing.assert_allclose(dw[k], want[2], **TOLERANCE)


@settings(PROFILE, max_examples=4)
@given(case=cases(), own=st.sampled_from([(False, True), (True, True)]))
def test_gradients_under_vmap_in_bfloat16(case, own):
    sizes, widths, channels, features, strides, padding, dilation = case
    rounded = lambda seed, *shape: jnp.asarray(draw_normal(seed, *shape), jnp.bfloat16)  # noqa: E731
    x = rounded(0, *(2,) * own[0], 2, *sizes, channels)
    w = rounded(1, 2, *widths, channels, features)
    draw_rounded = lambda shape: draw_normal(2, *shape).astype(jnp.bfloat16).astype(np.float32)  # noqa: E731
    axes = tuple(0 if has else None for has in own)
    gradient = jax.grad(loss_of(strides, padding, dilation, draw_rounded), (0, 1))
    got = jax.jit(jax.vmap(gradient, axes))(x, w)
    want = lane_reference(x, w, own, 2, draw_rounded, strides, padding, dilation)
    for mine, exact in zip(got, want[1:], strict=True):
        assert mine.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(mine, np.float64), exact, **BFLOAT16_TOLERANCE)


@pytest.mark.parametrize("wrap", ["remat", "scan"])
def test_transformations(wrap):
    x, w = draw_normal(0, 2, 6, 6, 3), draw_normal(1, 2, 3, 3, 3, 3)

    def layer(x, w):
        return conv(x, w, (1, 1), "SAME", dimension_numbers=NHWC)

    def scanned(x, w):
        return lax.scan(lambda c, _: (layer(c, w), None), x, None, length=2)[0]

    def plain(x, w):
        return layer(layer(x, w), w)

    f = scanned if wrap == "scan" else jax.checkpoint(plain)
    grads = [jax.jit(jax.vmap(jax.grad(lambda w, g=g: jnp.square(g(x, w)).sum())))(w) for g in (f, plain)]
    np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("op", OPS)
def test_a_lane_of_nan_changes_no_other_bit(op, shared):
    geometry = create_geometry((6, 6), (3, 3), (1, 1), "SAME", None)
    own = (op == "input_gradient" or not shared, True)
    a = draw_normal(0, *(3,) * own[0], 2, 6, 6, 4)
    b = draw_normal(1, 3, *((2, 6, 6, 4) if op == "weight_gradient" else (3, 3, 4, 4)))
    bad_a, bad_b = a.at[1].set(np.inf) if own[0] else a, b.at[1].set(np.nan)
    key = create_key(op, a, b, own, (3, 3), geometry)
    for name in key.candidates():
        f = jax.jit(lambda a, b, n=name: lower_lanes(n, op, a, b, own, (3, 3), geometry, FLOAT32))
        healthy, ill = np.asarray(f(a, b)), np.asarray(f(bad_a, bad_b))
        assert not np.isfinite(ill[1]).any(), name
        assert healthy[[0, 2]].tobytes() == ill[[0, 2]].tobytes(), name


@pytest.mark.parametrize("name", ["native", "im2col_scan", "wide", "wide_scan"])
@pytest.mark.parametrize("op", OPS)
def test_bfloat16(op, name):
    x, w = (
        jnp.asarray(v, jnp.bfloat16) for v in (draw_normal(0, 4, 9, 9, 5), draw_normal(1, 3, 3, 5, 6) / 7)
    )
    want = reference(
        x,
        w,
        lambda shape: np.asarray(jnp.asarray(draw_normal(2, *shape), jnp.bfloat16)),
        (1, 1),
        "SAME",
        None,
    )
    dy = jnp.asarray(draw_normal(2, *want[0].shape), jnp.bfloat16)
    geometry = create_geometry((9, 9), (3, 3), (1, 1), "SAME", None)
    (a, b), _ = operands_of(op, (True, True), x, w, dy)
    windows = geometry.transposed((9, 9), (3, 3)) if op == "input_gradient" else geometry
    got = lower_lane(name, op, a, b, (3, 3), windows, Numerics(jnp.dtype("bfloat16")))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float64), want[OPS.index(op)], **BFLOAT16_TOLERANCE)


def test_preferred_element_type():
    x, w = (jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2), jnp.bfloat16))
    y, vjp = jax.vjp(
        lambda x, w: conv(x, w, (1, 1), "SAME", dimension_numbers=NHWC, preferred_element_type=jnp.float32),
        x,
        w,
    )
    assert y.dtype == jnp.float32
    assert [g.dtype for g in vjp(y)] == [jnp.bfloat16, jnp.bfloat16]


@pytest.mark.parametrize(
    "arguments",
    [
        {"dimension_numbers": ("NCHW", "OIHW", "NCHW")},
        {"dimension_numbers": NHWC, "feature_group_count": 2},
        {"dimension_numbers": NHWC, "lhs_dilation": (2, 1)},
    ],
    ids=["layout", "groups", "input_dilation"],
)
def test_what_is_not_ours_is_lax(arguments):
    x, w = draw_normal(0, 4, 4, 4, 4), draw_normal(1, 4, 4, 4 // arguments.get("feature_group_count", 1), 4)
    got, want = (f(x, w, (1, 1), ((1, 1), (2, 1)), **arguments) for f in (conv, lax.conv_general_dilated))
    np.testing.assert_array_equal(got, want)


def test_mismatched_channels_raise_as_lax_does():
    with pytest.raises((TypeError, ValueError), match="feature"):
        conv(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 2, 4)), (1, 1), "SAME", dimension_numbers=NHWC)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_inside_nnx_conv(dtype):
    x = jnp.asarray(draw_normal(0, 2, 7, 7, 3))
    models = [
        nnx.Conv(3, 4, (3, 3), 2, dtype=dtype, rngs=nnx.Rngs(0), **extra)
        for extra in ({}, {"conv_general_dilated": conv})
    ]

    def loss(model):
        return jnp.square(model(x).astype(jnp.float32)).sum()

    (want, want_grads), (got, got_grads) = (nnx.value_and_grad(loss)(m) for m in models)
    np.testing.assert_allclose(got, want, rtol=2e-2 if dtype == jnp.bfloat16 else 1e-5)
    want_kernel, got_kernel = want_grads["kernel"][...], got_grads["kernel"][...]
    scale = float(jnp.abs(want_kernel).max())
    np.testing.assert_allclose(
        got_kernel, want_kernel, atol=scale * (2e-2 if dtype == jnp.bfloat16 else 1e-5)
    )


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR", ((1, 0), (0, 2))])
def test_inside_linen_conv(padding):
    x = jnp.asarray(draw_normal(0, 2, 7, 7, 3))
    plain = linen.Conv(4, (3, 2), 2, padding=padding, kernel_dilation=(1, 2))
    ours = plain.clone(conv_general_dilated=conv)
    lanes = jax.vmap(plain.init, (0, None))(jax.random.split(jax.random.key(0), 2), x)

    def gradient(model):
        loss = lambda variables: jnp.square(model.apply(variables, x)).sum()  # noqa: E731
        return jax.vmap(jax.value_and_grad(loss))(lanes)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gradient(ours), gradient(plain)
    )


@pytest.mark.parametrize("name", ["unrolled:im2col", "mapped:wide_scan", "dense:native", "grouped:native"])
def test_overridden_lowerings_agree(name):
    x, w = draw_normal(0, 4, 8, 8, 3), draw_normal(1, 3, 3, 3, 3, 2)
    f = jax.vmap(jax.grad(loss_of((1, 1), "SAME", None, draw_dy), 1), (None, 0))
    want = jax.jit(f)(x, w)
    with tuning.override(dict.fromkeys(OPS, name)):
        np.testing.assert_allclose(jax.jit(lambda *a: f(*a))(x, w), want, **TOLERANCE)


@pytest.mark.parametrize(
    ("batch", "size", "pieces"), [(32, 150, 4), (450, 148, 57), (32, 74, 4), (32, 38, 1), (8, 400, 8)]
)
def test_a_cpus_long_sums_are_taken_in_pieces(batch, size, pieces):
    """XLA would take one over more than its threads' stacks can hold, and end the process."""
    shapes = [jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32) for _ in range(2)]
    gradient = lambda x, dy: kernels.native_weight_gradient(  # noqa: E731
        x, dy, (3, 3), Geometry(padding=((1, 1), (1, 1))), FLOAT32
    )
    text = str(jax.make_jaxpr(gradient)(*shapes))
    assert text.count("= conv_general_dilated[") == pieces
    with target.compiling_for(target.Target("gpu", "any")):
        assert str(jax.make_jaxpr(lambda *v: gradient(*v))(*shapes)).count("= conv_general_dilated[") == 1


@pytest.mark.parametrize(("batch", "size"), [(1, 1000), (512, 320), (4096, 150), (10_000, 64), (600, 150)])
def test_a_cpus_longest_sums_are_products_in_a_loop(batch, size):
    shapes = [jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32) for _ in range(2)]
    same = Geometry(padding=((1, 1), (1, 1)))
    text = str(
        jax.make_jaxpr(lambda x, dy: kernels.native_weight_gradient(x, dy, (3, 3), same, FLOAT32))(*shapes)
    )
    assert "= scan[" in text and "conv_general_dilated[" not in text


def test_no_piece_is_longer_than_a_sum_may_be():
    for images, side in [(1, 600), (7, 300), (32, 150), (33, 224), (450, 148), (513, 64), (64, 38)]:
        pieces = kernels._pieces(images, side**2)
        assert [i for p in pieces for i in range(images)[p]] == list(range(images))
        longest = max(len(range(images)[p]) for p in pieces)
        assert longest == 1 or longest * side**2 <= kernels.LONG_SUM


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sum_in_pieces_is_that_of_float64(monkeypatch, dtype):
    monkeypatch.setattr(kernels, "LONG_SUM", 100)
    x, dy = draw_normal(0, 11, 6, 7, 3).astype(dtype), draw_normal(1, 11, 6, 7, 4).astype(dtype)
    arguments = (3, 3), Geometry(padding=((1, 1), (1, 1)))
    got = kernels.native_weight_gradient(x, dy, *arguments, Numerics(np.dtype(dtype)))
    with jax.enable_x64(True):
        exact = (jnp.asarray(np.asarray(v, np.float64)) for v in (x, dy))
        want = kernels._native_weight_gradient(*exact, *arguments, Numerics(np.dtype("float64")), 1)
    assert got.dtype == dtype
    # 462 products of about 1; in bfloat16 each piece's sum is rounded to 8 bits, and all of them again.
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == "float32" else {"rtol": 2e-2, "atol": 0.2}
    np.testing.assert_allclose(np.asarray(got, np.float64), want, **tolerance)
