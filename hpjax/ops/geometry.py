"""Where a 2-D convolution's windows lie: strides, padding and dilations, apart from any array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jax import lax

Pair = tuple[int, int]


class Meeting(NamedTuple):
    """Outputs and the pixels that one tap of the kernel takes to them, along one axis; both evenly spaced."""

    tap: int
    outputs: slice
    pixels: slice


@dataclass(frozen=True)
class Geometry:
    """Windows of an NHWC convolution, per spatial axis (height, width)."""

    strides: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))  # pixels before and after; negative crops
    input_dilation: Pair = (1, 1)
    kernel_dilation: Pair = (1, 1)

    def output_sizes(self, sizes: Sequence[int], widths: Sequence[int]) -> Pair:
        """Returns the output's height and width for an input of `sizes` and a kernel of `widths`."""
        height, width = (self._output_size(axis, sizes[axis], widths[axis]) for axis in (0, 1))
        return height, width

    def transposed(self, sizes: Sequence[int], widths: Sequence[int]) -> "Geometry":
        """Returns the windows which, with the flipped kernel, take output gradients to input gradients.

        Args:
          sizes: height and width of the input whose gradient is wanted.
          widths: height and width of the kernel.
        """
        assert self.input_dilation == (1, 1)
        outputs = self.output_sizes(sizes, widths)
        pads = []
        for axis in (0, 1):
            before = self.padding[axis][0]
            reach = (widths[axis] - 1) * self.kernel_dilation[axis]
            after = sizes[axis] + before - (outputs[axis] - 1) * self.strides[axis] - 1
            pads.append((reach - before, after))
        return Geometry((1, 1), (pads[0], pads[1]), self.strides, self.kernel_dilation)

    def meetings(self, axis: int, size: int, width: int) -> list[Meeting]:
        """Returns, for each tap along `axis`, where it meets pixels; not those that only meet padding.

        Args:
          axis: 0 for rows, 1 for columns.
          size: the input's size along it.
          width: the kernel's.
        """
        found = []
        for tap in range(width):
            offset = tap * self.kernel_dilation[axis] - self.padding[axis][0]
            places = (o * self.strides[axis] + offset for o in range(self._output_size(axis, size, width)))
            pixels = [divmod(place, self.input_dilation[axis]) for place in places]
            met = [(o, p) for o, (p, between) in enumerate(pixels) if not between and 0 <= p < size]
            if met:
                outputs, inputs = (_evenly(values) for values in zip(*met, strict=True))
                found.append(Meeting(tap, outputs, inputs))
        return found

    def meeting_share(self, axis: int, size: int, width: int) -> float:
        """Returns the share of all pairs of an output and a tap along `axis` that meet a pixel."""
        met = self.meetings(axis, size, width)
        pairs = sum(len(range(m.outputs.start, m.outputs.stop, m.outputs.step)) for m in met)
        return pairs / (width * self._output_size(axis, size, width))

    def _output_size(self, axis: int, size: int, width: int) -> int:
        dilated = (size - 1) * self.input_dilation[axis] + 1
        reach = (width - 1) * self.kernel_dilation[axis]
        return (dilated + sum(self.padding[axis]) - reach - 1) // self.strides[axis] + 1


def _evenly(values: Sequence[int]) -> slice:
    return slice(values[0], values[-1] + 1, values[1] - values[0] if len(values) > 1 else 1)


def create_geometry(
    sizes: Sequence[int],
    widths: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    kernel_dilation: Sequence[int] | None,
) -> Geometry:
    """Returns the geometry of `lax.conv_general_dilated`'s arguments, with padding in pixels."""
    dilation = tuple(int(d) for d in kernel_dilation or (1, 1))
    if isinstance(padding, str):
        reaches = [(w - 1) * d + 1 for w, d in zip(widths, dilation, strict=True)]
        padding = lax.padtype_to_pads(sizes, reaches, strides, padding)
    pads = tuple((int(before), int(after)) for before, after in padding)
    height, width = (int(s) for s in strides)
    return Geometry((height, width), (pads[0], pads[1]), (1, 1), (dilation[0], dilation[1]))
