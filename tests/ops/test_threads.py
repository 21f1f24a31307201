"""Threads of XLA have stacks that its convolutions can't exhaust; and there may be no device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's default for all threads")

STACKS = """
import threading
from hpjax.ops import threads

def stacks():
    with open("/proc/self/maps") as maps:
        bounds = [line.split()[0].split("-") for line in maps]
    return [int(end, 16) - int(start, 16) for start, end in bounds].count(threads.STACK_BYTES)
"""
START = """
threads.start_devices()
of_xla = stacks()
wait = threading.Event()
mine = threading.Thread(target=wait.wait)
mine.start()
print(of_xla, stacks())
wait.set()
"""
SWEEP = """
import hpjax
from hpjax.config import parse_config
data = {"name": "synthetic_scenes", "image_size": 40, "max_train_examples": 8, "max_test_examples": 6}
config = parse_config({"data": data, "train": {"epochs": 1, "batch_size": 4}})
"""


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", STACKS + code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_xlas_threads_have_deep_stacks_and_no_others():
    of_xla, after = map(int, run(START))
    assert of_xla >= len(os.sched_getaffinity(0)) and after == of_xla


def test_where_memory_is_limited_threads_are_as_they_were():
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))\n"
    assert run(limit + START) == ["0", "0"]


@pytest.mark.parametrize("entry", ["hpjax.run_sweep(config, FOLDER)", "hpjax.plan_sweep(config)"])
def test_sweeps_start_them(tmp_path, entry):
    code = SWEEP + entry.replace("FOLDER", repr(str(tmp_path / "sweep"))) + "\nprint('stacks', stacks())"
    assert int(run(code)[-1]) >= 1


@pytest.mark.parametrize("told", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_said_in_one_line(tmp_path, told):
    command = [sys.executable, "-m", "hpjax.main", "--config=configs/wd.py", f"--workdir={tmp_path / 'w'}"]
    done = subprocess.run(
        [*command, "--config.data.name=synthetic_scenes"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": told},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("hpjax") or "JAX_PLATFORMS" in done.stderr
    lines = [line for line in done.stderr.splitlines() if "JAX_PLATFORMS" in line]
    assert len(lines) == 1 and f"JAX_PLATFORMS={told}: jax finds no such device" in lines[0]
    assert "Traceback" not in done.stderr and not (tmp_path / "w").exists()
