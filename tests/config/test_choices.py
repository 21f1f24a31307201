"""What implements a field's choices has exactly the documented ones."""

import pytest

from hpjax.config import DataConfig, SweepConfig, list_choices
from hpjax.data.augment import AUGMENTS
from hpjax.data.batches import residency
from hpjax.data.own import GIVEN
from hpjax.data.sources import SOURCES
from hpjax.errors import ConfigError
from hpjax.models import MODEL_NAMES
from hpjax.models.cnn import conv_paddings
from hpjax.search.objective import create_objective
from hpjax.search.samplers import create_pruner, create_sampler
from hpjax.store.trackers import TRACKERS
from hpjax.train.optimizer import DECAYED, OPTIMIZER_NAMES, SCHEDULE_NAMES, WEIGHT_DECAY_MODES

REGISTRIES = {
    "model.name": MODEL_NAMES,
    "data.name": (*SOURCES, GIVEN),
    "data.augment": AUGMENTS,
    "optimizer.name": OPTIMIZER_NAMES,
    "optimizer.schedule": SCHEDULE_NAMES,
    "optimizer.weight_decay_mode": WEIGHT_DECAY_MODES,
    "optimizer.weight_decay_on": DECAYED,
    "trackers": TRACKERS,
}


@pytest.mark.parametrize("key", REGISTRIES)
def test_a_registry_has_the_documented_names(key):
    assert tuple(REGISTRIES[key]) == list_choices(key)


@pytest.mark.filterwarnings("ignore:.*experimental")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_each_sampler_and_pruner_is_another():
    samplers = [create_sampler(SweepConfig(sampler=name), 0, 0) for name in list_choices("sweep.sampler")]
    assert len({type(sampler) for sampler in samplers}) == len(samplers) - 1  # a grid draws nothing
    options = {"threshold": {"upper": 1.0}}
    pruners = [
        create_pruner(SweepConfig(pruner=name, pruner_options=options.get(name, {})))
        for name in list_choices("sweep.pruner")
    ]
    assert len({type(pruner) for pruner in pruners}) == len(pruners)


def test_each_metric_is_an_objective():
    metrics = {name: create_objective(name, has_validation=True) for name in list_choices("sweep.metric")}
    assert metrics.pop("auto") == metrics["validation_accuracy"]
    assert [metric.name for metric in metrics.values()] == list(metrics)


@pytest.mark.parametrize(
    ("key", "use"),
    [
        ("model.padding", lambda value: conv_paddings((3, 3, 3), value)),
        ("data.residency", lambda value: residency(DataConfig(residency=value), 8, None)),
        ("sweep.metric", lambda value: create_objective(value, has_validation=True)),
    ],
)
def test_what_takes_a_choice_takes_the_documented_ones_alone(key, use):
    for choice in list_choices(key):
        assert use(choice) is not None
    with pytest.raises(ConfigError, match=f"{key}='zzz' is not allowed: .*{list_choices(key)[-1]}"):
        use("zzz")
