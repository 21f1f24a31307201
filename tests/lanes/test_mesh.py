"""Lanes on several devices; host devices stand in for them, and need a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.landing
def test_eight_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(FOLDER / "on_devices.py")]
    done = subprocess.run(
        command, env={**os.environ, "XLA_FLAGS": flags}, cwd=FOLDER.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
