"""Ways to compute one lane's convolution and its weight gradient; NHWC images, HWIO kernels.

`native` leaves it to XLA. `im2col` copies every window into a row and multiplies once. `wide` copies along
rows of the image only, multiplies by all rows of the kernel at once, and adds the shifted results: copies
shrink from height x width of the kernel to its width, and few output channels still make a wide product.
`*_scan` does the same for so few images at a time that the copies stay in the cache. `taps` multiplies once
for each tap of the kernel by the pixels that it meets: where images are hardly larger than the kernel, most
taps would multiply padding. `col2im`, of input gradients, multiplies by the kernel once and adds each tap's
share to the pixels that the tap saw: of a strided convolution it multiplies no zeros between pixels.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hpjax.ops import target
from hpjax.ops.compiler import kept
from hpjax.ops.geometry import Geometry, Meeting
from hpjax.ops.sums import accumulation_dtype

Images = Float[Array, "batch height width channels"]
Outputs = Float[Array, "batch out_height out_width features"]
Kernel = Float[Array, "kernel_height kernel_width channels features"]
GroupedKernel = Float[Array, "kernel_height kernel_width channels_per_group features"]
# Copies of one step of a scan stay below this, so that two cores' level-2 caches hold them.
BLOCK_BYTES = 1 << 20
LONG_SUM = 200_000  # values that a weight gradient of XLA's CPU backend adds up in one go
TILE = 8  # values of a row that a GPU's products take at once, or a multiple of it
MOST_PIECES = 64  # of one sum: each is an instruction of the program


class Numerics(NamedTuple):
    """Dtype of the result, and `lax.Precision` of the products; sums are float32 at least."""

    dtype: jnp.dtype
    precision: Any = None


def product_dtype(dtype: jnp.dtype, wanted: jnp.dtype) -> jnp.dtype:
    """Returns the dtype in which a product of `dtype` is written.

    A GPU sums in float32 at least in any case, and rounds before it writes; float16 might overflow then. On a
    CPU that would be another program.
    """
    return wanted if target.backend() != "cpu" and dtype != jnp.float16 else accumulation_dtype(dtype)


def flipped(w: Array) -> Array:
    """Returns the kernel `[..., height, width, channels, features]` that takes gradients back."""
    return jnp.flip(w, (-4, -3)).swapaxes(-1, -2)


def native(x: Images, w: GroupedKernel, geometry: Geometry, numerics: Numerics, groups: int = 1) -> Outputs:
    """Returns XLA's own convolution."""
    return lax.conv_general_dilated(
        x,
        w,
        geometry.strides,
        geometry.padding,
        geometry.input_dilation,
        geometry.kernel_dilation,
        ("NHWC", "HWIO", "NHWC"),
        groups,
        precision=numerics.precision,
        preferred_element_type=numerics.dtype,
    )


def native_weight_gradient(
    x: Images, dy: Outputs, widths: tuple[int, int], geometry: Geometry, numerics: Numerics, groups: int = 1
) -> GroupedKernel:
    """Returns XLA's own gradient of the kernel; `dy` is the gradient of the output."""
    if target.backend() == "cpu" and groups == 1:
        wide = Numerics(accumulation_dtype(x.dtype), numerics.precision)
        pixels = math.prod(dy.shape[1:3])
        pieces = _pieces(x.shape[0], pixels)
        if len(pieces) > MOST_PIECES or pixels > 2 * LONG_SUM:  # products in a loop instead
            return WEIGHT_GRADIENT["wide_scan"](x, dy, widths, geometry, numerics)
        if len(pieces) > 1:
            every = (_native_weight_gradient(x[p], dy[p], widths, geometry, wide, 1) for p in pieces)
            return functools.reduce(jnp.add, every).astype(numerics.dtype)
    return _native_weight_gradient(x, dy, widths, geometry, numerics, groups)


def _pieces(images: int, pixels: int) -> list[slice]:
    """Returns the images that XLA's CPU backend is given at once, for a sum over `pixels` pixels of each.

    It takes a long sum in slices, where threads wait for each other each from within the one before: a
    kilobyte of stack for each. The sum over 450 images of 150 x 150 pixels can exhaust the 8 MB of its
    threads, which ends the process: seen with jaxlib 0.10.2
    (https://github.com/tensorflow/tensorflow/issues/14807). Few images at a time are faster, too.
    """
    few = images if images * pixels <= LONG_SUM / 2 else max(1, min(8, LONG_SUM // pixels))
    return [slice(start, start + few) for start in range(0, images, few)]


def _native_weight_gradient(
    x: Images, dy: Outputs, widths: tuple[int, int], geometry: Geometry, numerics: Numerics, groups: int
) -> GroupedKernel:
    shape = (*widths, x.shape[-1] // groups, dy.shape[-1])
    own = Numerics(x.dtype, numerics.precision)
    forward = functools.partial(native, geometry=geometry, numerics=own, groups=groups)
    transpose = jax.linear_transpose(lambda w: forward(x, w), jax.ShapeDtypeStruct(shape, x.dtype))
    (dw,) = transpose(dy)
    return dw.astype(numerics.dtype)


def im2col(x: Images, w: Kernel, geometry: Geometry, numerics: Numerics) -> Outputs:
    """Returns the convolution as one product of copied windows with the kernel."""
    # XLA's products on a GPU take the copying into themselves; jaxlib 0.10.2 then finds no tiles for a map
    # of 5 x 5 pixels. No public issue known. Nor does it, on an A100, for a map whose windows it can't read
    # as rows, where their lengths are no multiple of 8; rows of other lengths cost copies.
    height, width, _, features = w.shape
    patches = _patches(x, (height, width), geometry)
    *pixels, length = patches.shape
    if target.backend() != "cpu" and length % TILE:
        patches = patches.reshape(-1, length)
    written = product_dtype(x.dtype, numerics.dtype)
    y = _dot(kept(patches), w.reshape(-1, features), 1, numerics, written).astype(numerics.dtype)
    return y.reshape(*pixels, features)


def im2col_weight_gradient(
    x: Images, dy: Outputs, widths: tuple[int, int], geometry: Geometry, numerics: Numerics
) -> Kernel:
    """Returns the kernel's gradient as one product of copied windows with the output's gradient."""
    # As in `im2col`.
    patches = kept(_patches(x, widths, geometry))
    dw = _dot_over_pixels(patches, dy, numerics, product_dtype(x.dtype, numerics.dtype))
    return dw.reshape(*widths, x.shape[-1], dy.shape[-1]).astype(numerics.dtype)


def wide(x: Images, w: Kernel, geometry: Geometry, numerics: Numerics) -> Outputs:
    """Returns the convolution as the shifted sum of one product of row windows with all kernel rows."""
    height, width, channels, features = w.shape
    out_height = geometry.output_sizes(x.shape[1:3], (height, width))[0]
    rows = _row_patches(_padded(x, geometry), width, geometry)
    side_by_side = w.transpose(1, 2, 0, 3).reshape(width * channels, height * features)
    side_by_side = kept(side_by_side)  # as in `col2im`
    products = _dot(rows, side_by_side, 1, numerics)
    parts = (
        _window(products[..., i * features : (i + 1) * features], 1, i, out_height, geometry)
        for i in range(height)
    )
    return functools.reduce(jnp.add, parts).astype(numerics.dtype)


def wide_weight_gradient(
    x: Images, dy: Outputs, widths: tuple[int, int], geometry: Geometry, numerics: Numerics
) -> Kernel:
    """Returns the kernel's gradient as one product of row windows with shifted output gradients."""
    height, width = widths
    channels, features = x.shape[-1], dy.shape[-1]
    rows = _row_patches(_padded(x, geometry), width, geometry)
    shifted = jnp.concatenate([_unwindow(dy, i, rows.shape[1], geometry) for i in range(height)], -1)
    dw = _dot_over_pixels(rows, shifted, numerics).reshape(width, channels, height, features)
    return dw.transpose(2, 0, 1, 3).astype(numerics.dtype)


def taps(x: Images, w: Kernel, geometry: Geometry, numerics: Numerics) -> Outputs:
    """Returns the convolution as one product for each tap of the kernel, added where the tap takes it."""
    height, width, _, features = w.shape
    return _sum_over_taps(x, (height, width), features, lambda i, j: w[i, j], geometry, numerics)


def taps_input_gradient(dy: Outputs, w: Kernel, geometry: Geometry, numerics: Numerics) -> Images:
    """Returns the input's gradient as one product for each tap; `geometry` is the transposed one."""
    height, width, channels, _ = w.shape
    return _sum_over_taps(
        dy, (height, width), channels, lambda i, j: w[height - 1 - i, width - 1 - j].T, geometry, numerics
    )


def col2im(dy: Outputs, w: Kernel, geometry: Geometry, numerics: Numerics) -> Images:
    """Returns the input's gradient from one product with the kernel; `geometry` is the transposed one.

    On a GPU each tap's share is a bfloat16 where `dy` is: rounded once, before they are added in float32.
    """
    height, width, channels, features = w.shape
    side_by_side = w.transpose(3, 0, 1, 2).reshape(features, -1)
    if channels % TILE:
        # XLA's products on a GPU take the reshaping into themselves; jaxlib 0.10.2 then finds no tiles of
        # whole channels where the kernel is one pixel wide. No public issue known.
        side_by_side = kept(side_by_side)
    shares = _dot(dy, side_by_side, 1, numerics, product_dtype(dy.dtype, numerics.dtype))
    outputs = geometry.output_sizes(dy.shape[1:3], (height, width))
    added = jnp.zeros((), accumulation_dtype(dy.dtype))
    for i, j in itertools.product(range(height), range(width)):
        start = (i * width + j) * channels
        share = shares[..., start : start + channels].astype(added.dtype)
        places = [
            _places(geometry, axis, tap, dy.shape[1 + axis], outputs[axis], w.shape[axis])
            for axis, tap in ((0, i), (1, j))
        ]
        added = added + lax.pad(share, jnp.zeros((), share.dtype), [(0, 0, 0), *places, (0, 0, 0)])
    return added.astype(numerics.dtype)


def _places(
    geometry: Geometry, axis: int, tap: int, size: int, outputs: int, width: int
) -> tuple[int, int, int]:
    """Returns how `lax.pad` puts a tap's share of `size` pixels among `outputs` pixels along an axis."""
    step, spread = geometry.input_dilation[axis], geometry.kernel_dilation[axis]
    start = geometry.padding[axis][0] - (width - 1 - tap) * spread
    return start, outputs - start - (size - 1) * step - 1, step - 1


def taps_weight_gradient(
    x: Images, dy: Outputs, widths: tuple[int, int], geometry: Geometry, numerics: Numerics
) -> Kernel:
    """Returns the kernel's gradient as one product for each tap."""
    none = jnp.zeros((x.shape[-1], dy.shape[-1]), accumulation_dtype(x.dtype))
    products = {
        (rows.tap, columns.tap): _dot_over_pixels(
            x[:, rows.pixels, columns.pixels], dy[:, rows.outputs, columns.outputs], numerics
        )
        for rows, columns in _meetings(x, widths, geometry)
    }
    every = [products.get((i, j), none) for i in range(widths[0]) for j in range(widths[1])]
    return jnp.stack(every).reshape(*widths, *none.shape).astype(numerics.dtype)


def blocked(kernel: Callable, copies: Callable) -> Callable:
    """Returns `kernel`, a convolution, for few images at a time; `copies` counts its values per image."""

    def scanned(x: Images, w: Kernel, geometry: Geometry, numerics: Numerics) -> Outputs:
        block = _block_size(x, copies(x.shape, w.shape[:2], w.shape[-1], geometry))
        images = x.reshape(-1, block, *x.shape[1:])
        y = lax.map(lambda few: kernel(few, w, geometry, numerics), images)
        return y.reshape(-1, *y.shape[2:])

    return scanned


def blocked_weight_gradient(kernel: Callable, copies: Callable) -> Callable:
    """Returns `kernel`, a weight gradient, summed over few images at a time."""

    def scanned(
        x: Images, dy: Outputs, widths: tuple[int, int], geometry: Geometry, numerics: Numerics
    ) -> Kernel:
        block = _block_size(x, copies(x.shape, widths, dy.shape[-1], geometry))
        wide_numerics = Numerics(accumulation_dtype(x.dtype), numerics.precision)

        def add(total, few):
            return total + kernel(*few, widths, geometry, wide_numerics), None

        few = tuple(a.reshape(-1, block, *a.shape[1:]) for a in (x, dy))
        zeros = jnp.zeros((*widths, x.shape[-1], dy.shape[-1]), wide_numerics.dtype)
        return lax.scan(add, zeros, few)[0].astype(numerics.dtype)

    return scanned


def _output_copies(shape, widths, features, geometry) -> int:
    return math.prod(geometry.output_sizes(shape[1:3], widths)) * features


def _im2col_copies(shape, widths, features, geometry) -> int:
    return math.prod(geometry.output_sizes(shape[1:3], widths)) * (math.prod(widths) * shape[-1] + features)


def _wide_copies(shape, widths, features, geometry) -> int:
    out_width = geometry.output_sizes(shape[1:3], widths)[1]
    return shape[1] * out_width * (widths[1] * shape[-1] + widths[0] * features)


def _of_flipped(kernel: Callable) -> Callable:
    """Returns `kernel`, a convolution, as an input gradient: the transposed windows, the flipped kernel."""

    def input_gradient(dy: Outputs, w: Kernel, geometry: Geometry, numerics: Numerics) -> Images:
        return kernel(dy, flipped(w), geometry, numerics)

    return input_gradient


FORWARD: dict[str, Callable] = {
    "native": native,
    "native_scan": blocked(native, _output_copies),
    "im2col": im2col,
    "im2col_scan": blocked(im2col, _im2col_copies),
    "wide": wide,
    "wide_scan": blocked(wide, _wide_copies),
    "taps": taps,
}
INPUT_GRADIENT: dict[str, Callable] = {
    **{name: _of_flipped(kernel) for name, kernel in FORWARD.items()},
    "taps": taps_input_gradient,
    "col2im": col2im,
}
WEIGHT_GRADIENT: dict[str, Callable] = {
    "native": native_weight_gradient,
    "im2col": im2col_weight_gradient,
    "im2col_scan": blocked_weight_gradient(im2col_weight_gradient, _im2col_copies),
    "wide": wide_weight_gradient,
    "wide_scan": blocked_weight_gradient(wide_weight_gradient, _wide_copies),
    "taps": taps_weight_gradient,
}


def _meetings(x: Images, widths: tuple[int, int], geometry: Geometry) -> Iterator[tuple[Meeting, Meeting]]:
    rows, columns = (geometry.meetings(axis, x.shape[1 + axis], widths[axis]) for axis in (0, 1))
    return itertools.product(rows, columns)


def _sum_over_taps(
    x: Images, widths: tuple[int, int], features: int, tap: Callable, geometry: Geometry, numerics: Numerics
) -> Outputs:
    shape = (x.shape[0], *geometry.output_sizes(x.shape[1:3], widths), features)
    y = jnp.zeros(shape, accumulation_dtype(x.dtype))
    for rows, columns in _meetings(x, widths, geometry):
        product = _dot(x[:, rows.pixels, columns.pixels], tap(rows.tap, columns.tap), 1, numerics)
        y = y.at[:, rows.outputs, columns.outputs].add(product)
    return y.astype(numerics.dtype)


def _block_size(x: Images, copies: int) -> int:
    most = max(1, BLOCK_BYTES // (copies * x.dtype.itemsize))
    return max(n for n in range(1, min(most, x.shape[0]) + 1) if x.shape[0] % n == 0)


def _padded(x: Images, geometry: Geometry) -> Float[Array, "batch padded_height padded_width channels"]:
    spatial = zip(geometry.padding, geometry.input_dilation, strict=True)
    config = [(0, 0, 0), *((before, after, gap - 1) for (before, after), gap in spatial), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _window(x: Array, axis: int, tap: int, count: int, geometry: Geometry) -> Array:
    """Returns what tap `tap` of the kernel sees along `axis` in each of `count` windows."""
    start, stride = tap * geometry.kernel_dilation[axis - 1], geometry.strides[axis - 1]
    return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def _unwindow(
    dy: Outputs, tap: int, rows: int, geometry: Geometry
) -> Float[Array, "batch {rows} out_width features"]:
    """Returns `dy` with each row moved to the input row that kernel row `tap` sees; zeros elsewhere."""
    start, stride = tap * geometry.kernel_dilation[0], geometry.strides[0]
    after = rows - start - (dy.shape[1] - 1) * stride - 1
    config = [(0, 0, 0), (start, after, stride - 1), (0, 0, 0), (0, 0, 0)]
    return lax.pad(dy, jnp.zeros((), dy.dtype), config)


def _row_patches(
    padded: Images, width: int, geometry: Geometry
) -> Float[Array, "batch height out_width {width}*channels"]:
    reach = (width - 1) * geometry.kernel_dilation[1]
    count = (padded.shape[2] - reach - 1) // geometry.strides[1] + 1
    return jnp.concatenate([_window(padded, 2, j, count, geometry) for j in range(width)], -1)


def _patches(
    x: Images, widths: tuple[int, int], geometry: Geometry
) -> Float[Array, "batch out_height out_width window"]:
    count = geometry.output_sizes(x.shape[1:3], widths)[0]
    rows = _row_patches(_padded(x, geometry), widths[1], geometry)
    return jnp.concatenate([_window(rows, 1, i, count, geometry) for i in range(widths[0])], -1)


def _dot(a: Array, b: Array, contracted: int, numerics: Numerics, dtype: jnp.dtype | None = None) -> Array:
    written = dtype or accumulation_dtype(a.dtype)
    return jnp.tensordot(a, b, contracted, precision=numerics.precision, preferred_element_type=written)


def _dot_over_pixels(
    a: Float[Array, "batch height width m"],
    b: Float[Array, "batch height width n"],
    numerics: Numerics,
    dtype: jnp.dtype | None = None,
) -> Float[Array, "m n"]:
    a, b = (v.reshape(-1, v.shape[-1]) for v in (a, b))
    written = dtype or accumulation_dtype(a.dtype)
    return lax.dot_general(
        a, b, (((0,), (0,)), ((), ())), precision=numerics.precision, preferred_element_type=written
    )
