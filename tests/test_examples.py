"""The examples of docs/ run from end to end, at a tiny size."""

import csv
from pathlib import Path

import pytest

from hpjax.cli.config_file import load_config_file
from hpjax.cli.overrides import with_fields
from hpjax.config import parse_config
from hpjax.sweep import run_sweep

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
TINY = {
    "regression": {
        "train.epochs": 2,
        "sweep.sampler": "random",
        "sweep.trials": 3,
        "model.options": {"width": 4},
        "train.batch_size": 45,
    },
    "tokens": {"train.epochs": 2, "sweep.trials": 3, "data.max_train_examples": 200, "train.batch_size": 45},
}
MAIN = {"regression": "mae", "tokens": "balanced_accuracy"}


def _tiny(name):
    config = parse_config(load_config_file(str(EXAMPLES / f"{name}.py")))
    rate = {"sweep.space": {"learning_rate": config.sweep.space["learning_rate"]}, "trackers": ()}
    given = load_config_file(str(EXAMPLES / f"{name}.py"))
    return parse_config(with_fields(given, rate | {"lanes.strategy": "fused"} | TINY[name]))


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*TINY}


@pytest.mark.usefixtures("promotion_as_users_have_it")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.landing if name == "tokens" else ()) for name in TINY]
)
def test_an_example_sweeps_and_draws(name, tmp_path):
    result = run_sweep(_tiny(name), tmp_path)
    metric = f"validation_{MAIN[name]}"
    assert result.summary["metric"] == metric and result.summary["traces"] == 1
    ranked = [getattr(trial, f"final_{metric}") for trial in result.trials]
    assert result.best.trial == ranked.index(min(ranked) if MAIN[name] == "mae" else max(ranked))
    assert getattr(result.best, f"final_test_{MAIN[name]}") is not None
    assert (
        result.outcome.startswith("best: trial") and f"test {MAIN[name]}".replace("_", " ") in result.outcome
    )
    with open(tmp_path / "trials.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and float(rows[0][f"final_{metric}"]) == ranked[0]
    assert {f"{metric}.png", f"final_{metric}.png", "train_loss.png"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }
    assert MAIN[name].replace("_", " ").replace("mae", "mean absolute error") in (
        tmp_path / "report.html"
    ).read_text("utf-8")
