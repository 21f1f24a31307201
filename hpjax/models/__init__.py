"""Networks for one trial, in Flax NNX, with PyTorch's names and initialisation."""

from hpjax.models.registry import MODEL_NAMES, create_model
from hpjax.models.torch_weights import from_torch, to_torch

__all__ = ["MODEL_NAMES", "create_model", "from_torch", "to_torch"]
