"""The layers of both networks, and the arithmetic and traffic that a training step can't do without."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hpjax.ops.geometry import Geometry
from systems.workload import CLASSES


@dataclass(frozen=True)
class Layer:
    """A convolution of a model: square images, a square kernel."""

    name: str
    size: int
    channels: int
    features: int
    width: int
    stride: int
    padding: int
    count: int = 1  # how many of it the network has

    @property
    def geometry(self) -> Geometry:
        """The layer's windows."""
        pads = (self.padding, self.padding)
        return Geometry((self.stride, self.stride), (pads, pads))

    @property
    def out_size(self) -> int:
        """Side of the output."""
        return self.geometry.output_sizes((self.size,) * 2, (self.width,) * 2)[0]

    @property
    def multiplies(self) -> int:
        """Multiply-adds of the forward pass of one image, of all `count` of them."""
        return self.count * self.out_size**2 * self.width**2 * self.channels * self.features


def custom_cnn_layers(size: int) -> Iterator[Layer]:
    """Yields the three convolutions, each followed by a halving pool."""
    shapes = [(3, 10, 5, 1), (10, 20, 5, 1), (20, 10, 7, 0)]
    for number, (channels, features, width, padding) in enumerate(shapes, 1):
        layer = Layer(f"conv{number}", size, channels, features, width, 1, padding)
        yield layer
        size = layer.out_size // 2


def resnet18_layers(size: int) -> Iterator[Layer]:
    """Yields ResNet18's convolutions of different shapes."""
    stem = Layer("conv1", size, 3, 64, 7, 2, 3)
    yield stem
    size = (stem.out_size + 1) // 2
    yield Layer("layer1", size, 64, 64, 3, 1, 1, count=4)
    for number, features in enumerate((128, 256, 512), 2):
        down = Layer(f"layer{number}.first", size, features // 2, features, 3, 2, 1)
        yield down
        yield Layer(f"layer{number}.downsample", size, features // 2, features, 1, 2, 0)
        size = down.out_size
        yield Layer(f"layer{number}", size, features, features, 3, 1, 1, count=3)


MODELS = {"custom_cnn": custom_cnn_layers, "resnet18": resnet18_layers}


def dense_weights(model: str, size: int) -> int:
    """Returns how many weights the dense layers have; as many multiply-adds an image."""
    if model == "resnet18":
        return 512 * CLASSES
    last = list(custom_cnn_layers(size))[-1]
    return (last.out_size // 2) ** 2 * last.features * 1024 + 1024 * 512 + 512 * CLASSES


def forward_multiplies(model: str, size: int) -> int:
    """Returns the multiply-adds of the forward pass of one image."""
    return sum(layer.multiplies for layer in MODELS[model](size)) + dense_weights(model, size)


def training_flops(model: str, size: int) -> int:
    """Returns the floating-point operations of training on one image, a multiply-add counted as two.

    Each layer is computed forward and for two gradients; the first has no input gradient.
    """
    first = next(MODELS[model](size))
    return 2 * (3 * forward_multiplies(model, size) - first.multiplies)


def training_bytes(model: str, size: int, batch_size: int, precision: str) -> int:
    """Returns the memory traffic of one trial's step if everything that can be one pass is one.

    A convolution's output is written, and read by the normalisation and by its gradient; what follows from it
    (after the ReLU, and the pool where there is one) is written, and read by the next layer and by its weight
    gradient. Of the output's gradient there is one writing and two readings, of the other's one of each. Adam
    reads and writes weights and two moments; the gradients are written and read.
    """
    width = 2 if precision == "bfloat16" else 4
    layers = list(MODELS[model](size))
    outputs = sum(v.count * v.out_size**2 * v.features for v in layers)
    inputs = sum(v.count * v.size**2 * v.channels for v in layers if v.channels != 3)
    weights = sum(v.count * v.width**2 * v.channels * v.features for v in layers) + dense_weights(model, size)
    return batch_size * width * (6 * outputs + 5 * inputs) + 8 * 4 * weights


def steps_floor(model: str, size: int, batch_size: int, precision: str, rates: tuple[float, float]) -> float:
    """Returns the least seconds of one trial's step on a device of `rates` FLOP/s and bytes/s."""
    flops, bandwidth = rates
    arithmetic = batch_size * training_flops(model, size) / flops
    return max(arithmetic, training_bytes(model, size, batch_size, precision) / bandwidth, math.ulp(0))
