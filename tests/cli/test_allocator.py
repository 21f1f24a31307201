"""The allocator of programs that use hpjax from Python."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CALL = """
import hpjax
from hpjax.cli.host_memory import running_allocator
print("started")
hpjax.restart_with_fast_allocator()
hpjax.restart_with_fast_allocator()
print(running_allocator()[0])
"""
WITH_WORKERS = """
import multiprocessing
import hpjax
from hpjax.cli.host_memory import running_allocator
hpjax.restart_with_fast_allocator()

def name(_):
    return running_allocator()[0]

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, name(0), *pool.map(name, [0]))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs Linux with glibc")


OURS = ("HPJAX_NO_REEXEC", "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF")


def _python(*arguments, stdin=None, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in OURS and not k.startswith("MIMALLOC_")}
    choice = {"JAX_PLATFORMS": "cpu", "HPJAX_ALLOCATOR": "mimalloc", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        env={**clean, **choice, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_script_is_restarted_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CALL)
    done = _python(str(script))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "started\nstarted\nmimalloc\n"


def test_a_worker_of_a_script_is_not_restarted(tmp_path):
    expected = "spawn mimalloc glibc\nforkserver mimalloc glibc\n"
    script = tmp_path / "script.py"
    script.write_text(WITH_WORKERS)
    done = _python(str(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


@pytest.mark.parametrize("how", [["-"], ["-i", "-q"]], ids=["piped", "interactive"])
def test_a_session_that_would_be_lost_goes_on(how, tmp_path):
    done = _python(*how, stdin=CALL, HOME=str(tmp_path))  # where Python leaves a history
    assert (done.returncode, done.stdout) == (0, "started\nglibc\n")
    assert "an interactive session can't be restarted; start it as: env MIMALLOC_" in done.stderr
    assert "libmimalloc.so.3 jupyter lab\n" in done.stderr


def test_the_environment_is_printed_for_a_shell():
    printed = _python("-m", "hpjax.cli.allocator")
    assert (printed.returncode, printed.stderr) == (0, "")
    code = "from hpjax.cli.host_memory import running_allocator as name; print(name()[0])"
    shell = subprocess.run(
        ["/bin/sh", "-c", f'{printed.stdout}exec "$0" -c "$1"', sys.executable, code],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in OURS},
        capture_output=True,
        text=True,
    )
    assert (shell.stdout, shell.stderr) == ("mimalloc\n", "")


def test_nothing_is_printed_where_there_is_nothing_to_gain():
    printed = _python("-m", "hpjax.cli.allocator", HPJAX_ALLOCATOR="none")
    assert (printed.returncode, printed.stdout) == (0, "")
    assert printed.stderr.startswith("hpjax: nothing to set")


ADVISE = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from hpjax.cli.allocator import advise
from hpjax.cli.host_memory import restart_with_kept_memory
if "restart" in sys.argv:
    restart_with_kept_memory()
advise()
advise()
"""


def test_who_was_not_restarted_is_told_once():
    done = _python("-c", ADVISE)
    assert done.stdout.count("hpjax.restart_with_fast_allocator()") == 1
    assert len(done.stdout.splitlines()) == 1


def test_who_was_restarted_or_chose_is_told_nothing():
    assert _python("-c", ADVISE, "restart").stdout == ""
    assert _python("-c", ADVISE, HPJAX_ALLOCATOR="none").stdout == ""
    assert _python("-c", ADVISE, "restart", HPJAX_ALLOCATOR="system").stdout == ""


def test_a_sweep_from_python_tells(tmp_path):
    # Refused for its workdir, and so over at once.
    code = f"""
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import hpjax
from hpjax.config import get_default, parse_config
hpjax.run_sweep(parse_config(get_default().to_dict()), {str(tmp_path / "missing")!r}, resume="must")
"""
    done = _python("-c", code)
    assert "WorkdirError" in done.stderr
    assert done.stdout.count("hpjax.restart_with_fast_allocator()") == 1
