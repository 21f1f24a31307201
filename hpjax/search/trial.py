"""One trial: a setting with its seed."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One run of one setting.

    Attributes:
      number: counts trials from 0, as Optuna does.
      hyperparameters: the swept ones, by name; those that don't apply to this setting are missing.
      seed: seeds its initialisation, dropout and augmentation.
      setting: number of the setting's first trial; replicates share it.
      seed_index: which replicate of the setting this is, from 0.
    """

    number: int
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    setting: int = 0
    seed_index: int = 0
