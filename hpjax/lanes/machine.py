"""What results are computed on: equal bits need the same."""

import functools
import importlib.metadata
from typing import Any

import jax

from hpjax.errors import DeviceError
from hpjax.ops.memory import device_name


def find_devices() -> list[Any]:
    """Returns the devices that jax trains on.

    Raises:
      DeviceError: There are none of the kind that it was told to use.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        told = jax.config.jax_platforms  # type: ignore[attr-defined]
        what = f"JAX_PLATFORMS={told}: jax finds no such device here" if told else "jax finds no device here"
        raise DeviceError(f"{what}; {error}" if str(error) else what) from error


@functools.cache  # asked for whenever tables are written
def describe_machine() -> dict[str, Any]:
    """Returns the device, processor and version that shape the last bits of results, as JSON values."""
    device = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "processor": device_name(),  # on a CPU its model, whose vector width shapes sums, and its cores
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
    }
