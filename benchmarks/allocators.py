"""Times the same epochs with memory from each allocator, in each setting that could be the best one.

    python benchmarks/allocators.py --out=FILE
    python benchmarks/allocators.py --quick                       tiny, to see that it runs

For each system a process per allocator is prepared and takes an untimed epoch; then they take turns, round by
round. The first that loads of `hpjax.cli.host_memory.ALLOCATORS` is what hpjax takes: their order there, and
their settings, are to be what wins here. A library that isn't installed is found through LD_LIBRARY_PATH.
"""

import tempfile
from dataclasses import dataclass, field
from typing import Any

from absl import app, flags
from systems import summary
from systems.fleet import Child, child_environment
from systems.provenance import cpu_name, describe_run, name_allocator, write_json
from systems.system import Unavailable
from systems.workload import Workload, save_examples

from hpjax.errors import ConfigError

MODEL = flags.DEFINE_enum("model", "custom_cnn", ["custom_cnn", "resnet18"], "which network")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
LANES = flags.DEFINE_integer("lanes", 8, "trials")
STEPS = flags.DEFINE_integer("steps", 1, "steps of an epoch", lower_bound=1)
SYSTEMS = flags.DEFINE_list("systems", ["auto", "sequential", "torch"], "what is trained with")
ROUNDS = flags.DEFINE_integer("rounds", 7, "timed epochs of each", lower_bound=1)
TIMEOUT = flags.DEFINE_float("timeout", 600, "seconds after which one counts as unavailable")
QUICK = flags.DEFINE_bool("quick", False, "two rounds of a tiny shape: times nothing")
OUT = flags.DEFINE_string("out", "", "JSON file to write")

# HPJAX_ALLOCATOR and what is set besides; the first is what the others are compared with.
CANDIDATES: tuple[tuple[str, dict[str, str]], ...] = (
    ("none", {}),
    ("system", {}),
    ("jemalloc", {}),
    ("mimalloc", {}),
    ("mimalloc", {"MIMALLOC_PURGE_DELAY": "-1"}),
    ("mimalloc", {"MIMALLOC_ALLOW_THP": "0"}),
    ("mimalloc", {"MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"}),
)


@dataclass
class Candidate:
    """An allocator with its settings and each system's seconds; once `reason` is given it is out."""

    choice: str
    settings: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    allocator: str = ""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""

    @property
    def name(self) -> str:
        """What is printed."""
        return " ".join([self.choice, *(f"{name}={value}" for name, value in self.settings.items())])


def create_candidates(folder: str) -> list[Candidate]:
    """Returns the allocators; what can't be loaded here is out."""
    candidates = [Candidate(choice, dict(settings)) for choice, settings in CANDIDATES]
    for number, candidate in enumerate(candidates):
        # Layouts are chosen for each allocator, programs compiled once.
        own = {"HPJAX_CACHE": f"{folder}/{number}", "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        changes = {**own, **candidate.settings, "HPJAX_ALLOCATOR": candidate.choice}
        try:
            candidate.environment = child_environment(on_gpu=False, changes=changes)
            candidate.allocator = name_allocator(candidate.environment)
        except ConfigError as error:
            candidate.reason = str(error)
    return candidates


def time_system(system: str, workload: Workload, candidates: list[Candidate], rounds: int) -> None:
    """Has the candidates train with one system, in turn."""
    children = {}
    try:
        for index, candidate in enumerate(candidates):
            if not candidate.reason:
                children[index] = Child(system, workload, candidate.environment, timeout=TIMEOUT.value)
                _ask(candidate, children[index].prepare)
                _ask(candidate, children[index].run_epoch)
        for number in range(rounds):
            order = list(children)
            for index in order[number % len(order) :] + order[: number % len(order)]:
                epoch = _ask(candidates[index], children[index].run_epoch)
                if epoch is not None:
                    candidates[index].seconds.setdefault(system, []).append(epoch.seconds)
    finally:
        for child in children.values():
            child.close()


def _ask(candidate: Candidate, ask: Any) -> Any:
    """Returns the answer; None from one that is out, or is from now on."""
    if candidate.reason:
        return None
    try:
        return ask()
    except Unavailable as error:
        candidate.reason = str(error)
    return None


def describe(candidates: list[Candidate], workload: Workload) -> list[dict[str, Any]]:
    """Returns a row for each: raw seconds, images/s, and how many times faster than the first, by rounds."""
    rows = []
    for candidate in candidates:
        row = {"name": candidate.name, "choice": candidate.choice, "settings": candidate.settings}
        if candidate.reason:
            rows.append({**row, "unavailable": candidate.reason})
            continue
        systems = {
            name: _describe_seconds(seconds, candidates[0].seconds[name], workload)
            for name, seconds in candidate.seconds.items()
        }
        rows.append({**row, "allocator": candidate.allocator, "systems": systems})
    return rows


def _describe_seconds(seconds: list[float], first: list[float], workload: Workload) -> dict[str, Any]:
    samples = summary.describe_samples(seconds)
    images = workload.steps * workload.lanes * workload.batch_size
    gain = summary.describe_samples([theirs / own for theirs, own in zip(first, seconds, strict=True)])
    return {
        "seconds": seconds,
        "epoch_seconds": samples,
        "images_per_second": images / samples["median"],
        "gain": gain,
    }


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    shape = (MODEL.value, IMAGE_SIZE.value, BATCH_SIZE.value, LANES.value)
    rounds = ROUNDS.value
    if QUICK.value:
        shape, rounds = (MODEL.value, 40, 4, 2), 2
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(*shape, precision="float32", steps=STEPS.value, folder=folder)
        save_examples(workload)
        candidates = create_candidates(folder)
        for system in SYSTEMS.value:
            time_system(system, workload, candidates, rounds)
            for row in describe(candidates, workload):
                print(f"{system:10} {row['name']}: {_in_words(row, system)}", flush=True)
    names = ("model", "image_size", "batch_size", "lanes")
    settings: dict[str, Any] = dict(zip(names, shape, strict=True))
    settings |= {"precision": "float32", "rounds": rounds, "steps": STEPS.value}
    rows = describe(candidates, workload)
    settings["systems"] = SYSTEMS.value
    write_json(OUT.value, {**describe_run("allocators", cpu_name(), settings), "rows": rows})


def _in_words(row: dict[str, Any], system: str) -> str:
    if "unavailable" in row:
        return f"unavailable: {row['unavailable']}"
    measured = row["systems"][system]
    first, third = measured["gain"]["quartiles"]
    return (
        f"{measured['images_per_second']:.0f} images/s,"
        f" {measured['gain']['median']:.2f} ({first:.2f} to {third:.2f}) times the first's speed"
    )


if __name__ == "__main__":
    app.run(main)
