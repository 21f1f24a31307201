"""Traces an epoch and tells which kernels its time goes to, as JSON.

    python benchmarks/step_kernels.py --model=resnet18 --image_size=150 --batch_size=32 --lanes=8
    --precision=bfloat16 --out=FILE

An `op` of the table is the instruction of that name in the compiled program, which `--text=FILE` writes, too.
Times of the same instruction in all steps are added; of nested loops (on a CPU) each level has its own.
Tracing itself takes time: compare shares, not speeds.
"""

import collections
import gzip
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from absl import app, flags
from jax.profiler import ProfileData
from systems.lanes import Lanes, create_program, create_task
from systems.provenance import describe_run, name_device, write_json
from systems.workload import Workload, save_examples

from hpjax.cli.host_memory import restart_with_kept_memory
from hpjax.lanes.engine import Layout
from hpjax.lanes.probe import steps_per_call

MODEL = flags.DEFINE_enum("model", "custom_cnn", ["custom_cnn", "resnet18"], "which network")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
LANES = flags.DEFINE_integer("lanes", 8, "trials")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "of the activations")
STEPS = flags.DEFINE_integer("steps", 10, "steps of an epoch", lower_bound=1)
SYSTEM = flags.DEFINE_enum("system", "fused", ["fused", "sequential"], "how the lanes are trained")
OUT = flags.DEFINE_string("out", "", "JSON file to write")
TEXT = flags.DEFINE_string("text", "", "file for the compiled program, gzipped")


def create_system(workload: Workload) -> Lanes:
    """Returns the trials in one program, or one after the other; a GPU takes an epoch's steps in one call."""
    program, task = create_program(workload), create_task(workload)
    layout = Layout(workload.lanes if SYSTEM.value == "fused" else 1, steps_per_call())
    return Lanes(workload, program, task, layout, {})


def trace(system: Lanes, folder: str) -> Any:
    """Returns what ran on the device during an epoch."""
    with jax.profiler.trace(folder):
        system.run_epoch(1)
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    return ProfileData.from_file(str(path))


def events(data: Any) -> Iterator[tuple[str, str, float]]:
    """Yields instruction, kernel and microseconds of everything that a compiled program ran on the device."""
    on_gpu = [plane for plane in data.planes if plane.name.startswith("/device:GPU")]
    for plane in on_gpu or data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats and (not on_gpu or line.name.startswith("Stream")):
                    yield str(stats["hlo_op"]), event.name, event.duration_ns / 1e3


def add_up(found: Iterator[tuple[str, str, float]], steps: int) -> list[dict]:
    """Returns a row for each instruction and kernel, the longest first; microseconds and calls per step."""
    times: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for op, kernel, microseconds in found:
        times[op, kernel].append(microseconds)
    rows = [
        {"op": op, "kernel": kernel, "us": round(sum(each) / steps, 2), "calls": round(len(each) / steps, 3)}
        for (op, kernel), each in times.items()
    ]
    return sorted(rows, key=lambda row: -row["us"])


def write_program(path: str) -> None:
    """Writes the largest of the compiled programs that live in this process: that of a training step."""
    executables = jax.devices()[0].client.live_executables()
    texts = [module.to_string() for executable in executables for module in executable.hlo_modules()]
    pathlib.Path(path).write_bytes(gzip.compress(max(texts, key=len).encode()))


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        names = ("model", "image_size", "batch_size", "lanes", "precision", "steps")
        settings: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
        workload = Workload(**settings, folder=folder)
        save_examples(workload)
        system = create_system(workload)
        system.run_epoch(0)
        rows = add_up(events(trace(system, folder)), STEPS.value)
        if TEXT.value:
            write_program(TEXT.value)
    for row in rows[:25]:
        print(f"{row['us']:9.1f} us {row['calls']:6.1f} x {row['op']:40.40} {row['kernel']:.90}")
    total = sum(row["us"] for row in rows)
    print(f"{total:9.1f} us a step in all, {total / LANES.value:.1f} a lane, {len(rows)} rows")
    device = name_device(jax.devices()[0].device_kind)
    content = {"system": SYSTEM.value, "us_per_step": total, "rows": rows}
    write_json(OUT.value, {**describe_run("step_kernels", device, settings), **content})


if __name__ == "__main__":
    restart_with_kept_memory()
    app.run(main)
