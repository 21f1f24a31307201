"""The configuration: what a sweep is told. Loads without jax."""

from hpjax.config.fields import (
    CheckpointConfig,
    Config,
    DataConfig,
    LanesConfig,
    ModelConfig,
    OptimizerConfig,
    SweepConfig,
    TaskConfig,
    TrainConfig,
)
from hpjax.config.parsing import check_field, get_default, list_choices, parse_config, to_dict

__all__ = [
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "LanesConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SweepConfig",
    "TaskConfig",
    "TrainConfig",
    "check_field",
    "get_default",
    "list_choices",
    "parse_config",
    "to_dict",
]
