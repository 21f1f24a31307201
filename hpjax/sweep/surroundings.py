"""With what a sweep is run: versions of the packages that shape results, and the device."""

import functools
import importlib.metadata
import platform

import jax

import hpjax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "optuna", "numpy")


@functools.cache
def describe_surroundings() -> dict[str, str]:
    """Returns the versions and the device by name, as texts; the entry `made_with` of `summary.json`."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    devices = jax.devices()
    kind = f"{devices[0].platform}, {devices[0].device_kind}"
    return {
        "hpjax": hpjax.__version__,
        "Python": platform.python_version(),
        **versions,
        "device": kind if len(devices) == 1 else f"{len(devices)} of {kind}",
        "system": f"{platform.system()} {platform.machine()}",
    }
