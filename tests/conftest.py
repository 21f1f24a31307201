"""What holds for every test: the CPU, unless told otherwise, and no restart or cache of the user's."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["HPJAX_NO_REEXEC"] = "1"
os.environ["HPJAX_CACHE"] = tempfile.mkdtemp(prefix="hpjax-tests-")  # for all tests and what they start

import importlib.util
import shutil

import pytest

NEEDS = {"torch": "torch", "ray": "ray"}


def pytest_unconfigure():
    """Removes what the tests cached."""
    shutil.rmtree(os.environ["HPJAX_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Skips what this machine can't run."""
    for item in items:
        for marker, package in NEEDS.items():
            if item.get_closest_marker(marker) and importlib.util.find_spec(package) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs {package}"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def _has_gpu() -> bool:
    import jax

    return jax.default_backend() == "gpu"
