"""The dynamic hyperparameters of one trial: numbers inside a compiled program.

Some of them are in no program unless they are used: there they are None, which is no array.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt32

Scalar = Float[Array | np.floating, ""]  # NumPy's on the host, an array inside a program


class Hparams(NamedTuple):
    """One trial's dynamic hyperparameters; every field is a scalar array and can be traced."""

    learning_rate: Scalar  # peak rate; the schedule multiplies it by a factor in [0, 1]
    weight_decay: Scalar  # L2 coefficient, coupled or decoupled as the rule says
    momentum: Scalar  # sgd's momentum and rmsprop's, in [0, 1)
    b1: Scalar  # decay of the first moment
    b2: Scalar  # decay of the second moment
    eps: Scalar  # added to the denominator
    clip_norm: Scalar  # largest global gradient norm; 0 means no clipping
    label_smoothing: Scalar  # mass moved from the true class to all classes, in [0, 1)
    dropout_rate: Scalar  # probability of dropping an activation, in [0, 1)
    seed: UInt32[Array | np.unsignedinteger, ""]  # seeds initialisation, dropout and augmentation
    head_factor: Scalar | None  # the head's learning rate over that of the others
    warmup_fraction: Scalar | None  # instead of the rule's, where lanes have different ones
    ema_decay: Scalar | None  # what the average of the weights keeps at each step, in [0, 1)
    options: dict[str, Scalar]  # what the model's class declares to be dynamic, by name


def create_hparams(
    learning_rate: float = 1e-4,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float = 0.0,
    label_smoothing: float = 0.0,
    dropout_rate: float = 0.5,
    seed: int = 0,
    head_factor: float | None = None,
    warmup_fraction: float | None = None,
    ema_decay: float | None = None,
    options: Mapping[str, float] = MappingProxyType({}),
) -> Hparams:
    """Returns one trial's `Hparams` as float32 scalars (and a uint32 seed)."""
    numbers = (learning_rate, weight_decay, momentum, b1, b2, eps, clip_norm, label_smoothing, dropout_rate)
    # Kept on the host: ten transfers to the device would cost more than the numbers are worth.
    own = {name: np.float32(value) for name, value in options.items()}
    used = (head_factor, warmup_fraction, ema_decay)
    used = (None if number is None else np.float32(number) for number in used)
    return Hparams(*map(np.float32, numbers), np.uint32(seed), *used, own)  # type: ignore[arg-type]


def name_numbers(hparams: Hparams) -> list[str]:
    """Returns the names of the hyperparameters in the order of their arrays; options of the model last."""
    fields = [name for name in Hparams._fields if name != "options" and getattr(hparams, name) is not None]
    return [*fields, *sorted(hparams.options)]
