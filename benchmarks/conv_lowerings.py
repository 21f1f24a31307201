"""Times every lowering of every convolution of a model, layer by layer, and writes the table as JSON.

    python benchmarks/conv_lowerings.py --model=custom_cnn --image_size=150 --batch_size=32 --lanes=1,4,8
    --out=FILE

The first layer's images are shared by all lanes, as in training. The lowerings of one convolution take turns.
"""

import dataclasses
import importlib.metadata
import itertools
import json
import pathlib
import statistics
import sys
from collections.abc import Iterator

import jax
from absl import app, flags

from hpjax.ops import measurement, memory, tuning
from hpjax.ops.geometry import Geometry
from hpjax.ops.lowerings import OPS

MODEL = flags.DEFINE_enum("model", "custom_cnn", ["custom_cnn", "resnet18"], "whose layers")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images per step")
LANES = flags.DEFINE_list("lanes", ["1", "4", "8"], "lane counts")
REPEATS = flags.DEFINE_integer("repeats", 5, "timed calls of each lowering")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "dtype of the operands")
OPERATIONS = flags.DEFINE_list("ops", list(OPS), "which of forward, input_gradient and weight_gradient")
LAYERS = flags.DEFINE_list("layers", [], "names of layers; all where empty")
OUT = flags.DEFINE_string("out", "", "JSON file to write")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of a model: square images, a square kernel."""

    name: str
    size: int
    channels: int
    features: int
    width: int
    stride: int
    padding: int

    @property
    def geometry(self) -> Geometry:
        """The layer's windows."""
        pads = (self.padding, self.padding)
        return Geometry((self.stride, self.stride), (pads, pads))

    @property
    def out_size(self) -> int:
        """Side of the output."""
        return self.geometry.output_sizes((self.size,) * 2, (self.width,) * 2)[0]


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
    yield Layer("layer1", size, 64, 64, 3, 1, 1)
    for number, features in enumerate((128, 256, 512), 2):
        down = Layer(f"layer{number}.first", size, features // 2, features, 3, 2, 1)
        yield down
        yield Layer(f"layer{number}.downsample", size, features // 2, features, 1, 2, 0)
        size = down.out_size
        yield Layer(f"layer{number}", size, features, features, 3, 1, 1)


MODELS = {"custom_cnn": custom_cnn_layers, "resnet18": resnet18_layers}


def create_key(layer: Layer, op: str, lanes: int, *, shared: bool, batch_size: int, dtype: str) -> tuning.Key:
    """Returns the key of a layer's op; output gradients and kernels are always each lane's own."""
    side, out, width = layer.size, layer.out_size, layer.width
    images, gradients = (batch_size, side, side, layer.channels), (batch_size, out, out, layer.features)
    kernel = (width, width, layer.channels, layer.features)
    operands = {
        "forward": (images, kernel),
        "input_gradient": (gradients, kernel),
        "weight_gradient": (images, gradients),
    }
    own = (not (shared and op != "input_gradient"), True) if lanes > 1 else (False, False)
    geometry = layer.geometry
    if op == "input_gradient":
        geometry = geometry.transposed((side, side), (width, width))
    return tuning.Key(op, *operands[op], (width, width), own, lanes, dtype, geometry)


def measure_layer(layer: Layer, op: str, lanes: int, *, shared: bool) -> dict:
    """Returns median, spread and GFLOP/s of each lowering, and which one hpjax chooses."""
    key = create_key(layer, op, lanes, shared=shared, batch_size=BATCH_SIZE.value, dtype=PRECISION.value)
    samples = measurement.sample(key, key.candidates(), repeats=REPEATS.value)
    multiplies = (
        BATCH_SIZE.value * layer.out_size**2 * layer.width**2 * layer.channels * layer.features * lanes
    )
    rows = {
        name: {
            "median_ms": statistics.median(times),
            "spread_ms": [min(times), max(times)],
            "calls": len(times),
            "gflops": 2e-6 * multiplies / statistics.median(times),
        }
        for name, times in sorted(samples.items(), key=lambda item: statistics.median(item[1]))
    }
    described = {"layer": dataclasses.asdict(layer), "op": op, "lanes": lanes, "shared_images": shared}
    return {**described, "key": str(key), "chosen": tuning.choose(key), "lowerings": rows}


def print_row(row: dict) -> None:
    """Prints the best lowerings of one convolution, and the chosen one."""
    best = list(row["lowerings"].items())[:4]
    chosen = row["lowerings"].get(row["chosen"])
    texts = [f"{name} {r['median_ms']:.1f} ms ({r['gflops']:.0f} GFLOP/s)" for name, r in best]
    chosen_text = f"{row['chosen']} {chosen['median_ms']:.1f} ms" if chosen else row["chosen"]
    print(
        f"{row['layer']['name']} {row['op']} x{row['lanes']}: {', '.join(texts)} | chosen {chosen_text}",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    layers = [v for v in MODELS[MODEL.value](IMAGE_SIZE.value) if not LAYERS.value or v.name in LAYERS.value]
    rows = []
    for layer, op, lanes in itertools.product(layers, OPERATIONS.value, map(int, LANES.value)):
        is_first = layer.channels == 3
        if is_first and op == "input_gradient":
            continue
        rows.append(measure_layer(layer, op, lanes, shared=is_first and lanes > 1))
        print_row(rows[-1])
    if OUT.value:
        versions = {
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "python": sys.version.split()[0],
        }
        settings = {
            name: flags.FLAGS[name].value
            for name in ("model", "image_size", "batch_size", "repeats", "precision")
        }
        content = {"device": memory.device_name(), "versions": versions, "settings": settings, "rows": rows}
        pathlib.Path(OUT.value).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    app.run(main)
