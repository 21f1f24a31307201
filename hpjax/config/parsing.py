"""From what a user gives to a checked configuration, and back to plain values."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from hpjax.config.checks import check_value, is_mapping, unknown_field
from hpjax.config.fields import FIELDS, Config, DataConfig
from hpjax.config.seeds import place_seeds
from hpjax.errors import ConfigError
from hpjax.tasks import CLASSES, LABELS, LOSS, SPLITS, choose_metrics, kind_of, list_known

log = logging.getLogger("hpjax")

HELD_OUT = 0.1  # of the training images, where a search has nothing to select on
LEARNED = ("tpe", "gp", "cmaes")  # samplers that make use of what is known
MAX_SEED = 2**32 - 1
NAMED_FOLDERS = ("auto", "folder")  # values of data.name that take data.train and data.test


def get_default() -> Any:
    """Returns the defaults as a `ConfigDict`, to be changed by a file in `configs/`.

    It takes numbers and arrays of NumPy, and ranges, as Python's own.
    """
    from hpjax.config.defaults import create_defaults

    return create_defaults(_plain(Config()))


def parse_config(given: Mapping[str, Any], told: bool = True) -> Config:
    """Returns a checked configuration.

    Args:
      given: nested mappings of (some of) the fields; the others keep their defaults.
      told: says what was chosen for the user.

    Raises:
      ConfigError: A field is unknown, of the wrong type, or not allowed; names key, value, what is allowed.
    """
    try:
        given = as_mapping(given)
        config = place_seeds(_parse(Config, given, ""))
    except RecursionError:
        raise ConfigError("config", given, "fields by name, nested a few levels deep") from None
    _check_together(config)
    return _with_validation(config, told)


def as_mapping(given: Any) -> Any:
    """Returns a `ConfigDict`, frozen or not, or a `Config` as nested dicts; anything else as it is."""
    if isinstance(given, Config):
        return to_dict(given)
    return given.to_dict() if is_mapping(given) and hasattr(given, "to_dict") else given


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the configuration as plain values that JSON can hold; `parse_config` takes them back."""
    return _plain(config, jsonable=True)


def check_field(key: str, value: Any) -> Any:
    """Returns the value of the field `key` in its type.

    Raises:
      ConfigError: It isn't allowed.
    """
    return check_value(key, value, FIELDS[key])


def list_choices(key: str) -> tuple[str, ...]:
    """Returns the documented values of the field `key`, which has a closed list of them."""
    return tuple(FIELDS[key].rule.choices)


def _parse(kind: type, given: Any, prefix: str) -> Any:
    section = prefix.rstrip(".")
    if not is_mapping(given):
        raise ConfigError(section or "config", given, "fields by name")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise unknown_field(section, str(name), value, fields)
        default = getattr(kind(), name)
        if dataclasses.is_dataclass(default):
            values[name] = _parse(type(default), value, f"{prefix}{name}.")
        else:
            values[name] = check_field(f"{prefix}{name}", value)
    return kind(**values)


def _with_validation(config: Config, told: bool) -> Config:
    """Holds a tenth of the training images out in every search: it reads the test set once, at its end."""
    sweep = config.sweep
    searches = sweep.sampler != "grid" or sweep.pruner != "none" or bool(sweep.pbt)
    if searches and sweep.metric.startswith("test_"):
        allowed = "auto or a validation metric: a search must not select on the test set"
        raise ConfigError("sweep.metric", sweep.metric, allowed)
    selects = searches or sweep.metric.startswith("validation_")
    if not selects or config.data.validation_fraction > 0:
        return config
    if told:
        text = "data.validation_fraction=%g of the training images, or those of a validation folder, select"
        log.info(text, HELD_OUT)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, validation_fraction=HELD_OUT))


def _check_together(config: Config) -> None:
    """Checks fields that depend on each other.

    Raises:
      ConfigError: Two fields contradict each other.
    """
    sweep = config.sweep
    if sweep.sampler != "grid" and not sweep.trials:
        raise ConfigError("sweep.trials", sweep.trials, f"at least 1 with sampler {sweep.sampler}")
    if sweep.sampler != "grid" and not sweep.space:
        raise ConfigError(
            "sweep.space", sweep.space, f"at least one hyperparameter with sampler {sweep.sampler}"
        )
    if config.seed + sweep.seeds + sweep.final_seeds > MAX_SEED:
        raise ConfigError(
            "sweep.seeds", sweep.seeds, f"so few that no seed exceeds {MAX_SEED} with seed={config.seed}"
        )
    if sweep.sampler == "grid" and sweep.trials and not sweep.space:
        raise ConfigError(
            "sweep.trials", sweep.trials, "0 without a search space; sweep.seeds repeats a setting"
        )
    if sweep.final_seeds and sweep.pbt:
        allowed = "0 with sweep.pbt: a population's settings change while it trains"
        raise ConfigError("sweep.final_seeds", sweep.final_seeds, allowed)
    if sweep.extend and (sweep.pbt or sweep.final_seeds):
        allowed = "false with sweep.pbt or sweep.final_seeds: they rest on which trials there were"
        raise ConfigError("sweep.extend", sweep.extend, allowed)
    if sweep.warm_start and sweep.sampler not in LEARNED:
        raise ConfigError(
            "sweep.warm_start",
            sweep.warm_start,
            f"empty with a sampler that isn't one of {', '.join(LEARNED)}",
        )
    if sweep.warm_start and sweep.pruner == "wilcoxon":
        allowed = "empty with sweep.pruner=wilcoxon: it compares epochs with those of the best trial"
        raise ConfigError("sweep.warm_start", sweep.warm_start, allowed)
    _check_folders(config.data)
    _check_task(config)


def _check_task(config: Config) -> None:
    task, metric = config.task, config.sweep.metric
    known = list_known(task.loss)
    if unknown := [name for name in task.metrics if name not in known]:
        allowed = f"among {', '.join(known)} with task.loss={task.loss}"
        raise ConfigError("task.metrics", unknown[0], allowed)
    if len({*task.metrics}) < len(task.metrics):
        raise ConfigError("task.metrics", task.metrics, "each metric once")
    if task.class_weights != "none" and kind_of(task.loss) not in (CLASSES, LABELS):
        allowed = f"none with task.loss={task.loss}; cross_entropy and binary have classes"
        raise ConfigError("task.class_weights", task.class_weights, allowed)
    measured = [LOSS, *choose_metrics(task.loss, task.metrics)]
    split, _, name = metric.partition("_")
    if split in SPLITS and name and name not in measured and ":" not in metric:
        allowed = f"auto, or {split}_ before one of {', '.join(measured)} (task.loss, task.metrics)"
        raise ConfigError("sweep.metric", metric, allowed)


def _check_folders(data: DataConfig) -> None:
    if data.name == "folder" and not (data.dir or data.train):
        allowed = "the folder that holds train/ and test/, or empty with data.train and data.test"
        raise ConfigError("data.dir", data.dir, allowed)
    if data.train and data.name not in NAMED_FOLDERS:
        raise ConfigError("data.train", data.train, f"empty with data.name={data.name}, or data.name=folder")
    if data.train and data.dir:
        raise ConfigError("data.train", data.train, f"empty with data.dir={data.dir!r}")
    if data.test and not data.train:
        raise ConfigError("data.test", data.test, "empty without data.train")


def _plain(value: Any, jsonable: bool = False) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name), jsonable) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v, jsonable) for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(v, jsonable) for v in value]
        return items if jsonable else tuple(items)
    return value
