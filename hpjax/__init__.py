"""Many hyperparameter trials trained at once, in one compiled program, on one device."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from hpjax.errors import PrintableRecords

if TYPE_CHECKING:
    from hpjax.cli.allocator import restart_with_fast_allocator
    from hpjax.models.torch_weights import to_torch
    from hpjax.sweep import load_result, plan_sweep, plan_sweep_for, run_sweep
    from hpjax.trained.load import load_trial

__version__ = "0.1.0"

_PUBLIC = {
    "load_result": "hpjax.sweep",
    "load_trial": "hpjax.trained.load",
    "plan_sweep": "hpjax.sweep",
    "plan_sweep_for": "hpjax.sweep",
    "restart_with_fast_allocator": "hpjax.cli.allocator",
    "run_sweep": "hpjax.sweep",
    "to_torch": "hpjax.models.torch_weights",
}

__all__ = [
    "__version__",
    "load_result",
    "load_trial",
    "plan_sweep",
    "plan_sweep_for",
    "restart_with_fast_allocator",
    "run_sweep",
    "to_torch",
]

logging.getLogger("hpjax").addFilter(PrintableRecords())


def __getattr__(name: str) -> Any:
    # Lazily: `import hpjax.config` must not pay for jax.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hpjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
