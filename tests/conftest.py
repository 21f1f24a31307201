"""What holds for every test: the CPU, unless told otherwise, and no restart or cache of the user's."""

import gc
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["HPJAX_NO_REEXEC"] = "1"
# What is promised doesn't depend on how well LLVM optimises; without, programs compile twice as fast. The
# sweeps that `.ci/run` starts are compiled as they are for users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The older way from fused loops to LLVM takes a third of the time to compile. XLA ends a process that names a
# flag that it doesn't know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not IS_WORKER:  # one cache for all workers, and for what they start
    os.environ["HPJAX_CACHE"] = tempfile.mkdtemp(prefix="hpjax-tests-")
    os.environ.setdefault("MPLCONFIGDIR", os.environ["HPJAX_CACHE"] + "/matplotlib")

import pytest  # noqa: E402

NEEDS = {"torch": "torch", "ray": "ray"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores: workers often wait for a disk, or for what is to be killed."""
    return (os.cpu_count() or 1) + 1


def pytest_configure():
    """Shares compiled programs among tests, workers and the processes that they start, through the disk."""
    gc.set_threshold(50_000, 20, 50)  # a worker holds millions of objects, which take seconds to go through
    if importlib.util.find_spec("jax") is not None:
        import jax
        import jaxtyping

        # What a process that a test starts doesn't have, as a user's doesn't: lanes are spread over two
        # devices, and nothing leaves to JAX which shape or dtype is meant.
        if "device_count" not in os.environ.get("XLA_FLAGS", ""):
            jax.config.update("jax_num_cpu_devices", 2)
        jax.config.update("jax_numpy_rank_promotion", "raise")
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        jaxtyping.install_import_hook(
            [
                "hpjax.data.augment",
                "hpjax.ops",
                "hpjax.lanes",
                "hpjax.train",
                "hpjax.models",
                "hpjax.trained",
                "hpjax.handover",
            ],
            "type_checks.check",
        )

        from hpjax.ops.compiler import use_compilation_cache

        use_compilation_cache()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_unconfigure():
    """Removes what the tests cached."""
    if not IS_WORKER:
        shutil.rmtree(os.environ["HPJAX_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Lets go of a module's compiled programs: no other uses them, and they take gigabytes in all."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture
def promotion_as_users_have_it():
    """Leaves shapes and dtypes to JAX, in every thread: for networks of others."""
    import jax

    rules = {"jax_numpy_rank_promotion": "allow", "jax_numpy_dtype_promotion": "standard"}
    before = {name: getattr(jax.config, name) for name in rules}
    for name, rule in rules.items():
        jax.config.update(name, rule)
    yield
    for name, rule in before.items():
        jax.config.update(name, rule)


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
