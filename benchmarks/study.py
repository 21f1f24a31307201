"""Runs the four experiments of the article on photographs, and writes the README's table from what came out.

python benchmarks/study.py --dir=data                 runs them all (about half an hour on two cores)
python benchmarks/study.py --dir=data --only=lr       runs one
python benchmarks/study.py                            only writes the table
"""

import csv
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable

from absl import app, flags
from report import replace_between_markers

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "study"
EXPERIMENTS = {
    "lr": ("learning_rate", "learning rate of ResNet18"),
    "batch_size": ("batch_size", "batch size of the custom CNN"),
    "kernel_width": ("kernel_width", "width of the custom CNN's three kernels"),
    "wd": ("weight_decay", "weight decay of the custom CNN"),
}
SMALLER = (
    "--config.data.name=folder",
    "--config.data.image_size=64",
    "--config.data.max_train_examples=3000",
    "--config.data.max_test_examples=600",
)
BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"

DIR = flags.DEFINE_string("dir", "", "folder that holds seg_train/ and seg_test/; empty: nothing is run")
ONLY = flags.DEFINE_list("only", list(EXPERIMENTS), "which experiments are run")


def run(name: str, images: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        workdir = pathlib.Path(scratch) / name
        command = [sys.executable, "-m", "hpjax.main", f"--config=configs/{name}.py", f"--workdir={workdir}"]
        subprocess.run([*command, f"--config.data.dir={images}", *SMALLER], cwd=ROOT, check=True)
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(workdir / "trials.csv", RESULTS / f"{name}.csv")
        shutil.copy(workdir / "figures" / "test_accuracy.png", RESULTS / f"{name}.png")


def render() -> str:
    rows = (_row(name) for name in EXPERIMENTS if (RESULTS / f"{name}.csv").exists())
    return "\n".join(["| config | what differs | final test accuracy |", "|---|---|---|", *rows])


def _row(name: str) -> str:
    column, question = EXPERIMENTS[name]
    with open(RESULTS / f"{name}.csv", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    return f"| [`{name}.py`](configs/{name}.py) | {question} | {_describe(trials, column)} |"


def _describe(trials: Iterable[dict[str, str]], column: str) -> str:
    accuracy = {t[column]: float(t["final_test_accuracy"]) for t in trials if t["status"] == "complete"}
    best = max(accuracy.values())
    texts = {value: f"**{a:.3f}**" if a == best else f"{a:.3f}" for value, a in accuracy.items()}
    return " · ".join(f"{float(value):g}: {text}" for value, text in texts.items())


def main(argv: list[str]) -> None:
    del argv
    for name in ONLY.value if DIR.value else ():
        run(name, str(pathlib.Path(DIR.value).resolve()))
    readme = ROOT / "README.md"
    readme.write_text(replace_between_markers(readme.read_text(), render(), BEGIN, END))


if __name__ == "__main__":
    app.run(main)
