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
    dilation: tuple[int, int] = (1, 1)  # of the kernel
    gpu: str = "h200"


def compile_conv(case: Case) -> dict[str, Any]:
    """Returns the kernels of a convolution and its gradients, and the multiplications that they need."""
    import jax
    import jax.numpy as jnp

    from hpjax.compiled import gpus
    from hpjax.compiled.kernels import read_step, summarize
    from hpjax.ops import conv, target
    from hpjax.ops.geometry import create_geometry

    c = case
    geometry = create_geometry(c.sizes, c.widths, c.strides, c.padding, c.dilation)

    def step(x, w, dy):
        apply = lambda x, w: conv(x, w, c.strides, c.padding, None, c.dilation, ("NHWC", "HWIO", "NHWC"))  # noqa: E731
        if c.shared:
            y, vjp = jax.vjp(lambda w: apply(x, w), w)
        else:
            y, vjp = jax.vjp(apply, x, w)
        return y, vjp(dy)

    images = (c.batch, *c.sizes, c.channels)
    outputs = (c.lanes, c.batch, *geometry.output_sizes(c.sizes, c.widths), c.features)
    kernel = (c.lanes, *c.widths, c.channels, c.features)
    shapes = [images if c.shared else (c.lanes, *images), kernel, outputs]
    sheet = gpus.GPUS[c.gpu]
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

    ins, outs = c.channels, c.features
    if c.dtype == "bfloat16" and max(c.widths) == 1:  # one product, whose sides cuBLAS fills up
        ins, outs = -(-ins // 8) * 8, -(-outs // 8) * 8
    rounds, outputs = c.lanes * c.batch * ins * outs, geometry.output_sizes(c.sizes, c.widths)
    forward = prod(out * width for out, width in zip(outputs, c.widths, strict=True))
    # Each pixel of the input meets every `stride`th tap; where that isn't whole, some meet one more.
    back = prod(
        max(out * width, size * width / stride + width) if stride > 1 else max(out, size) * width
        for out, width, size, stride in zip(outputs, c.widths, c.sizes, c.strides, strict=True)
    )
    return 2 * rounds * (2 * forward + (0 if c.shared else back)) / 1e9


def compile_workload(
    model: str, size: int, batch: int, lanes: int, precision: str, program: str = "train", gpu: str = "h200"
):
    """Returns what `benchmarks/gpu_compile.py` says of a standard workload."""
    from systems.gpu_programs import Work, lower_program

    from hpjax.compiled.gpus import GPUS
    from hpjax.compiled.kernels import read_step, summarize

    compiled = lower_program(Work(model, size, batch, lanes, precision), program, GPUS[gpu]).compile()
    kernels = read_step(compiled.as_text())
    windows = [k.window for k in kernels if "conv" in k.call]
    copies = [k.name for k in kernels if k.call == "copy" and k.bytes > 1e6]
    return {**summarize(kernels, GPUS[gpu], lanes), "windows": windows, "copies": copies}


def plan_for(
    network: str, memory_bytes: int = 0, count: int = 0, seeds: int = 1
) -> tuple[list[tuple[int, int, bool, int]], str]:
    """Returns lanes, memory, whether it is enough, and bytes moved of a GPU with so much; and the table."""
    import dataclasses
    from unittest import mock

    from hpjax.compiled.gpus import GPUS
    from hpjax.config import parse_config
    from hpjax.sweep import plan_sweep_for

    sheet = GPUS["h200"]
    of_size = dataclasses.replace(sheet, memory_bytes=memory_bytes or sheet.memory_bytes)
    images = {"image_size": 16, "max_train_examples": 60, "max_test_examples": 30}
    given = {
        "model": {"name": f"{network}:Net"},
        "data": {"name": "synthetic_scenes", **images},
        "train": {"batch_size": 12, "epochs": 1},
        "lanes": {"count": count},
        "sweep": {"space": {"learning_rate": tuple(1e-3 * n for n in range(1, 10))}, "seeds": seeds},
    }
    with mock.patch.dict(GPUS, h200=of_size):  # XLA compiles for the memory that there is
        plan = plan_sweep_for(parse_config(given), "h200")
    (needs,) = plan.groups.values()
    return [(each.lanes, each.memory_bytes, each.fits, each.moved_bytes) for each in needs], str(plan)


def compile_for_several(count: int) -> tuple[str, list[int]]:
    """Returns steps of two lanes on each of so many GPUs, and the kernels of one GPU and of these."""
    import functools

    import jax
    import numpy as np
    from systems.gpu_programs import Work, create_program, training

    from hpjax.compiled import gpus
    from hpjax.compiled.kernels import read_step
    from hpjax.lanes.mesh import Mesh
    from hpjax.ops import target

    def place(sharding, tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    sheet = gpus.GPUS["h100"]
    devices, texts = gpus.create_devices(sheet, count), []
    with target.compiling_for(sheet.target):
        for mesh in (Mesh(devices[:1]), Mesh(devices)):
            work = Work("custom_cnn", 48, 10, 2 * mesh.size, "float32")
            lanes, everywhere = (functools.partial(place, x) for x in (mesh.lanes, mesh.everywhere))
            arguments = training(work)
            rows = everywhere((jax.ShapeDtypeStruct((), np.int32),) * 2)
            program = create_program(work).on(mesh)
            lowered = program.train_many.lower(*lanes(arguments[:3]), *everywhere(arguments[3:]), *rows)
            texts.append(lowered.compile().as_text())
    return texts[1], [len(read_step(text)) for text in texts]
