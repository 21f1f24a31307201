"""Which lowering computes a convolution: what was measured for this shape and device, or a rule."""

import contextlib
import contextvars
import functools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hpjax.ops import lowerings, measurement, memory, target
from hpjax.ops.key import Key

SHIPPED = pathlib.Path(__file__).with_name("measured.json")
# A map of few rows under a tall kernel: `wide` would multiply several times what is needed.
MOST_ROWS_MET = 2.5


@dataclass
class _Measuring:
    on: bool = False


_MEASURING = _Measuring()
_FORCED: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("forced_lowerings")


def enable(on: bool = True) -> None:
    """Measures convolutions that no table knows, when they are traced, and remembers the fastest."""
    _MEASURING.on = on


@contextlib.contextmanager
def override(names: Mapping[str, str]) -> Iterator[None]:
    """Forces lowerings of what is traced inside the block; what was traced before keeps its own.

    Args:
      names: the lowering for an op, e.g. `{"forward": "unrolled:wide_scan"}`, or for `str(key)` of one
        convolution. One lane takes the kernel alone. Where the lowering can't be had, the usual choice holds.
    """
    token = _FORCED.set({**_FORCED.get({}), **names})
    try:
        yield
    finally:
        _FORCED.reset(token)


def choose(key: Key) -> str:
    """Returns the lowering for `key`: forced, remembered, shipped, measured now if enabled, or by rule."""
    if forced := _forced(key):
        return forced
    known = memory.load().get(str(key)) or shipped(memory.device_name()).get(str(key))
    if known in key.candidates():
        return known
    if _MEASURING.on:
        return tune(key)
    return by_rule(key)


def tune(key: Key, *, repeats: int = 5) -> str:
    """Measures the candidates for `key` on this device, remembers the fastest on disk and returns it."""
    milliseconds = measurement.measure(key, key.candidates(), repeats=repeats)
    if not milliseconds:
        return by_rule(key)
    best = min(milliseconds, key=milliseconds.__getitem__)
    memory.remember(str(key), best, milliseconds)
    return best


def by_rule(key: Key) -> str:
    """Returns the lowering that similar convolutions were found to do well with."""
    return _cpu_rule(key) if target.backend() == "cpu" else _gpu_rule(key)


def _forced(key: Key) -> str | None:
    forced = _FORCED.get({})
    name = forced.get(str(key), forced.get(key.op))
    if name is None or name in lowerings.lowering_names(key.op, key.lanes, key.own):
        return name
    kernel = name.rpartition(":")[2]
    return kernel if key.lanes == 1 else None


@functools.cache
def shipped(device: str) -> dict[str, str]:
    """Returns the lowerings that were measured on a device of this name, by key."""
    return json.loads(SHIPPED.read_text()).get(device, {}) if SHIPPED.exists() else {}


def _cpu_rule(key: Key) -> str:
    kernel = _cpu_kernel(key)
    if key.lanes == 1:
        return kernel
    if key.own == (False, True) and key.op != "input_gradient" and _is_narrow(key) and key.lanes > 2:
        # Images that all lanes share are copied once, and the lanes' features make the product wide.
        return "batched:im2col_scan"
    if key.op != "weight_gradient" and key.own == (True, False):
        return f"merged:{kernel}"
    # XLA's own convolutions become naive loops inside of a loop: measured with jaxlib 0.10.2, and reported
    # as https://github.com/jax-ml/jax/issues/12868.
    return f"unrolled:{kernel}" if kernel == "native" else f"mapped:{kernel}"


def _cpu_kernel(key: Key) -> str:
    if key.op == "weight_gradient" and key.widths == (1, 1):
        return "taps"
    if _is_narrow(key):
        return "native" if key.op == "weight_gradient" and key.a[-1] <= 10 else "wide_scan"
    if _meets_much_padding(key):
        return "taps"
    # XLA swaps kernel and image where the kernel is larger, and then runs a hundred times slower: measured
    # with jaxlib 0.10.2; no public issue known.
    smaller_than_kernel = any(side < width for side, width in zip(key.a[1:3], key.widths, strict=True))
    return "im2col_scan" if smaller_than_kernel and key.op != "weight_gradient" else "native"


def _meets_much_padding(key: Key) -> bool:
    """Returns whether the CPU is faster with one product per tap, over the pixels that it meets.

    So it is with few pixels and much padding; for an input gradient with few pixels alone, as XLA copies
    the flipped kernel first. The limits are where the two met on a Zen 5 with 64 to 512 channels and
    jaxlib 0.10.2; no public issue known.
    """
    sizes = key.a[1:3]
    meeting = [key.geometry.meeting_share(axis, sizes[axis], key.widths[axis]) for axis in (0, 1)]
    share = meeting[0] * meeting[1]
    pixels = math.prod((key.b if key.op == "weight_gradient" else key.a)[:3])
    if key.op == "forward":
        return share < 0.7
    if key.op == "input_gradient":
        return pixels <= 1600 or share < 0.65
    return pixels <= 300 or share < 0.5


def _is_narrow(key: Key) -> bool:
    """Returns whether there are too few channels for XLA's own convolution."""
    return max(key.a[-1], key.b[-1]) < 64 and key.geometry.strides == (1, 1)


def _gpu_rule(key: Key) -> str:
    # XLA takes the map for the kernel of a forward convolution there: seen with jaxlib 0.10.2; no public
    # issue known. Of groups it doesn't, where the kernel isn't spread.
    kernel = "im2col" if key.is_outgrown or key.is_spread else "native"
    if key.lanes == 1:
        return kernel
    if key.own == (False, True):
        return "dense:im2col" if key.op == "forward" else f"dense:{kernel}"
    if key.own == (True, False) and key.op != "weight_gradient":
        return "merged:native"
    if _has_grouped_kernel(key):
        return "grouped:native"
    if key.is_narrow and key.widths != (1, 1) and not key.is_dilated and key.rows_met <= MOST_ROWS_MET:
        return "batched:wide"
    return "batched:col2im" if key.op == "input_gradient" else "batched:im2col"


def _has_grouped_kernel(key: Key) -> bool:
    """Returns whether cuDNN computes all lanes' convolutions at once.

    Others it computes lane by lane, with copies into and out of each, and fills a part of the GPU: copied
    windows and one batched product are then several times as fast. Measured on an H100 in bfloat16, with 8
    lanes, cuDNN 9.19 and jaxlib 0.11.2; no public issue known.
    """
    plain = key.geometry.strides == (1, 1) and key.widths != (1, 1) and not (key.is_dilated or key.is_spread)
    most = 128 if key.op == "weight_gradient" else 256
    return plain and min(key.channels) >= 64 and max(key.channels) <= most
