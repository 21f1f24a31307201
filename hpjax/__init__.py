"""Many hyperparameter trials trained at once, in one compiled program, on one device."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpjax.cli.allocator import restart_with_fast_allocator
    from hpjax.sweep import run_sweep
    from hpjax.trained.load import load_trial

__version__ = "0.1.0"

_PUBLIC = {
    "run_sweep": "hpjax.sweep",
    "load_trial": "hpjax.trained.load",
    "restart_with_fast_allocator": "hpjax.cli.allocator",
}

__all__ = ["__version__", "load_trial", "restart_with_fast_allocator", "run_sweep"]


def __getattr__(name: str) -> Any:
    # Lazily: `import hpjax.config` must not pay for jax.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hpjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
