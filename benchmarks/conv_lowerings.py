"""Times every lowering of every convolution of a model, layer by layer, and writes the table as JSON.

    python benchmarks/conv_lowerings.py --model=custom_cnn --image_size=150 --batch_size=32 --lanes=1,4,8
    --out=FILE

The first layer's images are shared by all lanes, as in training. The lowerings of one convolution take turns.
"""

import dataclasses
import itertools
import statistics

import jax
from absl import app, flags
from systems.layers import MODELS, Layer
from systems.provenance import describe_run, name_device, write_json

from hpjax.cli.host_memory import restart_with_kept_memory
from hpjax.ops import measurement, memory, tuning
from hpjax.ops.key import Key
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


def create_key(layer: Layer, op: str, lanes: int, *, shared: bool, batch_size: int, dtype: str) -> Key:
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
    return Key(op, *operands[op], (width, width), own, lanes, dtype, geometry)


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
    chosen, rule = tuning.choose(key), tuning.by_rule(key)
    return {**described, "key": str(key), "chosen": chosen, "rule": rule, "lowerings": rows}


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
    names = ("model", "image_size", "batch_size", "repeats", "precision")
    settings = {name: flags.FLAGS[name].value for name in names}
    device = name_device(jax.devices()[0].device_kind)
    content = {"table": memory.device_name(), "rows": rows}
    write_json(OUT.value, {**describe_run("conv_lowerings", device, settings), **content})


if __name__ == "__main__":
    restart_with_kept_memory()
    app.run(main)
