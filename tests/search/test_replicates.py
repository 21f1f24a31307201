"""Numbers of trials, however often the seeds of a sweep became more; and the settings that stay the same."""

import pytest

from hpjax.config import parse_config
from hpjax.errors import WorkdirError
from hpjax.search.objective import create_objective
from hpjax.search.opening import open_study
from hpjax.search.replicates import Place, Replicates, Stage
from hpjax.search.space import parse_space

SPACES = {
    "grid": {"learning_rate": (0.1, 0.2, 0.3, 0.4)},
    "random": {"learning_rate": {"low": 1e-3, "high": 0.5, "log": True}, "batch_size": (8, 16, 32)},
}
SPACES["qmc"] = SPACES["random"]


def _places(*stages, count):
    replicates = Replicates([Stage(first, seeds, 1) for first, seeds in stages])
    places = [replicates[number] for number in range(count)]
    for setting in {place.setting for place in places}:
        numbers = replicates.numbers(setting)
        assert [replicates[number].seed_index for number in numbers] == list(range(len(numbers)))
        assert {replicates[number].first for number in numbers} == {numbers[0]}
    assert len({(place.setting, place.seed_index) for place in places}) == count
    return [(place.setting, place.seed_index) for place in places]


def test_missing_seeds_come_before_new_settings():
    assert Replicates([Stage(0, 3, 1)])[7] == Place(2, 6, 1)
    assert _places((0, 1), (2, 2), count=6) == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1)]
    # Extended before the last setting was asked for with all seeds, and again before all that were missing.
    assert _places((0, 2), (3, 3), (4, 4), count=9) == [
        *((0, 0), (0, 1), (1, 0)),
        *((0, 2),),
        *((0, 3), (1, 1), (1, 2), (1, 3), (2, 0)),
    ]


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc"])
def test_settings_are_those_of_the_longer_study(tmp_path, sampler):
    def run(path, trials, seeds, mark=None, stages=()):
        sweep = {"space": SPACES[sampler], "sampler": sampler, "trials": trials, "seeds": seeds}
        config = parse_config({"sweep": sweep})
        objective = create_objective("auto", config.data.validation_fraction > 0)
        study = open_study(config, parse_space(config.sweep.space), objective, path, mark, stages)
        asked = []
        while (trial := study.ask()) is not None:
            study.tell(trial, "complete", 0.5)
            asked.append((tuple(trial.hyperparameters.items()), trial.seed, trial.seed_index))
        return study, asked

    shorter, first = run(tmp_path / "journal", 3, 1)
    _, more = run(tmp_path / "journal", 4, 3, shorter.mark(), shorter.stages)
    assert sorted([*first, *more]) == sorted(run(tmp_path / "longer", 4, 3)[1])
    assert len(more) == 12 - 3
    with pytest.raises(WorkdirError, match="holds 0 trials, and there were 1125899906842624: restore it"):
        run(tmp_path / "another", 4, 3, None, [Stage(0, 1, 1), Stage(2**50, 3, 1)])
