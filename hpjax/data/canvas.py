"""A stack of pictures that are painted at once, and the textures to paint with."""

import functools

import numpy as np
from jaxtyping import Float

Array = np.ndarray


class Canvas:
    """`count` square pictures of `size` pixels; coordinates run from 0 (left, top) to 1.

    Attributes:
      x: columns, `[1, 1, size]`.
      y: rows, `[1, size, 1]`.
      rgb: what is painted so far, `[3, count, size, size]`.
    """

    def __init__(self, rng: np.random.Generator, count: int, size: int):
        self.rng, self.count, self.size = rng, count, size
        line = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = line[None, None, :], line[None, :, None]
        self.rgb = np.zeros((3, count, size, size), np.float32)

    def paint(self, mask: Array, colour: Array, shade: Array | float = 1.0) -> None:
        """Covers where `mask` is 1 with `colour` (`[3, count, 1, 1]`) times `shade`."""
        for channel, value in zip(self.rgb, colour, strict=True):
            channel += mask * (value * shade - channel)

    def edge(self, distance: Array) -> Array:
        """Returns 1 where `distance` is positive and 0 where it is negative, smooth over a pixel."""
        return np.clip(distance * self.size + 0.5, 0, 1)

    def box(self, x: Array, y: Array, width: Array, height: Array) -> Array:
        """Returns the mask of upright rectangles around (x, y)."""
        return self.edge(width / 2 - np.abs(self.x - x)) * self.edge(height / 2 - np.abs(self.y - y))

    def uniform(self, low: float, high: float) -> Float[Array, "count 1 1"]:
        """Returns a number per picture."""
        return self.rng.uniform(low, high, (self.count, 1, 1)).astype(np.float32)

    def chance(self, probability: float) -> Float[Array, "count 1 1"]:
        """Returns 1 for a share of the pictures, else 0."""
        return (self.uniform(0, 1) < probability).astype(np.float32)

    def colour(self, palette: Array) -> Float[Array, "3 count 1 1"]:
        """Returns a colour per picture: a mix of two of the palette's, jittered."""
        first, second = palette[self.rng.integers(len(palette), size=(2, self.count))]
        share = self.rng.uniform(0, 1, (self.count, 1))
        mixed = first * share + second * (1 - share) + self.rng.normal(0, 0.04, (self.count, 3))
        return np.clip(mixed, 0, 1).T[..., None, None].astype(np.float32)

    def noise(self, rows: int, columns: int) -> Float[Array, "count size size"]:
        """Returns smooth noise in [0, 1] with so many cells down and across."""
        grid = self.rng.random((self.count, rows + 1, columns + 1), np.float32)
        return _interpolation(rows, self.size) @ grid @ _interpolation(columns, self.size).T

    def fractal(self, cells: int, octaves: int = 3, stretch: int = 1) -> Float[Array, "count size size"]:
        """Returns noise in [0, 1] of several scales, `stretch` times as long as high."""
        total = self.noise(cells * stretch, cells)
        for i in range(1, octaves):
            total += self.noise(cells * stretch << i, cells << i) * 0.5**i
        return total / _total_weight(octaves)

    def profile(self, cells: int, octaves: int = 4) -> Float[Array, "count 1 size"]:
        """Returns a jagged line over x in [0, 1]."""
        line = np.zeros((self.count, self.size), np.float32)
        for i in range(octaves):
            heights = self.rng.random((self.count, (cells << i) + 1), np.float32)
            line += 0.5**i * heights @ _linear(cells << i, self.size).T
        return line[:, None, :] / _total_weight(octaves)


def wave(phase: Array, share: float | Array) -> Array:
    """Returns 1 for the first `share` of each whole period of `phase`, else 0."""
    return ((phase - np.floor(phase)) < share).astype(np.float32)


def _total_weight(octaves: int) -> float:
    return 2 - 0.5 ** (octaves - 1)


@functools.lru_cache
def _linear(cells: int, size: int) -> Float[Array, "size points"]:
    position = (np.arange(size, dtype=np.float32) + 0.5) / size * cells
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells + 1, dtype=np.float32)))


@functools.lru_cache
def _interpolation(cells: int, size: int) -> Float[Array, "size points"]:
    weights = _linear(cells, size)
    return weights * weights * (3 - 2 * weights)
