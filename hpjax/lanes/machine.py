"""What results are computed on: equal bits need the same."""

import os
import platform
from typing import Any

import jax


def describe_machine() -> dict[str, Any]:
    """Returns the device, processor and version that shape the last bits of results, as JSON values."""
    device = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
    }
