"""A process that finds XLA's plugin for CUDA: in the tests' own, jax would look for a GPU."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"
sys.path[:0] = [str(HERE), str(BENCHMARKS)]
PLUGIN = "HPJAX_GPU_PLUGIN"

from gpu_process import begin  # noqa: E402


@pytest.fixture(scope="session")
def plugin():
    """The folder of XLA's plugin for CUDA."""
    folder = os.environ.get(PLUGIN, "")
    if not os.path.isdir(os.path.join(folder, "jax_plugins")):
        pytest.skip(f"{PLUGIN} names no folder with XLA's plugin for CUDA (make .gpu-plugin/installed)")
    return folder


@pytest.fixture(scope="session")
def compile_elsewhere(plugin):
    """Returns `f(function, *arguments)`, which computes the function of its module in that process."""
    paths = [plugin, str(HERE), str(BENCHMARKS)]
    with ProcessPoolExecutor(1, get_context("spawn"), begin, (paths,)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()
