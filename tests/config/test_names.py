"""A name or value that people use elsewhere is answered with the right one."""

import pytest

from hpjax.config import parse_config
from hpjax.config.fields import FIELDS
from hpjax.config.hyperparameters import HYPERPARAMETERS, check_value
from hpjax.config.names import _FIELD_CALLED, _VALUE_CALLED, find_field
from hpjax.errors import ConfigError


def test_every_other_name_leads_to_a_field_that_exists():
    assert set(_FIELD_CALLED.values()) <= set(FIELDS)
    leaves = {key.rpartition(".")[2] for key in FIELDS if not key.endswith(".name")}
    assert not leaves & (set(_FIELD_CALLED) - {"kernel_width"})


def test_every_other_value_leads_to_one_that_is_allowed_and_is_none_itself():
    for key, called in _VALUE_CALLED.items():
        rule = FIELDS[key].rule
        for other, value in called.items():
            assert other not in rule.choices
            assert all(v in rule.choices or "tfds:" in v for v in value.split(",")[0].split(" or ")), value


@pytest.mark.parametrize(("other", "key"), sorted(_FIELD_CALLED.items()))
def test_a_field_is_named(other, key):
    for section in ("", *sorted({k.partition(".")[0] for k in FIELDS if "." in k})):
        if f"{section}.{other}".strip(".") in FIELDS:
            continue
        nested = {section: {other: 1}} if section else {other: 1}
        with pytest.raises(ConfigError, match=f"did you mean {key}\\?"):
            parse_config(nested)


@pytest.mark.parametrize(
    "key", [key for key in FIELDS if "." in key and not key.endswith((".name", ".train"))]
)
def test_a_field_without_its_section_is_named(key):
    leaf = key.rpartition(".")[2]
    assert FIELDS[find_field(leaf, FIELDS)].name == leaf
    with pytest.raises(ConfigError, match="did you mean .*" + leaf):
        parse_config({leaf: 1})


@pytest.mark.parametrize(
    ("key", "other", "value"), [(k, o, v) for k, called in _VALUE_CALLED.items() for o, v in called.items()]
)
def test_a_value_is_named(key, other, value):
    section, _, name = key.partition(".")
    for spelled in (other, other.upper(), other.replace("_", "-")):
        nested = {section: {name: spelled}} if name else {section: (spelled,)}
        with pytest.raises(ConfigError) as caught:
            parse_config(nested)
        assert f"did you mean {value}?" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lr", "learning_rate"), ("wd", "weight_decay"), ("bs", "batch_size"), ("kernel_size", "kernel_width"),
     ("optimizer.learning_rate", "learning_rate"), ("train.batch_size", "batch_size"), ("arch", "model"),
     ("learning-rate", "learning_rate"), ("batchsize", "batch_size"), ("leaning_rate", "learning_rate")],
)  # fmt: skip
def test_a_hyperparameter_is_named(name, meant):
    with pytest.raises(ConfigError, match=f"did you mean {meant}\\?"):
        check_value(name, 1)


@pytest.mark.parametrize("name", [name for name in HYPERPARAMETERS if HYPERPARAMETERS[name].dynamic])
@pytest.mark.parametrize("value", [0.99999999999, 1 - 2**-26, 0.99999995])
def test_a_fraction_that_float32_rounds_to_one_is_refused(name, value):
    import numpy as np

    if check_value(name, 0.5) and FIELDS[HYPERPARAMETERS[name].key].rule.check.holds(1):
        pytest.skip("it may be 1")
    if np.float32(value) == 1 or value > 0.9999999:
        with pytest.raises(ConfigError):
            check_value(name, value)
    assert np.float32(check_value(name, 0.9999999)) < 1
