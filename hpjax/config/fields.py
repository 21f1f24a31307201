"""The configuration: every field, its default, its documentation and its validation, in one place."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpjax.config.checks import MAX_SEED, check_field, is_mapping, unknown_field
from hpjax.errors import ConfigError

log = logging.getLogger("hpjax")


def _field(default: Any, doc: str) -> Any:
    metadata = {"doc": doc}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """Which network is trained."""

    name: str = _field(
        "custom_cnn", "custom_cnn, resnet18, or FILE.py:CLASS for a flax.nnx module of your own"
    )
    kernel_widths: tuple[int, ...] = _field((5, 5, 7), "custom_cnn: widths of its three square kernels")
    padding: str = _field("reference", "custom_cnn: reference (1, 1, 0) or same")
    pretrained: str = _field(
        "", "path of PyTorch weights (.safetensors or .pth) to start from; empty: from scratch"
    )


@dataclass(frozen=True)
class DataConfig:
    """Which images are learned, and how they reach the device."""

    name: str = _field("auto", "auto, intel_scenes, folder, digits, synthetic_scenes or tfds:NAME")
    dir: str = _field("", "folder of the images; empty: data/ for intel_scenes")
    image_size: int = _field(0, "side of the square image in pixels; 0: 150, synthetic_scenes 64, digits 48")
    validation_fraction: float = _field(
        0.0, "training images held out to select on, in [0, 1); a search makes 0 0.1"
    )
    augment: str = _field("none", "none, flip (horizontal) or flip_crop (flip and a shifted crop)")
    max_train_examples: int = _field(0, "at most so many training images, balanced over classes; 0: all")
    max_test_examples: int = _field(0, "at most so many test images, balanced over classes; 0: all")
    residency: str = _field("auto", "where images live: device, stream (through grain), or auto by size")
    remainder: str = _field("pad", "the last, partial training batch: pad (kept, masked) or drop")
    on_bad_image: str = _field("fail", "an unreadable image: fail (naming it) or skip (and count)")


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights follow gradients."""

    name: str = _field("adam", "sgd, momentum, nesterov, adam, adamw, lamb, lion, rmsprop or adafactor")
    learning_rate: float = _field(1e-4, "peak learning rate, greater than 0")
    weight_decay: float = _field(0.0, "L2 coefficient, at least 0, on every parameter")
    weight_decay_mode: str = _field("coupled", "coupled (added to the gradient) or decoupled (as in AdamW)")
    momentum: float = _field(0.9, "momentum, nesterov, rmsprop: in [0, 1)")
    b1: float = _field(0.9, "decay of the first moment, in [0, 1)")
    b2: float = _field(0.999, "decay of the second moment, in [0, 1)")
    eps: float = _field(1e-8, "added to the denominator, greater than 0")
    clip_norm: float = _field(0.0, "largest global norm of the gradient; 0: no clipping")
    schedule: str = _field("constant", "constant, cosine or linear (both down to 0)")
    warmup_fraction: float = _field(0.0, "share of all steps with a linear warm-up, in [0, 1)")


@dataclass(frozen=True)
class TrainConfig:
    """How long and in what steps one trial trains."""

    epochs: int = _field(10, "epochs of each trial")
    batch_size: int = _field(32, "images per step")
    precision: str = _field("float32", "float32 or bfloat16 (parameters, statistics and loss stay float32)")
    label_smoothing: float = _field(0.0, "in [0, 1)")
    dropout_rate: float = _field(0.5, "probability of dropping an activation, in [0, 1)")


@dataclass(frozen=True)
class SweepConfig:
    """Which trials are run."""

    space: dict = _field({}, "hyperparameter -> tuple of choices, or {low, high[, log][, step][, when]}")
    sampler: str = _field("grid", "grid, random, qmc, tpe, gp or cmaes")
    trials: int = _field(0, "how many settings to try; 0: the whole grid")
    seeds: int = _field(1, "how often each setting is run, each time with another seed")
    final_seeds: int = _field(0, "how many further seeds the best setting is run with at the end")
    metric: str = _field(
        "auto",
        "what is optimised: auto, validation_loss, validation_accuracy, test_loss, "
        "test_accuracy, train_loss, or FILE.py:FUNCTION of your own",
    )
    pruner: str = _field(
        "none", "none, median, successive_halving, hyperband, wilcoxon, threshold or patient"
    )
    pruner_options: dict = _field({}, "arguments of Optuna's pruner of that name")
    pbt: dict = _field(
        {},
        "population based training: every_epochs, fraction, perturb (a copy's values are multiplied or "
        "divided by up to this factor); {}: off",
    )
    enqueue: tuple = _field((), "settings to run first: a tuple of {hyperparameter: value}")


@dataclass(frozen=True)
class LanesConfig:
    """How trials share the device."""

    count: int = _field(
        0, "lanes of one program; 0: as many as fit (an eighth of the trials where the sampler learns)"
    )
    strategy: str = _field("auto", "auto, fused or sequential")
    devices: int = _field(0, "devices the lanes are spread over; 0: all")
    tune: bool = _field(False, "measure the lowering of each operation at plan time")
    data_order: str = _field("own", "own (a trial's order is its own) or shared (all lanes eat one stream)")


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept on disk."""

    every_epochs: int = _field(1, "save the population every so many epochs; 0: by minutes alone")
    every_minutes: float = _field(0.0, "and no more often than this; 0 with every_epochs=0: never")
    keep: int = _field(20, "how many trials' weights are kept: the best ones")


@dataclass(frozen=True)
class Config:
    """One sweep."""

    seed: int = _field(0, "seeds everything: initialisation, data order, dropout, the sampler")
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    lanes: LanesConfig = dataclasses.field(default_factory=LanesConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    trackers: tuple[str, ...] = _field(("tensorboard",), "where curves also go: tensorboard, wandb, mlflow")


HELD_OUT = 0.1  # of the training images, where a search has nothing to select on


def get_default() -> Any:
    """Returns the defaults as a `ConfigDict`, to be changed by a file in `configs/`."""
    from ml_collections import ConfigDict

    return ConfigDict(_plain(Config()))


def parse_config(given: Mapping[str, Any]) -> Config:
    """Returns a checked configuration.

    Args:
      given: nested mappings of (some of) the fields; the others keep their defaults.

    Raises:
      ConfigError: A field is unknown, of the wrong type, or not allowed; names key, value, what is allowed.
    """
    try:
        if is_mapping(given) and hasattr(given, "to_dict"):
            given = given.to_dict()  # type: ignore[attr-defined]
        config = _parse(Config, given, "")
    except RecursionError:
        raise ConfigError("config", given, "fields by name, nested a few levels deep") from None
    _check_together(config)
    return _with_validation(config)


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the configuration as plain values that JSON can hold; `parse_config` takes them back."""
    return _plain(config, jsonable=True)


def _parse(kind: type, given: Any, prefix: str) -> Any:
    if not is_mapping(given):
        raise ConfigError(prefix.rstrip(".") or "config", given, "fields by name")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in given:
        if name not in fields:
            raise unknown_field(prefix.rstrip("."), str(name), given[name], fields)
    values = {}
    for name, value in given.items():
        default = getattr(kind(), name)
        if dataclasses.is_dataclass(default):
            values[name] = _parse(type(default), value, f"{prefix}{name}.")
        else:
            values[name] = check_field(f"{prefix}{name}", value, default)
    return kind(**values)


def _with_validation(config: Config) -> Config:
    """Holds a tenth of the training images out in every search: it reads the test set once, at its end."""
    sweep = config.sweep
    searches = sweep.sampler != "grid" or sweep.pruner != "none" or bool(sweep.pbt)
    if searches and sweep.metric.startswith("test_"):
        allowed = "auto or a validation metric: a search must not select on the test set"
        raise ConfigError("sweep.metric", sweep.metric, allowed)
    selects = searches or sweep.metric.startswith("validation_")
    if not selects or config.data.validation_fraction > 0:
        return config
    log.info("data.validation_fraction=%g of the training images are held out to select on", HELD_OUT)
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
    if config.data.name == "folder" and not config.data.dir:
        raise ConfigError("data.dir", config.data.dir, "the folder that holds train/ and test/")


def _plain(value: Any, jsonable: bool = False) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name), jsonable) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v, jsonable) for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(v, jsonable) for v in value]
        return items if jsonable else tuple(items)
    return value
