"""Times one fused training step at growing numbers of lanes, and says where more lanes stop to pay.

    python benchmarks/scaling.py --model=custom_cnn --image_size=150 --batch_size=32 --lanes=1,8 --out=FILE

The lane counts take turns. A count that doesn't fit the device's memory is reported as such, not run.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import jax
from absl import app, flags
from systems import lanes, summary
from systems.provenance import describe_run, name_device, write_json
from systems.workload import Workload, save_examples

from hpjax.cli.host_memory import restart_with_kept_memory
from hpjax.lanes import capacity
from hpjax.ops import tuning

MODEL = flags.DEFINE_enum("model", "custom_cnn", ["custom_cnn", "resnet18"], "which network")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
LANES = flags.DEFINE_list("lanes", ["1", "2", "4", "8", "16", "32", "64"], "lane counts")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "of the activations")
REPEATS = flags.DEFINE_integer("repeats", 5, "rounds", lower_bound=1)
STEPS_PER_CALL = flags.DEFINE_integer("steps_per_call", 1, "steps of a timed call, at most 8", 1, 8)
TUNE = flags.DEFINE_bool("tune", False, "whether convolutions that the table lacks are measured")
OUT = flags.DEFINE_string("out", "", "JSON file to write")

NEAR_BEST = 1.05  # the knee: the fewest lanes of which a step takes at most so many times the best


@dataclass
class Count:
    """A number of lanes and what was measured at it."""

    lanes: int
    compile_seconds: float = 0.0
    memory_bytes: int = 0
    seconds: list[float] = field(default_factory=list)  # per lane and step
    reason: str = ""  # why it could not be run

    def describe(self) -> dict[str, Any]:
        """Returns the row of this number of lanes."""
        row = {
            "lanes": self.lanes,
            "compile_seconds": self.compile_seconds,
            "memory_bytes": self.memory_bytes,
        }
        if self.reason:
            return {**row, "unavailable": self.reason}
        milliseconds = [1e3 * s for s in self.seconds]
        rate = BATCH_SIZE.value / statistics.median(self.seconds)
        return {
            **row,
            "lane_step_milliseconds": summary.describe_samples(milliseconds),
            "samples": milliseconds,
            "images_per_second": rate,
        }


def compile_step(probe: capacity.Probe, count: Count) -> None:
    """Compiles a step and notes how long that took and what memory it needs."""
    start = time.perf_counter()
    try:
        count.memory_bytes = probe.memory(count.lanes)
    except jax.errors.JaxRuntimeError as error:
        count.reason = str(error).splitlines()[0]
        return
    count.compile_seconds = time.perf_counter() - start
    if count.memory_bytes > (limit := capacity.device_memory_limit()):
        count.reason = f"needs {count.memory_bytes} bytes of the device's {limit}"


def time_step(probe: capacity.Probe, count: Count) -> None:
    """Adds a round's seconds per lane and step."""
    try:
        count.seconds.append(probe.seconds(candidate(count.lanes), repeats=1))
    except jax.errors.JaxRuntimeError as error:
        count.reason = str(error).splitlines()[0]


def candidate(num_lanes: int) -> capacity.Candidate:
    """Returns the way in which `num_lanes` lanes are trained: in one program."""
    return capacity.Candidate(num_lanes, 1, STEPS_PER_CALL.value)


def find_knee(rows: list[dict[str, Any]]) -> int:
    """Returns the fewest lanes whose time per lane is near the best; 0 if none was timed."""
    medians = {r["lanes"]: r["lane_step_milliseconds"]["median"] for r in rows if "unavailable" not in r}
    best = min(medians.values(), default=0.0)
    return min((lanes for lanes, median in medians.items() if median <= NEAR_BEST * best), default=0)


def measure(workload: Workload) -> list[Count]:
    """Returns every number of lanes with what was measured at it."""
    tuning.enable(workload.tune)
    task, program = lanes.create_task(workload), lanes.create_program(workload)
    probe = capacity.Probe(program, task, lanes.trial_hparams(workload)[0])
    counts = [Count(int(text)) for text in LANES.value]
    for count in counts:
        compile_step(probe, count)
    for _ in range(REPEATS.value):
        for count in counts:
            if not count.reason:
                time_step(probe, count)
    return counts


def print_row(row: dict[str, Any]) -> None:
    """Prints a line."""
    megabytes = row["memory_bytes"] / 1e6
    text = f"{row['lanes']:3} lanes: compiled in {row['compile_seconds']:.1f} s, {megabytes:.0f} MB"
    if "unavailable" in row:
        print(f"{text}, {row['unavailable']}")
    else:
        median = row["lane_step_milliseconds"]["median"]
        print(f"{text}, {median:.2f} ms a lane and step, {row['images_per_second']:.0f} images/s")


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(
            model=MODEL.value,
            image_size=IMAGE_SIZE.value,
            batch_size=BATCH_SIZE.value,
            lanes=1,
            precision=PRECISION.value,
            steps=STEPS_PER_CALL.value,
            folder=folder,
            tune=TUNE.value,
        )
        save_examples(workload)
        rows = [count.describe() for count in measure(workload)]
    for row in rows:
        print_row(row)
    print(f"knee: {find_knee(rows)} lanes")
    names = ("model", "image_size", "batch_size", "precision", "repeats", "steps_per_call", "tune")
    settings = {name: flags.FLAGS[name].value for name in names}
    device = name_device(jax.devices()[0].device_kind)
    content = {"knee": find_knee(rows), "rows": rows}
    write_json(OUT.value, {**describe_run("scaling", device, settings), **content})


if __name__ == "__main__":
    restart_with_kept_memory()
    app.run(main)
