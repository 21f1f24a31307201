"""Seeds as lanes: replicates, the winner's further seeds, and a kill among them."""

import csv
import shutil

import pytest
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.errors import ConfigError
from hpjax.sweep import run_sweep

TINY = {
    "model": MODEL,
    "data": DATA,
    "train": {"batch_size": 12, "epochs": 2},
    "trackers": (),
}
# Copies the workdir in the middle of the final seeds: what a kill at that moment would leave behind.
METRIC = """
import pathlib, shutil

here, calls = pathlib.Path(__file__).parent, 0

def accuracy(epoch):
    global calls
    calls += 1
    if (here / "armed").exists() and calls == 3 + 3:  # three trials were pruned after their first epoch
        (here / "armed").unlink()
        while True:
            try:
                shutil.copytree(here / "whole", here / "killed")
                break
            except (shutil.Error, FileNotFoundError):  # a checkpoint was being renamed
                shutil.rmtree(here / "killed")
    return epoch["validation_accuracy"]
"""


def _rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A random search whose winner is run with two further seeds: whole, and as a kill left it."""
    folder = tmp_path_factory.mktemp("final")
    (folder / "metric.py").write_text(METRIC)
    (folder / "armed").touch()
    sweep = {
        "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "sampler": "random",
        "trials": 3,
        "final_seeds": 2,
        "metric": f"{folder}/metric.py:accuracy",
        "pruner": "threshold",  # would end every trial after its first epoch, were it allowed to
        "pruner_options": {"lower": 2.0},
    }
    config = parse_config(
        {
            **TINY,
            "data": {**TINY["data"], "validation_fraction": 0.2},
            "lanes": {"strategy": "fused", "count": 2},
            "checkpoint": {"keep": 1},
            "sweep": sweep,
        }
    )
    return config, run_sweep(config, folder / "whole"), folder


def test_the_winner_is_run_with_further_seeds(searched):
    _, result, _ = searched
    first, *further = (row for row in result.trials if row.setting == result.summary["final_setting"])
    assert [t.trial for t in further] == [3, 4]
    assert [(t.seed, t.seed_index, t.status, t.epochs) for t in further] == [
        (1, 1, "complete", 2),
        (2, 2, "complete", 2),
    ]
    assert all(t.hyperparameters == first.hyperparameters for t in further)
    winner = next(row for row in result.settings if row.winner)
    assert winner.trials == (first.trial, 3, 4) and winner.final.n == 3
    assert result.summary["winner"]["final"]["mean"] == winner.final.mean


def test_the_test_set_is_read_once_for_each_seed_of_the_winner(searched):
    _, result, _ = searched
    tested = {t.trial for t in result.trials if t.final_test_accuracy is not None}
    assert tested == {*next(row for row in result.settings if row.winner).trials}
    events = (result.workdir / "history.jsonl").read_text().splitlines()
    assert sum('"kind": "test"' in event for event in events) == len(tested)


@pytest.mark.landing
def test_killed_among_the_final_seeds_it_ends_with_the_same_tables(searched):
    config, result, folder = searched
    assert (folder / "killed").exists()
    again = run_sweep(config, folder / "killed")
    assert [(t.trial, t.setting, t.seed, t.best_validation_accuracy) for t in again.trials] == [
        (t.trial, t.setting, t.seed, t.best_validation_accuracy) for t in result.trials
    ]
    assert again.settings == result.settings
    shutil.rmtree(folder / "killed")


@pytest.mark.landing
def test_replicates_are_compared_seed_by_seed(tmp_path):
    sweep = {"space": {"learning_rate": (1e-3, 1e-7)}, "seeds": 2}
    result = run_sweep(parse_config({**TINY, "lanes": {"strategy": "fused"}, "sweep": sweep}), tmp_path / "s")
    rows = _rows(result.workdir / "settings.csv")
    assert [(row["learning_rate"], row["n"], row["seeds"]) for row in rows] == [
        ("0.001", "2", "2"),
        ("1e-07", "2", "2"),
    ]
    loser = next(row for row in rows if row["winner"] == "no")
    assert loser["test"] == "paired t" and 0 <= float(loser["noise_p"]) <= 1
    assert result.summary["winner"]["noise_could_explain"] is (loser["could_win"] == "yes")
    assert {path.name for path in (result.workdir / "figures").iterdir()} >= {"test_accuracy.png"}


def test_final_seeds_of_a_population_are_refused():
    with pytest.raises(ConfigError, match=r"sweep\.final_seeds=2"):
        parse_config({"sweep": {"final_seeds": 2, "pbt": {"every_epochs": 2}}})
