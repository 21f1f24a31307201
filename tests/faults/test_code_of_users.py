"""Whatever code of a user's own raises, wherever: one line with its file's name, and exit status 2."""

import contextlib
import io

import pytest
from own_sweep import write_sweep

from hpjax.main import main

AWKWARD = "\n".join(
    [
        "class Awkward({base}):",
        "    def __str__(self):",
        "        raise {error}",
        "raise Awkward()",
    ]
)
RAISES = {
    "exception": "raise ValueError('a\\x1b[2J\\nb')",
    "sys.exit": "import sys; sys.exit('no')",
    "sys.exit(0)": "raise SystemExit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "BaseException": "raise BaseException('base')",
    "GeneratorExit": "raise GeneratorExit",
    "MemoryError": "raise MemoryError",
    "StopIteration": "raise StopIteration",
    "recursion": "f = lambda: f(); f()",
    "long": "raise ValueError('x' * 100_000)",
    "awkward": AWKWARD.format(base="Exception", error="ValueError()"),
    "very awkward": AWKWARD.format(base="BaseException", error="SystemExit(1)"),
}
PLACES = ("in_config", "at_import", "at_creation", "at_call", "in_metric")
FEW = ("exception", "sys.exit", "KeyboardInterrupt", "MemoryError", "very awkward")  # tracing takes a while
CASES = [(p, kind) for p in PLACES for kind in (RAISES if p in ("in_config", "in_metric") else FEW)]


@pytest.fixture
def run(caplog):
    """Returns a function that runs a command line: its exit status, and what it printed, said and logged."""

    def call(command):
        out, err = io.StringIO(), io.StringIO()
        caplog.clear()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(command)
        return status, out.getvalue(), "\n".join([err.getvalue(), *caplog.messages])

    return call


def _assert_one_line(status, err, *expected):
    said = [line for line in err.splitlines() if line.startswith("hpjax: error: ")]
    assert status == 2 and len(said) == 1, err
    assert said[0].isprintable() and len(said[0]) < 1_500
    assert all(part in said[0] for part in expected), said


@pytest.mark.parametrize(("place", "kind"), CASES)
def test_it_is_one_line(place, kind, tmp_path, run):
    file = {"in_config": "config.py", "in_metric": "metric.py"}.get(place, "net.py")
    status, out, err = run(write_sweep(tmp_path, **{place: RAISES[kind]}))
    _assert_one_line(status, err, file, "line ")
    assert not out


LATER = """
import pathlib, sys
count = pathlib.Path({count!r})
count.write_text(count.read_text() + "x") if count.exists() else count.write_text("x")
if len(count.read_text()) > {after}:
    raise {error}
"""


@pytest.mark.parametrize("error", ["SystemExit(3)", "MemoryError()", "KeyboardInterrupt()"])
def test_a_metric_that_fails_in_a_later_epoch_is_one_line(error, tmp_path, run):
    code = LATER.format(count=str(tmp_path / "count"), after=4, error=error)
    command = write_sweep(tmp_path, in_metric=code.strip())
    _assert_one_line(*run(command)[::2], "metric.py", error.partition("(")[0])


def test_a_model_that_fails_once_it_is_really_compiled_is_one_line(tmp_path, run):
    code = "import traceback\nif any('engine.py' in f.filename for f in traceback.extract_stack()):\n    "
    code += "raise BaseException('late')"
    _assert_one_line(*run(write_sweep(tmp_path, at_call=code))[::2], "net.py", "BaseException: late")


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("return None", 2, "gives None: expected a number"),
        ("return None if epoch['epoch'] < 2 else 1.0", 0, ""),
        ("return float('nan')", 3, ""),
        ("return 1e308 * (-1) ** epoch['epoch']", 0, ""),
        ("return True", 0, ""),
        ("return 'a'", 2, "ValueError"),
        ("return 1j", 2, "TypeError"),
        ("return [1]", 2, "TypeError"),
    ],
)
def test_a_metric_may_give_numbers_alone_in_the_end(code, status, said, tmp_path, run):
    found, out, err = run(write_sweep(tmp_path, in_metric=code))
    assert found == status, err
    assert status == 2 or "24 training and 12 test images of 6 classes at 16 px; 2 trials of 2 epochs" in err
    if status == 2:
        _assert_one_line(found, err, said)
    last = out.splitlines()[-1] if out else ""
    assert ("no trial ended well (2 diverged of 2 trials)" in last) == (status == 3)


def test_neither_figures_nor_trackers_end_a_sweep(tmp_path, run):
    command = [*write_sweep(tmp_path), "--config.trackers=tensorboard"]
    assert run([*command, "--config.data.max_train_examples=1"])[0] == 2  # the workdir is there now
    (tmp_path / "sweep" / "figures" / "train_loss.png" / "folder").mkdir(parents=True)
    (tmp_path / "sweep" / "tensorboard").mkdir(exist_ok=True)
    (tmp_path / "sweep" / "tensorboard" / "trial_00000").write_text("a file")
    status, _, err = run(command)
    assert status == 0, err
    assert err.count("figure train_loss.png is left out: can't write ") == 1
    assert err.count("tracker tensorboard failed and is left out from now on: ") == 1
