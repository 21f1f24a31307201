"""Times an epoch of the same trials in hpjax and in its peers, in turn, and writes JSON.

    python benchmarks/epoch_time.py --model=custom_cnn --image_size=150 --batch_size=32 --lanes=8
    --precision=float32 --systems=fused,sequential,auto,vmap,torch --repeats=5 --steps=4 --out=FILE

Every system lives in a process of its own and waits on a pipe, so that none slows another. Each is prepared
and takes a first epoch untimed; then, round by round, each trains all trials for one epoch.
"""

import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from absl import app, flags
from systems import summary
from systems.fleet import Child, Gang, child_environment, has_gpu
from systems.provenance import describe_run, name_device, write_json
from systems.system import MODULES, Epoch, Unavailable
from systems.workload import Workload, save_examples

SYSTEMS = (*(name for name in MODULES if name != "ceilings"), "processes")
MODEL = flags.DEFINE_enum("model", "custom_cnn", ["custom_cnn", "resnet18"], "which network")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
LANES = flags.DEFINE_integer("lanes", 8, "trials")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "of the activations")
NAMES = flags.DEFINE_list("systems", list(SYSTEMS), f"which of {', '.join(SYSTEMS)}")
PROCESSES = flags.DEFINE_list("processes", [], "how many processes to try; 2 on a CPU, 2, 4 and 8 on a GPU")
REPEATS = flags.DEFINE_integer("repeats", 5, "timed epochs of each system", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 4, "steps of an epoch", lower_bound=1)
TUNE = flags.DEFINE_bool("tune", False, "whether hpjax measures convolutions that its table lacks")
BUDGET = flags.DEFINE_float("budget", 3600, "seconds after which nothing more is prepared, no round begun")
TIMEOUT = flags.DEFINE_float("timeout", 300, "seconds after which a system counts as unavailable")
OUT = flags.DEFINE_string("out", "", "JSON file to write")

WITH_PLAIN_MALLOC = ("torch_plain",)  # the others get what hpjax gives itself
PREPARING = 0.7  # of the budget may go into preparing


@dataclass
class Entry:
    """A system in the contest; once `reason` is given it is out."""

    member: Child | Gang
    epochs: list[Epoch] = field(default_factory=list)
    prepared: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def prepare(name: str, entry: Entry, timeout: float) -> None:
    """Builds a system and has it compile and warm up in a first, untimed epoch."""
    try:
        if timeout <= 0:
            raise Unavailable("not prepared within the benchmark's budget of time")
        entry.member.set_timeout(min(timeout, TIMEOUT.value))
        seconds = entry.member.prepare()
        first = entry.member.run_epoch()
    except Unavailable as error:
        leave(name, entry, error)
        return
    entry.member.set_timeout(TIMEOUT.value)
    entry.prepared = {
        "prepare_seconds": seconds,
        "first_epoch_seconds": first.seconds,
        "first_losses": first.losses,
        "detail": entry.member.detail,
    }
    print(f"{name}: prepared in {seconds:.1f} s, first epoch in {first.seconds:.2f} s", flush=True)


def run_round(entries: dict[str, Entry], number: int) -> None:
    """Has each system train an epoch; in each round another one begins."""
    names = [name for name, entry in entries.items() if not entry.reason]
    start = number % max(len(names), 1)
    for name in names[start:] + names[:start]:
        try:
            entries[name].epochs.append(entries[name].member.run_epoch())
        except Unavailable as error:
            leave(name, entries[name], error)


def leave(name: str, entry: Entry, error: Unavailable) -> None:
    """Takes a system out of the contest."""
    entry.reason = str(error)
    entry.member.close()
    print(f"{name}: unavailable: {entry.reason}", flush=True)


def create_entries(workload: Workload, on_gpu: bool, cache: str) -> dict[str, Entry]:
    """Starts the processes of all systems, and the one that measures the device's ceilings."""
    names = ["ceilings", *(name for name in NAMES.value if name != "processes")]
    environments = {n: child_environment(on_gpu, keep_memory=n not in WITH_PLAIN_MALLOC) for n in names}
    entries = {
        name: Entry(Child(name, workload, environment, timeout=TIMEOUT.value))
        for name, environment in environments.items()
    }
    if "processes" in NAMES.value:
        for count in map(int, PROCESSES.value or (("2", "4", "8") if on_gpu else ("2",))):
            if count <= workload.lanes:
                entries[f"processes_{count}"] = Entry(create_gang(workload, count, on_gpu, cache))
    return entries


def create_gang(workload: Workload, count: int, on_gpu: bool, cache: str) -> Gang:
    """Starts `count` processes; on a GPU they share its memory, on a CPU its cores."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache
    shared = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if on_gpu:
        shared["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.8 / count:.3f}"
    cores = [] if on_gpu else sorted(os.sched_getaffinity(0))
    return Gang(workload, count, {**child_environment(on_gpu), **shared}, cores, TIMEOUT.value)


def describe_contest(entries: dict[str, Entry], workload: Workload) -> dict[str, Any]:
    """Returns everything that was measured."""
    ceilings = entries["ceilings"]
    rates = [statistics.median(rate) for rate in zip(*(e.losses for e in ceilings.epochs), strict=True)]
    able = {name: e for name, e in entries.items() if not e.reason and e is not ceilings}
    seconds = {name: [epoch.seconds for epoch in e.epochs] for name, e in able.items()}
    systems = {
        name: {**e.prepared, **summary.describe_speed(seconds[name], workload, (rates[0], rates[1]))}
        for name, e in able.items()
    }
    out = {name: {"unavailable": e.reason} for name, e in entries.items() if e.reason}
    gangs = [name for name in able if name.startswith("processes")]
    return {
        "ceilings": {"flops": rates[0], "bytes_per_second": rates[1], **ceilings.member.detail},
        "systems": {**systems, **out},
        "best_processes": min(gangs, key=lambda n: statistics.median(seconds[n])) if gangs else "",
        "ratios": summary.compute_ratios(seconds),
        "losses": summary.compare_losses(
            {name: e.prepared["first_losses"] for name, e in able.items()},
            {name: e.epochs[-1].losses for name, e in able.items()},
        ),
    }


def print_contest(content: dict[str, Any]) -> None:
    """Prints a line a system, and the ratios."""
    for name, system in content["systems"].items():
        if "unavailable" not in system:
            print(
                f"{name:13} {_with_spread(system['epoch_seconds'], 3)} s"
                f" {system['images_per_second']:9.0f} images/s {system['tflops']:7.3f} TFLOP/s"
                f" {100 * system['share_of_floor']:3.0f} % of the floor's speed"
            )
    for name, ratio in content["ratios"].items():
        print(f"{name}: {_with_spread(ratio, 2)}")
    print(f"losses: {json.dumps(content['losses'])}")


def _with_spread(described: dict[str, Any], digits: int) -> str:
    first, third = described["quartiles"]
    return f"{described['median']:.{digits}f} ({first:.{digits}f} to {third:.{digits}f})"


def run_contest(workload: Workload, on_gpu: bool) -> dict[str, Any]:
    """Prepares all systems, has them take turns and returns what was measured."""
    start = time.monotonic()
    entries = create_entries(workload, on_gpu, cache=workload.folder)
    try:
        for name, entry in entries.items():
            prepare(name, entry, start + PREPARING * BUDGET.value - time.monotonic())
        if entries["ceilings"].reason:
            raise SystemExit(f"the device can't be measured: {entries['ceilings'].reason}")
        for number in range(REPEATS.value):
            if number == 0 or time.monotonic() < start + BUDGET.value:
                run_round(entries, number)
        return describe_contest(entries, workload)
    finally:
        for entry in entries.values():
            entry.member.close()


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    if unknown := set(NAMES.value) - set(SYSTEMS):
        raise app.UsageError(f"--systems={','.join(sorted(unknown))}: expected {', '.join(SYSTEMS)}")
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(
            model=MODEL.value,
            image_size=IMAGE_SIZE.value,
            batch_size=BATCH_SIZE.value,
            lanes=LANES.value,
            precision=PRECISION.value,
            steps=STEPS.value,
            folder=folder,
            tune=TUNE.value,
        )
        save_examples(workload)
        content = run_contest(workload, on_gpu=has_gpu())
    print_contest(content)
    settings = {k: v for k, v in vars(workload).items() if k not in ("folder", "first_lane")}
    device = name_device(content["ceilings"]["device_kind"])
    write_json(OUT.value, {**describe_run("epoch_time", device, settings), **content})


if __name__ == "__main__":
    app.run(main)
