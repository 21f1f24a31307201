"""Times how soon a sweep finds the best accuracy of searches that go one by one; writes JSON and a figure.

    python benchmarks/search_time.py --data=digits --trials=64 --epochs=8 --lanes=8 --repeats=3 --out=FILE

Two peers train settings one after the other in hpjax's own program for a single lane: `one_by_one` draws them
at random and trains each to its end; `one_by_one_pruned` has hpjax's sampler and its pruner, so that what is
left between it and hpjax is the lanes. hpjax tries as many settings, or more: it has more behind it in less
time. Every search is a process with an empty cache, so that importing, measuring layouts and compiling count.
An epoch is over when its line is in the history. Beside FILE lies a figure of the best accuracy over time.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from absl import app, flags
from matplotlib.figure import Figure
from systems import summary
from systems.fleet import has_gpu
from systems.provenance import cpu_name, describe_run, gpu_name, write_json
from systems.sweeps import ROOT, override_flags, sweep_environment

DATA = flags.DEFINE_string("data", "digits", "images: digits or synthetic_scenes")
DIR = flags.DEFINE_string("dir", "", "folder of images to take instead, split into training and test")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 48, "side of the images in pixels")
IMAGES = flags.DEFINE_integer("images", 0, "training images, a tenth of them for validation; 0: all")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
TRIALS = flags.DEFINE_integer("trials", 64, "settings tried", lower_bound=2)
MORE = flags.DEFINE_integer("trials_of_hpjax", 0, "settings that hpjax tries in its time; 0: as many")
EPOCHS = flags.DEFINE_integer("epochs", 8, "of a trial that isn't stopped", lower_bound=2)
LANES = flags.DEFINE_integer("lanes", 8, "trials side by side")
SAMPLER = flags.DEFINE_enum("sampler", "random", ["random", "qmc", "tpe"], "who chooses hpjax's settings")
REPEATS = flags.DEFINE_integer("repeats", 3, "rounds of searches, each with a seed of its own", lower_bound=1)
OUT = flags.DEFINE_string("out", "", "JSON file to write")

TICK = 0.05  # seconds between two looks at the history
CONFIG = """\
from hpjax.config import get_default


def get_config():
    config = get_default()
    config.sweep.space.learning_rate = {"low": 1e-5, "high": 1e-1, "log": True}
    config.sweep.space.weight_decay = {"low": 1e-6, "high": 1.0, "log": True}
    config.sweep.space.dropout_rate = {"low": 0.0, "high": 0.8}
    {pruner}
    return config
"""
HALVING = 'config.sweep.pruner, config.sweep.pruner_options = "successive_halving", {"min_resource": 1}'
PEERS = ("one_by_one", "one_by_one_pruned")
SEARCHES = (*PEERS, "hpjax")


class Search(NamedTuple):
    """What a search found, and when.

    Attributes:
      seconds: from its start to its end.
      curve: (seconds, best validation accuracy so far), a pair for each improvement.
    """

    seconds: float
    curve: list[tuple[float, float]]

    @property
    def best(self) -> float:
        """The best accuracy of all."""
        return self.curve[-1][1]

    def reached(self, accuracy: float) -> float | None:
        """Returns the seconds until an accuracy was there; None where it never was."""
        return next((seconds for seconds, best in self.curve if best >= accuracy), None)


def run_search(folder: pathlib.Path, name: str, seed: int) -> Search:
    """Runs one of SEARCHES as a process, with an empty cache, and watches its history."""
    folder.mkdir()
    peer, plain = name in PEERS, name == "one_by_one"
    (folder / "search.py").write_text(CONFIG.replace("{pruner}", "" if plain else HALVING))
    fields = {
        "seed": seed,
        "data.name": "folder" if DIR.value else DATA.value,
        "data.image_size": IMAGE_SIZE.value,
        "data.max_train_examples": IMAGES.value,
        "train.batch_size": BATCH_SIZE.value,
        "train.epochs": EPOCHS.value,
        "sweep.trials": TRIALS.value if peer else MORE.value or TRIALS.value,
        "sweep.sampler": "random" if plain else SAMPLER.value,
        "lanes.strategy": "sequential" if peer else "auto",
        "lanes.count": 1 if peer else LANES.value,
    }
    if DIR.value:
        fields["data.dir"] = DIR.value
    overrides = override_flags(fields)
    workdir = folder / "workdir"
    command = [sys.executable, "-m", "hpjax.main", f"--config={folder / 'search.py'}", f"--workdir={workdir}"]
    environment = sweep_environment(folder / "cache")
    start = time.perf_counter()
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, *overrides], cwd=ROOT, env=environment, stdout=log, stderr=log)
        curve = watch(process, workdir / "history.jsonl", start)
    if process.returncode:
        raise SystemExit("the sweep failed:\n" + (folder / "log").read_text())
    return Search(time.perf_counter() - start, curve)


def watch(process: subprocess.Popen, history: pathlib.Path, start: float) -> list[tuple[float, float]]:
    """Returns each improvement of the best validation accuracy with the seconds since `start`."""
    curve: list[tuple[float, float]] = []
    position, running = 0, True
    while running:
        running = process.poll() is None
        if history.exists():
            with open(history, "rb") as file:
                file.seek(position)
                lines = file.read().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            position += sum(map(len, whole))
            events = [event for event in map(json.loads, whole) if event["kind"] == "epoch"]
            for event in events:
                if not curve or event["validation_accuracy"] > curve[-1][1]:
                    curve.append((time.perf_counter() - start, event["validation_accuracy"]))
        time.sleep(TICK if running else 0)
    return curve


def run_round(folder: pathlib.Path, seed: int) -> dict[str, Search]:
    """Runs the searches of one seed, the order changing from one seed to the next."""
    names = reversed(SEARCHES) if seed % 2 else SEARCHES
    found = {name: run_search(folder / f"{name}{seed}", name, seed) for name in names}
    for name, search in found.items():
        print(
            f"{name}: {search.best:.4f} after {search.curve[-1][0]:.0f} of {search.seconds:.0f} s", flush=True
        )
    return found


def describe_round(searches: dict[str, Search]) -> dict[str, Any]:
    """Returns one seed's searches as JSON, and the share of each peer's time that its best took hpjax."""
    described = {name: {**search._asdict(), "best": search.best} for name, search in searches.items()}
    for name in PEERS:
        peer, reached = searches[name], searches["hpjax"].reached(searches[name].best)
        described[name] |= {
            "reached": reached,
            "share_of_the_search": reached and reached / peer.seconds,
            "share_of_the_time_to_its_best": reached and reached / peer.curve[-1][0],
        }
    return described


def describe_shares(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the spread of each peer's shares over the rounds in which hpjax reached its best."""
    shares = ("share_of_the_search", "share_of_the_time_to_its_best")
    return {
        name: {share: summary.describe_samples([found[share] for found in reached]) for share in shares}
        for name in PEERS
        if (reached := [searches[name] for searches in rounds if searches[name]["reached"]])
    }


def name_data() -> str:
    """Returns what the images are."""
    return "photographs" if DIR.value else DATA.value.replace("_", " ")


def _name_trials() -> str:
    more = MORE.value or TRIALS.value
    return f"{TRIALS.value}" if more == TRIALS.value else f"{TRIALS.value} (hpjax: {more})"


def draw(rounds: list[dict[str, Search]], path: pathlib.Path) -> None:
    """Draws the best accuracy so far over time, a line per search."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = {
        "one_by_one": ("#D55E00", "--", "random search, one by one"),
        "one_by_one_pruned": ("#009E73", "-.", f"{SAMPLER.value}, successive halving, one by one"),
        "hpjax": ("#0072B2", "-", f"hpjax: {LANES.value} lanes, {SAMPLER.value}, successive halving"),
    }
    for name, (color, line, label) in styles.items():
        for index, search in enumerate(searches[name] for searches in rounds):
            seconds, best = zip(*search.curve, (search.seconds, search.best), strict=True)
            text = label if index == 0 else None
            axes.step(seconds, best, line, where="post", color=color, label=text, linewidth=1.8)
            axes.plot(seconds[-1], best[-1], "o", color=color, markersize=5)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the start of the process; the dot is its end")
    axes.set_ylabel("best validation accuracy so far")
    axes.set_title(
        f"custom CNN on {name_data()}: {_name_trials()} settings, {EPOCHS.value} epochs at most",
        fontsize="medium",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        rounds = [run_round(pathlib.Path(folder), seed) for seed in range(REPEATS.value)]
    described = [describe_round(searches) for searches in rounds]
    shares = describe_shares(described)
    names = ("image_size", "images", "batch_size", "trials", "epochs", "lanes", "sampler", "repeats")
    settings = {name: flags.FLAGS[name].value for name in names}
    settings["trials_of_hpjax"] = MORE.value or TRIALS.value
    settings |= {"model": "custom_cnn", "data": name_data()}
    device = gpu_name() if has_gpu() else cpu_name()
    write_json(
        OUT.value, {**describe_run("search_time", device, settings), "shares": shares, "rounds": described}
    )
    if OUT.value:
        draw(rounds, pathlib.Path(OUT.value).with_suffix(".png"))
    for name, found in shares.items():
        for share, spread in found.items():
            text = f"{share.replace('_', ' ')} of {name}"
            print(f"{text}: {spread['median']:.2f} (n = {spread['n']} of {len(rounds)})")


if __name__ == "__main__":
    app.run(main)
