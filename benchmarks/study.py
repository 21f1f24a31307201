"""Runs the article's four experiments at their own size, and writes docs/study.md from what came out.

    python benchmarks/study.py --full --dir=data             hours on two cores; goes on if stopped
    python benchmarks/study.py --full --dir=data --only=lr   one experiment
    python benchmarks/study.py                               only writes the pages

Every experiment and seed is a sweep of its own, `python -m hpjax.main --config=configs/NAME.py`, with a
workdir of its own under --runs. After each, its runs are written into benchmarks/results/study.json.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import study_page
from absl import app, flags
from study_page import EXPERIMENTS
from systems.provenance import cpu_name, describe_run, gpu_name

from hpjax.config import parse_config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.data.dataset import load_dataset
from hpjax.models.pretrained import hash_weights

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "study.json"

FULL = flags.DEFINE_bool("full", False, "run the experiments; otherwise only the pages are written")
DIR = flags.DEFINE_string("dir", "data", "folder that holds seg_train/ and seg_test/")
RUNS = flags.DEFINE_string("runs", "runs/study", "folder of the workdirs")
WEIGHTS = flags.DEFINE_string("weights", "imagenet", "what ResNet18 starts from: model.pretrained")
WEIGHTS_NOTE = flags.DEFINE_string("weights_note", "", "where those weights are from, for the page")
ONLY = flags.DEFINE_list("only", list(EXPERIMENTS), "which experiments are run")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "of the custom CNN; ResNet18 takes the first")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
EPOCHS = flags.DEFINE_integer("epochs", 10, "of every run")
TORCH = flags.DEFINE_list(
    "torch", [], "settings of the custom CNN that PyTorch trains, too, with all seeds: batch=450,wd=1.0"
)
OUT = flags.DEFINE_string("out", str(RESULTS), "JSON file to write")
CONFIG = flags.DEFINE_multi_string("set", [], "for every sweep, e.g. train.batch_size=8")


def run(name: str, seed: int) -> pathlib.Path:
    """Runs, or goes on with, one experiment with one seed; returns its workdir."""
    experiment = EXPERIMENTS[name]
    workdir = _workdir(name, seed)
    settings = {
        "data.name": "folder",
        "data.dir": str(pathlib.Path(DIR.value).resolve()),
        "data.image_size": IMAGE_SIZE.value,
        "train.epochs": EPOCHS.value,
        "seed": seed,
    }
    if experiment.pretrained:
        settings["model.pretrained"] = WEIGHTS.value
    given = [f"--config.{key}={value}" for key, value in settings.items()]
    given += [f"--config.{setting}" for setting in CONFIG.value]
    command = [sys.executable, "-m", "hpjax.main", f"--config=configs/{experiment.config}.py"]
    subprocess.run([*command, f"--workdir={workdir}", *given], cwd=ROOT, check=True)
    return workdir


def collect(name: str, seed: int, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the runs of a finished workdir, one per trial, from its tables."""
    experiment = EXPERIMENTS[name]
    images = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))["data"]["images"]
    provenance = _describe(images["train"], images["test"], IMAGE_SIZE.value)
    epochs = _read(workdir / "epochs.csv")
    return [
        {
            "experiment": name,
            "setting": _setting(trial, experiment.varied),
            "seed": seed,
            "pretrained": experiment.pretrained,
            **({"weights": _weights()} if experiment.pretrained else {}),
            "workdir": workdir.name,
            "trial": int(trial["trial"]),
            "epochs": [_epoch(row) for row in epochs if row["trial"] == trial["trial"]],
            "lanes": max(int(row["lanes"]) for row in epochs if row["trial"] == trial["trial"]),
            **provenance,
        }
        for trial in _read(workdir / "trials.csv")
    ]


def train_in_torch(setting: str, seed: int) -> dict[str, Any]:
    """Returns the run of a plain loop in PyTorch, as a sweep's workdir has its data and numbers."""
    from systems import torch_training  # takes seconds

    name, _, text = setting.partition("=")
    if name not in ("batch", "wd"):  # what the loop's network and optimizer can be given
        raise SystemExit(f"--torch={setting}: expected batch=SIZE or wd=DECAY")
    workdir, varied = _workdir(name, seed), EXPERIMENTS[name].varied
    if not (workdir / "config.json").exists():
        raise SystemExit(f"{workdir} isn't there: run {name} with seed {seed} first")
    config = parse_config(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    values = {f"{value:g}": value for value in config.sweep.space[varied]}
    if text not in values:
        raise SystemExit(f"--torch={setting}: expected {' or '.join(f'{name}={v}' for v in values)}")
    config = apply_hyperparameters(config, {varied: values[text]})
    dataset, optimizer = load_dataset(config.data, config.seed), config.optimizer
    settings = (config.train.epochs, config.train.batch_size, optimizer.learning_rate, optimizer.weight_decay)
    epochs = []
    for epoch in torch_training.train_custom_cnn(dataset, *settings, seed):
        epochs.append(epoch)
        print(f"torch: {setting}, seed {seed}, epoch {len(epochs)}: {epoch}", flush=True)
    return {
        "experiment": name,
        "setting": {varied: float(values[text])},
        "seed": seed,
        "pretrained": False,
        "framework": "torch",
        "epochs": epochs,
        **_describe(len(dataset.train), len(dataset.test), config.data.image_size),
    }


def _describe(train_images: int, test_images: int, image_size: int) -> dict[str, Any]:
    """Returns what a run learned from and was made with."""
    made = describe_run("study", _device(), {})
    sizes = {"train_images": train_images, "test_images": test_images, "image_size": image_size}
    return {**sizes, "device": made["device"], "versions": made["versions"]}


def _workdir(name: str, seed: int) -> pathlib.Path:
    return pathlib.Path(RUNS.value).resolve() / f"{name}_seed{seed}"


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _setting(trial: Mapping[str, str], varied: str) -> dict[str, float]:
    return {varied: float(trial[varied])}


def _epoch(row: Mapping[str, str]) -> dict[str, float]:
    names = ("train_loss", "test_loss", "test_accuracy")
    return {name: float(row[name]) for name in names} | {"seconds": float(row["epoch_seconds"])}


def _weights() -> dict[str, str]:
    """What ResNet18 starts from, by name and content; of a path the file's name only."""
    given = WEIGHTS.value
    name = os.path.basename(given) if os.path.exists(given) else given
    return {"name": name, "sha256": hash_weights(given), "note": WEIGHTS_NOTE.value}


def _device() -> str:
    try:
        return gpu_name()
    except (OSError, subprocess.CalledProcessError):
        return cpu_name()


def merge(known: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns all runs; a new one takes the place of one of its experiment, setting, seed and framework."""

    def key(run: Mapping[str, Any]) -> str:
        return json.dumps([run["experiment"], run["setting"], run["seed"], run.get("framework")])

    return list(({key(run): run for run in known} | {key(run): run for run in new}).values())


def keep(out: pathlib.Path, runs: list[dict[str, Any]]) -> None:
    """Writes runs into the results."""
    known = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    out.write_text(json.dumps(merge(known, runs), indent=1) + "\n", encoding="utf-8")


def main(argv: list[str]) -> None:
    del argv
    out = pathlib.Path(OUT.value)
    seeds = [int(seed) for seed in SEEDS.value]
    # The first seed of everything before the second of anything: stopped early, the study is whole.
    for seed in seeds if FULL.value else ():
        for name in ONLY.value:
            if seed == seeds[0] or EXPERIMENTS[name].seeded:
                keep(out, collect(name, seed, run(name, seed)))
    for seed in seeds:
        for setting in TORCH.value:
            keep(out, [train_in_torch(setting, seed)])
    if out == RESULTS:
        study_page.write(json.loads(out.read_text(encoding="utf-8")))


if __name__ == "__main__":
    app.run(main)
