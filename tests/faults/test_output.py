"""Sweeps whose output goes nowhere train to their end; signals reach a plan and a measurement at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from own_sweep import write_sweep

from hpjax.store.records import load_epochs
from hpjax.sweep import load_result

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def _start(command, redirect="", **environment):
    script = f'set -o pipefail; {"" if "|" in redirect else "exec"} "$@" {redirect}'
    arguments = ["bash", "-c", script, "bash", sys.executable, "-m", "hpjax.main", *command[1:]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(arguments, env=os.environ | environment, **pipes)


def _end(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("redirect", "status"),
    [
        pytest.param("2>&1 | true", 141, marks=pytest.mark.landing),
        pytest.param("2>&1 | head -n 1 > /dev/null", 141, marks=pytest.mark.landing),
        ("| true", 141),
        pytest.param("2> /dev/full", 0, marks=pytest.mark.landing),
        pytest.param("> /dev/full 2>&1", 2, marks=pytest.mark.landing),
        (">&- 2>&- <&-", 0),
    ],
)
def test_a_sweep_ends_well_whatever_happens_to_its_output(redirect, status, tmp_path):
    found, out, err = _end(_start(write_sweep(tmp_path), redirect))
    assert found == status, err
    assert "Traceback" not in out + err and "Exception ignored" not in out + err
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    assert summary["finished"] is True
    assert len(load_epochs(tmp_path / "sweep")) == 4
    assert (tmp_path / "sweep" / "figures" / "test_accuracy.png").exists()


@pytest.mark.landing
def test_a_poor_encoding_ends_nothing(tmp_path):
    poor = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    command = [*write_sweep(tmp_path), "--config.sweep.seeds=2"]
    status, out, err = _end(_start(command, **poor))
    assert (status, (out + err).isascii(), "+-" in out) == (0, True, True), err


WHERE_MEASURED = """
import os, signal, traceback
measured = any(f.filename.endswith("lanes/probe.py") for f in traceback.extract_stack())
if "INTERRUPT" in os.environ and measured:
    os.kill(os.getpid(), signal.{name})
"""


EVERY = [(name, plan) for name in ("SIGINT", "SIGTERM", "SIGHUP") for plan in (["--plan"], [])]
FEW = [("SIGTERM", ["--plan"]), ("SIGINT", [])]


@pytest.mark.parametrize(
    ("name", "plan"),
    [case if case in FEW else pytest.param(*case, marks=pytest.mark.landing) for case in EVERY],
)
def test_a_signal_while_layouts_are_measured_ends_at_once(name, plan, tmp_path):
    command = write_sweep(tmp_path, at_call=WHERE_MEASURED.format(name=name).strip())
    command += ["--config.lanes.strategy=auto", *plan]
    # A shell that runs tests in the background may have ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status, out, err = _end(_start(command, HPJAX_CACHE=str(tmp_path / "cache"), INTERRUPT="1"))
    assert status == 128 + getattr(signal, name), err
    assert err.splitlines()[-1].startswith("hpjax: interrupted") and "Traceback" not in err
    assert not out and not list(Path(tmp_path).glob("sweep/checkpoints/population/*"))
    if not plan:
        assert _end(_start(command, HPJAX_CACHE=str(tmp_path / "cache")))[0] == 0
        assert load_result(tmp_path / "sweep").best is not None
