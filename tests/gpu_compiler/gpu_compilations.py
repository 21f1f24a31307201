"""What the process with the plugin does: it returns plain values, and imports jax only there."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A convolution of many lanes, forward and both gradients."""

    lanes: int
    batch: int
    sizes: tuple[int, int]
    widths: tuple[int, int]
    channels: int
    features: int
    strides: tuple[int, int]
    padding: str
    dtype: str
    shared: bool  # whether the lanes share the images


def compile_conv(case: Case, gpu: str = "h200") -> dict[str, Any]:
    """Returns the kernels of a convolution and its gradients, and the multiplications that they need."""
    import jax
    import jax.numpy as jnp
    from systems.kernels import read_step, summarize

    from hpjax.ops import conv, gpus, target
    from hpjax.ops.geometry import create_geometry

    c = case
    geometry = create_geometry(c.sizes, c.widths, c.strides, c.padding, None)

    def step(x, w, dy):
        apply = lambda x, w: conv(x, w, c.strides, c.padding, None, None, ("NHWC", "HWIO", "NHWC"))  # noqa: E731
        if c.shared:
            y, vjp = jax.vjp(lambda w: apply(x, w), w)
        else:
            y, vjp = jax.vjp(apply, x, w)
        return y, vjp(dy)

    images = (c.batch, *c.sizes, c.channels)
    outputs = (c.lanes, c.batch, *geometry.output_sizes(c.sizes, c.widths), c.features)
    kernel = (c.lanes, *c.widths, c.channels, c.features)
    shapes = [images if c.shared else (c.lanes, *images), kernel, outputs]
    sheet = gpus.GPUS[gpu]
    device = gpus.create_device(sheet)
    operands = [gpus.place_shapes(jax.ShapeDtypeStruct(s, jnp.dtype(c.dtype)), device) for s in shapes]
    with target.compiling_for(sheet.target):
        lowered = jax.jit(jax.vmap(step, (None if c.shared else 0, 0, 0))).lower(*operands)
    kernels = read_step(lowered.compile().as_text())
    windows = [k.window for k in kernels if "conv" in k.call]
    own = {"windows": windows, "map": outputs[2:4], "own_gflop": _own_gflop(case, geometry)}
    return {**summarize(kernels, sheet, c.lanes), **own}


def _own_gflop(c: Case, geometry: Any) -> float:
    """Returns the multiplications of three passes; taps of padding count as in XLA's own convolutions."""
    from math import prod

    rounds, outputs = c.lanes * c.batch * c.channels * c.features, geometry.output_sizes(c.sizes, c.widths)
    forward = prod(out * width for out, width in zip(outputs, c.widths, strict=True))
    # Each pixel of the input meets every `stride`th tap; where that isn't whole, some meet one more.
    back = prod(
        max(out * width, size * width / stride + width) if stride > 1 else max(out, size) * width
        for out, width, size, stride in zip(outputs, c.widths, c.sizes, c.strides, strict=True)
    )
    return 2 * rounds * (2 * forward + (0 if c.shared else back)) / 1e9


def compile_workload(model: str, size: int, batch: int, lanes: int, precision: str, program: str = "train"):
    """Returns what `benchmarks/gpu_compile.py` says of a standard workload."""
    from systems.gpu_programs import Work, compile_program
    from systems.kernels import read_step, summarize

    from hpjax.ops.gpus import GPUS

    compiled = compile_program(Work(model, size, batch, lanes, precision), program, GPUS["h200"])
    kernels = read_step(compiled.as_text())
    windows = [k.window for k in kernels if "conv" in k.call]
    return {**summarize(kernels, GPUS["h200"], lanes), "windows": windows}
