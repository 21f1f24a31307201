"""Hyperparameters set their fields, and only static ones split a sweep into groups."""

import pytest

from hpjax.config import Config
from hpjax.config.hyperparameters import HYPERPARAMETERS, apply_hyperparameters, check_value, static_key
from hpjax.errors import ConfigError

OTHER = {
    "model": "resnet18",
    "kernel_width": 3,
    "padding": "same",
    "image_size": 64,
    "augment": "flip",
    "batch_size": 7,
    "epochs": 3,
    "precision": "bfloat16",
    "optimizer": "sgd",
    "weight_decay_mode": "decoupled",
    "weight_decay_on": "kernels",
    "freeze": "conv1",
    "schedule": "cosine",
}


def _value(name):
    return OTHER.get(name, 0.25)


def _field(config, name):
    section, field = HYPERPARAMETERS[name].key.split(".")
    return getattr(getattr(config, section), field)


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_each_sets_its_field_and_only_static_ones_make_a_group(name):
    config = apply_hyperparameters(Config(), {name: _value(name)})
    expected = (3, 3, 3) if name == "kernel_width" else _value(name)
    assert _field(config, name) == expected
    assert (static_key(config) == static_key(Config())) == HYPERPARAMETERS[name].dynamic


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_each_refuses_a_wrong_type(name):
    wrong = 3 if HYPERPARAMETERS[name].type is str else "x"
    with pytest.raises(ConfigError):
        check_value(name, wrong)


def test_an_option_of_the_model_is_one_and_shapes_the_program_unless_it_is_said_not_to():
    config = apply_hyperparameters(Config(), {"model.width": 8, "model.norm": None})
    assert config.model.options == {"width": 8, "norm": None}
    other = apply_hyperparameters(config, {"model.width": 9})
    assert static_key(config) != static_key(other)
    assert static_key(config, ["model.width"]) == static_key(other, ["model.width"])
    assert static_key(config, ["model.width"]) != static_key(config)
    assert Config().model.options == {}


@pytest.mark.parametrize(
    "name", ["model.", "model.a b", "model.name", "model.options", "model.a.b", "modelx"]
)
def test_what_is_no_name_of_an_option_is_refused(name):
    with pytest.raises(ConfigError, match="a hyperparameter"):
        check_value(name, 1)


def test_what_does_not_apply_changes_nothing():
    assert apply_hyperparameters(Config(), {"momentum": None}) == Config()


def test_an_unknown_one_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="learning_rate"):
        apply_hyperparameters(Config(), {"lr": 1e-3})


@pytest.mark.parametrize("width", [64, 0, -1, 2.5, True])
def test_kernel_widths_are_whole(width):
    with pytest.raises(ConfigError):
        check_value("kernel_width", width)


def test_a_group_does_not_depend_on_how_it_is_searched_or_kept():
    from hpjax.config import parse_config

    other = parse_config({"sweep": {"seeds": 3}, "checkpoint": {"keep": 2}, "lanes": {"count": 4}, "seed": 5})
    assert static_key(other) == static_key(Config())
