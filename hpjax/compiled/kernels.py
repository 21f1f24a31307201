"""What a compiled program runs on a GPU: kernels, their arithmetic, and the bytes that they move."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hpjax.compiled.hlo import Computation, Instruction, Module, parse

# They run nothing, or what they run is counted elsewhere.
_FREE = set(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "partition-id",
        "replica-id",
        "add-dependency",
        "opt-barrier",
        "async-done",
        "copy-done",
        "domain",
    ]
)
_CALLS = {"call", "while", "conditional", "async-start"}
_MOVES = set(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "copy",
        "transpose",
        "reshape",
        "slice",
        "dynamic-slice",
        "dynamic-update-slice",
        "concatenate",
        "pad",
        "broadcast",
        "copy-start",
        "iota",
        "reverse",
    ]
)
_PARTS = {"slice", "dynamic-slice", "gather"}
SHARE_OF_BANDWIDTH = 0.9  # that a copy reaches
SHARE_OF_FLOPS = 0.8  # that a large product reaches
LAUNCH = 3e-6  # seconds that a kernel takes at least, to start and to end


class Kernel(NamedTuple):
    """One launch."""

    name: str
    call: str  # the custom call's target, or the opcode
    bytes: int  # read and written
    flops: int  # of products and convolutions
    dtype: str  # of what is multiplied
    moves: bool  # whether it computes nothing
    groups: int
    window: tuple[int, ...]
    times: int  # that a step runs it


def read_step(text: str) -> list[Kernel]:
    """Returns what one round of a program's outermost loop runs; the whole program where it has none."""
    module = parse(text)
    loops = [i for i in _walk(module, module.entry) if i.opcode == "while" and i.trips is None]
    inner = module.computations[loops[0].attribute("body").lstrip("%")] if loops else module.entry
    return list(_kernels(module, inner, 1))


def summarize(kernels: Sequence[Kernel], gpu: Any, lanes: int) -> dict[str, Any]:
    """Returns counts, arithmetic, bytes and the roofline of a step."""
    calls: dict[str, dict[str, int]] = {}
    for k in kernels:
        if k.call.startswith("__"):
            name = f"{k.call} groups={k.groups} window={'x'.join(map(str, k.window))}"
            row = calls.setdefault(k.call, {"calls": 0})
            row["calls"] += k.times
            row[name] = row.get(name, 0) + k.times
    seconds = [(_seconds(k, gpu), k.times) for k in kernels]
    return {
        "kernels": sum(k.times for k in kernels),
        "gflop": sum(k.flops * k.times for k in kernels) / 1e9,
        "gb": sum(k.bytes * k.times for k in kernels) / 1e9,
        "gb_moved_only": sum(k.bytes * k.times for k in kernels if k.moves) / 1e9,
        "lane_step_us": 1e6 * sum(s * times for s, times in seconds) / lanes,
        "lane_step_us_with_launches": 1e6 * sum(max(s, LAUNCH) * times for s, times in seconds) / lanes,
        "calls": {target: dict(sorted(rows.items())) for target, rows in sorted(calls.items())},
    }


def _seconds(kernel: Kernel, gpu: Any) -> float:
    flops = SHARE_OF_FLOPS * gpu.flops(kernel.dtype)
    return max(kernel.bytes / (SHARE_OF_BANDWIDTH * gpu.bytes_per_second), kernel.flops / flops)


def _walk(module: Module, computation: Computation) -> Iterator[Instruction]:
    for instruction in computation.instructions:
        yield instruction
        if instruction.opcode in _CALLS:
            for name in instruction.called:
                yield from _walk(module, module.computations[name])


def _kernels(module: Module, computation: Computation, times: int) -> Iterator[Kernel]:
    for i in computation.instructions:
        if i.opcode in _CALLS:
            for name in i.called:
                yield from _kernels(module, module.computations[name], times * (i.trips or 1))
        elif i.opcode not in _FREE:
            yield _kernel(module, computation, i, times)


def _kernel(module: Module, computation: Computation, i: Instruction, times: int) -> Kernel:
    fused = module.computations[i.called[0]] if i.opcode == "fusion" else None
    multiplied = list(_products(module, fused) if fused else _own_product(computation, i))
    call = i.attribute("custom_call_target") or i.opcode
    if fused and "cudnn" in str(i.config.get("fusion_backend_config", {}).get("kind", "")):
        call = "__cudnn$fusion"
    window = tuple(int(n) for n in _window_sizes(i.attribute("window")))
    return Kernel(
        i.name,
        call,
        _fusion_bytes(computation, i, fused) if fused else _bytes(computation, i),
        sum(flops for flops, _ in multiplied),
        multiplied[0][1] if multiplied else "",
        all(o.opcode in _MOVES for o in (fused.instructions if fused else [i])),
        max([1, *i.numbers("feature_group_count"), *i.numbers("batch_group_count")]),
        window,
        times,
    )


def _bytes(computation: Computation, i: Instruction) -> int:
    if i.opcode in _PARTS:
        return 2 * i.bytes
    if i.opcode == "dynamic-update-slice":
        return 2 * computation.by_name[i.operands[1]].bytes
    operands = dict.fromkeys(i.operands)
    written = i.shapes[0].bytes if i.opcode == "copy-start" else i.bytes
    return written + sum(computation.by_name[o].bytes for o in operands)


def _fusion_bytes(computation: Computation, i: Instruction, fused: Computation) -> int:
    """Returns what a fusion reads and writes: of what it takes parts of, the parts alone."""
    parameters = {p.numbers_of_parameter: p for p in map(_Parameter, fused.instructions) if p.is_one}
    read: dict[str, int] = {}
    for number, operand in enumerate(i.operands):
        needed = min(_read(fused, parameters[number].name), computation.by_name[operand].bytes)
        read[operand] = max(read.get(operand, 0), needed)
    root = fused.root
    outputs = [fused.by_name[o] for o in root.operands] if root.opcode == "tuple" else [root]
    return sum(read.values()) + sum(_written(fused, o) for o in outputs)


class _Parameter:
    def __init__(self, instruction: Instruction):
        self.is_one = instruction.opcode == "parameter"
        self.name = instruction.name
        self.numbers_of_parameter = int(instruction.text.split("(")[1].split(")")[0]) if self.is_one else -1


def _read(fused: Computation, name: str) -> int:
    """Returns the bytes of a value that a fusion needs."""
    whole, total = fused.by_name[name].bytes, 0
    for user in fused.users[name]:
        if user.opcode == "bitcast":
            total += _read(fused, user.name)
        elif user.opcode in _PARTS and user.operands[0] == name:
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue  # it stays where it is
        else:
            return whole
    return min(whole, total)


def _written(fused: Computation, output: Instruction) -> int:
    while output.opcode == "bitcast":
        output = fused.by_name[output.operands[0]]
    if output.opcode == "dynamic-update-slice":
        return fused.by_name[output.operands[1]].bytes
    # What is handed on unchanged isn't written.
    return output.bytes


def _products(module: Module, fused: Computation) -> Iterator[tuple[int, str]]:
    for i in fused.instructions:
        if i.opcode == "fusion":
            yield from _products(module, module.computations[i.called[0]])
        else:
            yield from _own_product(fused, i)


def _own_product(computation: Computation, i: Instruction) -> Iterator[tuple[int, str]]:
    target = i.attribute("custom_call_target")
    if i.opcode == "dot":
        contracted = i.numbers("lhs_contracting_dims")
        yield _dot_flops(computation, i, contracted), computation.shape(i.operands[0]).dtype
    elif i.opcode == "convolution" or "cudnn$conv" in target:
        yield _conv_flops(computation, i, target), computation.shape(i.operands[0]).dtype
    elif target.startswith("__cublas"):
        numbers = _find(i.config, "dot_dimension_numbers") or {}
        contracted = [int(n) for n in numbers.get("lhs_contracting_dimensions", [])]
        yield _dot_flops(computation, i, contracted), computation.shape(i.operands[0]).dtype


def _dot_flops(computation: Computation, i: Instruction, contracted: Sequence[int]) -> int:
    lhs = computation.shape(i.operands[0]).sizes
    return 2 * i.shapes[0].elements * math.prod(lhs[n] for n in contracted)


def _conv_flops(computation: Computation, i: Instruction, target: str) -> int:
    """Returns two operations for each product of a tap with a pixel, padding and zeros between pixels too."""
    labels, _, result = i.attribute("dim_labels").partition("->")
    lhs, _, rhs = labels.partition("_")
    first, second = (computation.shape(o) for o in i.operands[:2])
    if "BackwardFilter" in target:  # images, output gradients; the result is the kernel
        pixels = math.prod(s for label, s in zip(result, second.sizes, strict=True) if label != "f")
        return 2 * i.shapes[0].elements * pixels
    taps = math.prod(s for label, s in zip(rhs, second.sizes, strict=True) if label != "o")
    if "BackwardInput" in target:  # output gradients, kernel
        return 2 * first.elements * taps
    return 2 * i.shapes[0].elements * taps


def _window_sizes(window: str) -> list[str]:
    found = [part for part in window.strip("{}").split(" ") if part.startswith("size=")]
    return found[0][5:].split("x") if found else []


def _find(config: Any, key: str) -> Any:
    if isinstance(config, dict):
        if key in config:
            return config[key]
        return functools.reduce(lambda found, value: found or _find(value, key), config.values(), None)
    return None
