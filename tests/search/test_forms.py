"""A space of everything that there is, as it is typed and configured, and as Optuna reads what came of it."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hpjax.config import parse_config
from hpjax.search.flags import parse_space_flag
from hpjax.search.objective import create_objective
from hpjax.search.opening import STUDY_NAME, open_study
from hpjax.search.space import parse_space

FLAGS = [
    "batch_size=8:512:log",
    "image_size=32:128:16",
    "model.width=4:65:20",
    "weight_decay=0:1:0.25",
    "model.norm=batch,None",
    "model.deep=true,false",
    "model.groups=2:32:log if model.norm=None",
    "optimizer=adam,momentum",
    "momentum=0.5:0.99 if optimizer=momentum",
    "schedule=constant,cosine if optimizer=momentum and model.deep=true",
    "warmup_fraction=0:0.5:0.1 if schedule=cosine",
]
SPACE = {
    "batch_size": {"low": 8, "high": 512, "log": True},
    "image_size": {"low": 32, "high": 128, "step": 16},
    "model.width": {"low": 4, "high": 65, "step": 20},
    "weight_decay": {"low": 0, "high": 1, "step": 0.25},
    "model.norm": ("batch", None),
    "model.deep": (True, False),
    "model.groups": {"low": 2, "high": 32, "log": True, "when": {"model.norm": None}},
    "optimizer": ("adam", "momentum"),
    "momentum": {"low": 0.5, "high": 0.99, "when": {"optimizer": "momentum"}},
    "schedule": {"choices": ("constant", "cosine"), "when": {"optimizer": "momentum", "model.deep": True}},
    "warmup_fraction": {"low": 0, "high": 0.5, "step": 0.1, "when": {"schedule": "cosine"}},
}
KINDS = {
    "batch_size": IntDistribution(8, 512, log=True),
    "image_size": IntDistribution(32, 128, step=16),
    "model.width": IntDistribution(4, 64, step=20),
    "weight_decay": FloatDistribution(0, 1, step=0.25),
    "model.norm": CategoricalDistribution(("batch", None)),
    "model.deep": CategoricalDistribution((True, False)),
    "model.groups": IntDistribution(2, 32, log=True),
    "optimizer": CategoricalDistribution(("adam", "momentum")),
    "momentum": FloatDistribution(0.5, 0.99),
    "schedule": CategoricalDistribution(("constant", "cosine")),
    "warmup_fraction": FloatDistribution(0, 0.5, step=0.1),
}


def _exists(name, params):
    """Returns whether a hyperparameter belongs to a setting, as a person would say it."""
    moves = params["optimizer"] == "momentum"
    return {
        "model.groups": params["model.norm"] is None,
        "momentum": moves,
        "schedule": moves and params["model.deep"],
        "warmup_fraction": params.get("schedule") == "cosine",
    }.get(name, True)


def test_the_command_line_says_what_a_config_says():
    assert parse_space(dict(map(parse_space_flag, FLAGS))) == parse_space(SPACE)


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_optuna_reads_what_was_searched(tmp_path, sampler):
    config = parse_config({"sweep": {"space": SPACE, "sampler": sampler, "trials": 40}})
    study = open_study(config, parse_space(SPACE), create_objective("auto", True), tmp_path / "journal")
    while (trial := study.ask()) is not None:
        study.tell(trial, "complete", trial.number % 7)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    trials = optuna.load_study(study_name=STUDY_NAME, storage=storage).trials
    assert len(trials) == 40
    for trial in trials:
        expected = {name: kind for name, kind in KINDS.items() if _exists(name, trial.params)}
        assert trial.distributions == expected
        assert all(
            type(trial.params[name]) is int for name, k in expected.items() if isinstance(k, IntDistribution)
        )
        for name, value in trial.params.items():
            assert expected[name]._contains(expected[name].to_internal_repr(value))
    small = sum(trial.params["batch_size"] < 64 for trial in trials)
    assert small >= 8  # half of a range that is even in the logarithm; of an even one it were a ninth
    assert {trial.params["model.deep"] for trial in trials} == {True, False}
    assert {trial.params["model.norm"] for trial in trials} == {"batch", None}
    assert any("warmup_fraction" in trial.params for trial in trials)


def test_a_grid_of_nested_conditions_is_what_a_person_would_list():
    names = ("model.norm", "model.deep", "optimizer", "schedule", "warmup_fraction")
    grid = parse_space({name: SPACE[name] for name in names}).grid()
    assert len(grid) == len({tuple(setting.items()) for setting in grid})
    # For each norm: adam with two depths; momentum alone, constant, and cosine with six fractions.
    assert len(grid) == 2 * (2 + 1 + 1 + 6)
    assert all(set(setting) == {n for n in names if _exists(n, setting)} for setting in grid)
