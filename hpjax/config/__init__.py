"""The configuration: what a sweep is told. Loads without jax."""

from hpjax.config.fields import (
    CheckpointConfig,
    Config,
    DataConfig,
    LanesConfig,
    ModelConfig,
    OptimizerConfig,
    SweepConfig,
    TrainConfig,
    get_default,
    parse_config,
    to_dict,
)

__all__ = [
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "LanesConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SweepConfig",
    "TrainConfig",
    "get_default",
    "parse_config",
    "to_dict",
]
