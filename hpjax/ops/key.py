"""What the choice of a convolution's lowering depends on."""

import json
from dataclasses import asdict, dataclass

from jax import Array

from hpjax.ops import lowerings, target
from hpjax.ops.geometry import Geometry


@dataclass(frozen=True)
class Key:
    """What a choice depends on; shapes are one lane's."""

    op: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    widths: tuple[int, int]
    own: tuple[bool, bool]
    lanes: int
    dtype: str
    geometry: Geometry

    def __str__(self) -> str:
        """Returns the name under which a choice is remembered."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def is_dilated(self) -> bool:
        """Whether the first operand has zeros between its pixels, as a strided convolution's gradient has."""
        return self.geometry.input_dilation != (1, 1)

    @property
    def channels(self) -> tuple[int, int]:
        """A lane's channels and features."""
        return self.a[-1] if self.op == "weight_gradient" else self.b[-2], self.b[-1]

    @property
    def is_narrow(self) -> bool:
        """Whether there are few channels on both sides, and each row of windows begins where a row does."""
        return max(self.channels) < 64 and self.geometry.strides[0] == 1

    @property
    def rows_met(self) -> float:
        """How many rows `wide` multiplies for each row of the map: the padded image's, all of them."""
        own = self.op == "weight_gradient"
        height, _ = self.b[1:3] if own else self.geometry.output_sizes(self.a[1:3], self.widths)
        return (self.a[1] + sum(self.geometry.padding[0])) / height

    @property
    def is_outgrown(self) -> bool:
        """Whether this is a strided convolution's weight gradient whose map is no larger than the kernel."""
        small = any(size <= width for size, width in zip(self.b[1:3], self.widths, strict=True))
        return self.op == "weight_gradient" and self.geometry.strides != (1, 1) and small

    @property
    def is_spread(self) -> bool:
        """Whether this is the weight gradient of a kernel with zeros between its taps."""
        return self.op == "weight_gradient" and self.geometry.kernel_dilation != (1, 1)

    def candidates(self) -> tuple[str, ...]:
        """Returns the lowerings to choose from; none that is known to let one lane reach another."""
        names = lowerings.lowering_names(self.op, self.lanes, self.own)
        suits = self._suits_cpu if target.backend() == "cpu" else self._suits_gpu
        return tuple(name for name in names if suits(*_split(name)))

    def _suits_cpu(self, strategy: str, kernel: str) -> bool:
        # XLA's CPU backend computes batch groups as every pair of lanes and masks the wrong ones by
        # products: seen with jaxlib 0.10.2; no public issue known.
        leaking = strategy == lowerings.LEAKING or (strategy == "grouped" and self.op == "weight_gradient")
        return not leaking and kernel != "col2im"

    def _suits_gpu(self, strategy: str, kernel: str) -> bool:
        """A handful: compiling one takes a second, and copies of few images at a time suit a CPU's caches."""
        if strategy in ("mapped", lowerings.LEAKING):
            return False
        copying = "col2im" if self.op == "input_gradient" else "im2col"
        if strategy == "batched":  # all lanes' products are one call
            return kernel == copying or (kernel == "wide" and self.is_narrow and self.widths != (1, 1))
        if strategy == "grouped":
            return not self.is_dilated  # it would multiply the zeros between the pixels
        if strategy == "unrolled":
            return kernel == "native"
        return kernel in ("native", copying)


def _split(name: str) -> tuple[str, str]:
    strategy, _, kernel = name.rpartition(":")
    return strategy, kernel


def create_key(
    op: str, a: Array, b: Array, own: tuple[bool, bool], widths: tuple[int, int], geometry: Geometry
) -> Key:
    """Returns the key of `op` on operands with a leading lane axis where `own`."""
    lanes = next((v.shape[0] for v, has in zip((a, b), own, strict=True) if has), 1)
    shapes = [v.shape[1:] if has else v.shape for v, has in zip((a, b), own, strict=True)]
    own = own if lanes > 1 else (False, False)
    return Key(op, tuple(shapes[0]), tuple(shapes[1]), widths, own, lanes, str(a.dtype), geometry)
