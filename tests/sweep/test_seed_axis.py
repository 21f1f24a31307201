"""Seeds as an axis of the space: fused lanes, the same as so many named replicates, and no other meaning."""

import pytest
import tuned_network

from hpjax.config import parse_config, to_dict
from hpjax.config.seeds import seed_of
from hpjax.errors import ConfigError
from hpjax.lanes.shuffle import choose_shuffle
from hpjax.search.flags import parse_space_flag
from hpjax.search.objective import create_objective
from hpjax.search.opening import open_study
from hpjax.search.space import parse_space
from hpjax.sweep import run_sweep

BASE = {
    "model": tuned_network.MODEL,
    "data": {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 30, "max_test_examples": 12},
    "train": {"epochs": 1, "batch_size": 10},
    "lanes": {"count": 4, "strategy": "fused"},
    "trackers": (),
}


def _config(sweep, **more):
    return parse_config({**BASE, **more, "sweep": sweep})


@pytest.mark.parametrize("values", ([3, 1, 7], {"low": 1, "high": 7, "step": 3}, {"choices": (2, 4)}, (5,)))
def test_they_are_taken_out_of_the_space_and_named(values):
    config = _config({"space": {"seed": values, "learning_rate": (1e-3, 1e-2)}})
    named = values if not isinstance(values, dict) else values.get("choices", (1, 4, 7))
    assert config.sweep.seed_values == tuple(named) and config.sweep.seeds == len(named)
    assert list(config.sweep.space) == ["learning_rate"]
    assert parse_config(to_dict(config)) == config  # as a workdir keeps it
    assert [seed_of(config, i) for i in range(len(named))] == list(named)
    assert seed_of(config, len(named)) == max(named) + 1  # the winner's further seeds are others


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (
            {"space": {"seed": (0, 1)}, "seeds": 2},
            "sweep.seeds=2 is not allowed: expected nothing beside sweep.sp",
        ),
        ({"space": {"seed": (0, 1)}, "seed_values": (1, 2)}, "sweep.seed_values=.*: expected nothing beside"),
        ({"seeds": 2, "seed_values": (1, 2, 3)}, "sweep.seeds=2 is not allowed: expected 3, or left out"),
        ({"space": {"seed": (0, 0)}}, "sweep.space.seed=.*: expected different whole numbers from 0"),
        ({"space": {"seed": (0.5,)}}, "sweep.space.seed=.*: expected different whole numbers from 0"),
        ({"space": {"seed": ()}}, "sweep.space"),
        ({"space": {"seed": 3}}, r"sweep.space.seed=3 is not allowed: expected seeds \(0, 1, 2\) or a range"),
        ({"space": {"seed": {"low": 0, "high": 9, "log": True}}}, "expected seeds"),
        ({"space": {"seed": {"low": 0, "high": 1e6}}}, "expected seeds"),
        ({"space": {"seed": {"choices": 5}}}, "expected seeds"),
        ({"space": {"seed": {"choices": (1, 2), "when": {"optimizer": "sgd"}}}}, "without a condition"),
        (
            {"space": {"seed": (0, 1), "learning_rate": (1e-3, 1e-2)}, "pbt": {"fraction": 0.5}},
            "with sweep.pbt",
        ),
    ],
)
def test_what_is_no_list_of_seeds_or_a_second_one_is_refused(sweep, said):
    with pytest.raises(ConfigError, match=said):
        _config(sweep)


def test_the_command_line_takes_them():
    assert parse_space_flag("seed=0,1,2") == ("seed", (0, 1, 2))
    assert parse_space_flag("seed=0:4") == ("seed", {"low": 0, "high": 4})


def test_each_setting_has_each_seed_and_so_its_own_order_of_examples(tmp_path):
    sweep = {"space": {"seed": (4, 9), "learning_rate": (1e-3, 1e-2)}, "final_seeds": 1}
    config = _config(sweep)
    study = open_study(
        config, parse_space(config.sweep.space), create_objective("auto", False), tmp_path / "j"
    )
    trials = [study.ask() for _ in range(4)] + [study.ask_again(2, 2)]
    assert [(t.seed, t.setting, t.seed_index) for t in trials] == [
        (4, 0, 0),
        (9, 0, 1),
        (4, 2, 0),
        (9, 2, 1),
        (10, 2, 2),
    ]
    assert all(t.hyperparameters == {"learning_rate": 1e-3 if t.setting == 0 else 1e-2} for t in trials)
    alone = _config({"space": {"learning_rate": (1e-2,)}}, seed=9)
    assert choose_shuffle(config, 1, 3, 0) == choose_shuffle(alone, 0, 3, 0)


@pytest.mark.landing
def test_each_setting_has_each_seed_in_fused_lanes(tmp_path):
    space = {"seed": (4, 9), "learning_rate": (1e-3, 1e-2)}
    result = run_sweep(_config({"space": space}), tmp_path / "sweep")
    assert [(t.seed, t.setting, t.hyperparameters["learning_rate"]) for t in result.trials] == [
        (4, 0, 1e-3), (9, 0, 1e-3), (4, 2, 1e-2), (9, 2, 1e-2),
    ]  # fmt: skip
    layout = result.summary["layouts"][0]
    assert result.summary["traces"] == 1 and layout["lanes_per_call"] * layout["devices"] == 4
    # What a seed means doesn't depend on how it is given.
    alone = run_sweep(_config({"space": {"learning_rate": (1e-2,)}}, seed=9), tmp_path / "alone")
    assert alone.trials[0].final_test_loss == pytest.approx(result.trials[3].final_test_loss, rel=1e-4)
