"""Compares what hpjax learns on photographs with what the same loop in PyTorch learns; writes JSON.

    python benchmarks/accuracy.py --dir=data --seeds=3 --out=FILE

Both train the custom CNN on the same images (bytes, scaled to [0, 1]) with Adam and coupled weight decay,
each from its own draws of PyTorch's initialisation, and are judged on the same test images. hpjax runs all
settings and seeds as one sweep.
"""

import math
import pathlib
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import app, flags
from systems.provenance import cpu_name, describe_run, gpu_name, write_json
from systems.torch_training import device, train_custom_cnn

import hpjax
from hpjax.config import Config, parse_config
from hpjax.data.dataset import Dataset, load_dataset

DIR = flags.DEFINE_string("dir", None, "folder that holds seg_train/ and seg_test/", required=True)
IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "side of the images in pixels")
IMAGES = flags.DEFINE_integer("images", 3000, "training images, balanced over classes; 0: all")
TEST_IMAGES = flags.DEFINE_integer("test_images", 0, "test images, balanced over classes; 0: all")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images of a step")
EPOCHS = flags.DEFINE_integer("epochs", 3, "of each trial")
LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-4, "of Adam")
WEIGHT_DECAYS = flags.DEFINE_list("weight_decays", ["0.01", "1.0"], "L2 coefficients")
SEEDS = flags.DEFINE_integer("seeds", 3, "of each weight decay", lower_bound=2)
OUT = flags.DEFINE_string("out", "", "JSON file to write")


def create_config() -> Config:
    """Returns the sweep that trains every setting with every seed."""
    data = {
        "name": "folder",
        "dir": DIR.value,
        "image_size": IMAGE_SIZE.value,
        "max_train_examples": IMAGES.value,
        "max_test_examples": TEST_IMAGES.value,
    }
    return parse_config(
        {
            "data": data,
            "optimizer": {"learning_rate": LEARNING_RATE.value},
            "train": {"epochs": EPOCHS.value, "batch_size": BATCH_SIZE.value},
            "sweep": {"space": {"weight_decay": decays()}, "seeds": SEEDS.value},
            "trackers": (),
        }
    )


def decays() -> tuple[float, ...]:
    return tuple(map(float, WEIGHT_DECAYS.value))


def train_with_hpjax(config: Config) -> dict[float, list[float]]:
    """Returns the final test accuracies of each weight decay."""
    with tempfile.TemporaryDirectory() as workdir:
        trials = hpjax.run_sweep(config, pathlib.Path(workdir) / "sweep", progress=True).trials
    accuracies: dict[Any, list[float]] = {decay: [] for decay in decays()}
    for trial in trials:
        if trial.final_test_accuracy is None:
            raise SystemExit(f"trial {trial.trial} ended as {trial.status}: {trial.message}")
        accuracies[trial.hyperparameters["weight_decay"]].append(trial.final_test_accuracy)
    return accuracies


def train_with_torch(dataset: Dataset, decay: float, seed: int) -> float:
    """Returns the final test accuracy of a plain loop in PyTorch."""
    settings = (EPOCHS.value, BATCH_SIZE.value, LEARNING_RATE.value, decay, seed)
    for number, epoch in enumerate(train_custom_cnn(dataset, *settings), start=1):
        accuracy = epoch["test_accuracy"]
        print(f"torch: weight decay {decay:g}, seed {seed}, epoch {number}: {accuracy:.4f}", flush=True)
    return accuracy


def describe(accuracies: Sequence[float]) -> dict[str, Any]:
    """Returns mean, standard deviation and the values."""
    spread = statistics.stdev(accuracies)
    return {"mean": statistics.mean(accuracies), "standard_deviation": spread, "values": list(accuracies)}


def compare(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Returns the difference of two means of the same number of seeds, and its standard error."""
    variances = statistics.variance(ours) + statistics.variance(theirs)
    difference = statistics.mean(ours) - statistics.mean(theirs)
    return {"difference": difference, "standard_error": math.sqrt(variances / len(ours))}


def main(argv: list[str]) -> None:
    """Runs the comparison."""
    del argv
    config = create_config()
    ours = train_with_hpjax(config)
    dataset = load_dataset(config.data, config.seed)
    rows = []
    for decay in decays():
        theirs = [train_with_torch(dataset, decay, seed) for seed in range(SEEDS.value)]
        row = {"weight_decay": decay, "hpjax": describe(ours[decay]), "torch": describe(theirs)}
        rows.append({**row, **compare(ours[decay], theirs)})
    sizes = {"train": len(dataset.train), "test": len(dataset.test)}
    names = ("image_size", "batch_size", "epochs", "learning_rate", "seeds")
    settings = {name: flags.FLAGS[name].value for name in names} | {"model": "custom_cnn", **sizes}
    name = gpu_name() if device() == "cuda" else cpu_name()
    write_json(OUT.value, {**describe_run("accuracy", name, settings), "rows": rows})
    for row in rows:
        print(
            f"weight decay {row['weight_decay']:g}: hpjax {row['hpjax']['mean']:.4f}, torch"
            f" {row['torch']['mean']:.4f}, difference {row['difference']:+.4f} ± {row['standard_error']:.4f}"
        )


if __name__ == "__main__":
    app.run(main)
