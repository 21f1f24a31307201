"""The configuration: what a sweep is told. Loads without jax."""

from hpjax.config.fields import Config, get_default, parse_config, to_dict

__all__ = ["Config", "get_default", "parse_config", "to_dict"]
