"""Whatever lies in a workdir in its files' place: the sweep goes on, or refuses in one line; none hangs."""

import contextlib
import io
import random
import shutil
import signal

import linear_network
import pytest
from damages import KINDS, list_paths, mutate_file, replace_file
from fuzzing import time_limit
from sweeps import stop_in_the_second_trial

import hpjax
from hpjax.errors import HpjaxError
from hpjax.handover.record import find_place, read_record
from hpjax.main import main
from hpjax.store.records import load_copies, load_epochs, load_trials
from hpjax.sweep import load_result
from hpjax.sweep.events import Upkeep

CONFIG = """
from hpjax.config import get_default

def get_config():
    config = get_default()
    config.model.name = {net!r}
    config.data.name, config.data.image_size = "synthetic_scenes", 16
    config.data.max_train_examples, config.data.max_test_examples = 12, 12
    config.train.batch_size, config.train.epochs = 6, 2
    config.lanes.strategy, config.lanes.count = "sequential", 1
    config.sweep.space = {{"learning_rate": (1e-3, 1e-2)}}
    config.sweep.seeds = 2
    return config
"""
SHARE = 10  # a draw that goes on trains
STATES = ("stopped", "finished")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A sweep that was stopped in its second trial, and the same one finished."""
    root = tmp_path_factory.mktemp("any")
    shutil.copy(linear_network.__file__, root / "net.py")
    (root / "config.py").write_text(CONFIG.format(net=f"{root}/net.py:Net"))
    assert _start(root, "finished") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upkeep, "boundary", stop_in_the_second_trial)
        assert _start(root, "stopped") == 128 + signal.SIGTERM
    return root


def _start(root, workdir) -> int:
    return main(["hpjax", f"--config={root}/config.py", f"--workdir={root / workdir}"])


def _check_answers(root, workdir, case) -> int:
    """Starts the sweep, and asks for its results, as a person does; returns the exit status."""
    stderr, stdout = io.StringIO(), io.StringIO()
    path = root / workdir
    with time_limit(case), contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
        for ask in (load_trials, load_epochs, load_copies, load_result, *LOADERS):
            with contextlib.suppress(HpjaxError):
                ask(path)
        status = _start(root, workdir)
    said = [line for line in stderr.getvalue().splitlines() if line.startswith("hpjax: error: ")]
    assert status in (0, 2) and len(said) == (status == 2), (case, stderr.getvalue())
    assert "Traceback" not in stderr.getvalue(), case
    if status == 2:
        assert len(said[0]) < 2000 and said[0].isprintable(), (case, said)
    return status


LOADERS = (
    lambda path: hpjax.load_trial(path, 0),
    lambda path: hpjax.load_trial(path, "best", model_file=path.parent / "net.py"),
    lambda path: find_place(read_record(path, 1)),
)


def _draw(request, rng: random.Random, cases: list) -> list:
    return rng.sample(cases, min(len(cases), request.config.getoption("--inputs", 40) // SHARE))


@pytest.mark.parametrize("state", STATES)
def test_anything_in_place_of_any_file(begun, tmp_path, state, request, rng, counted):
    results = [(row.trial, row.epoch, row.train_loss) for row in load_epochs(begun / "finished")]
    cases = [(name, kind) for name in list_paths(begun / state) for kind in KINDS]
    for name, kind in _draw(request, rng, cases):
        place = shutil.copytree(begun, tmp_path / "place")
        path = place / state / name
        outside = {file: file.read_bytes() for file in place.rglob("*.py")}
        if path.parent.is_dir():
            replace_file(path, kind)
            status = _check_answers(place, state, (state, name, kind))
            counted["bad inputs refused"] += status == 2
            counted["inputs tried"] += 1
            if status == 0:
                found = [(row.trial, row.epoch, row.train_loss) for row in load_epochs(place / state)]
                assert found == results, (state, name, kind)
            assert not path.with_name("nowhere").exists(), (state, name, kind)
            assert {file: file.read_bytes() for file in place.rglob("*.py")} == outside
        shutil.rmtree(place)


@pytest.mark.parametrize("state", STATES)
def test_hostile_values_in_any_json(begun, tmp_path, state, request, rng, counted):
    names = [name for name in list_paths(begun / state) if name.endswith((".json", ".jsonl", ".journal"))]
    names = [name for name in names if (begun / state / name).is_file()]
    read = [name for name in names if name.endswith(("ledger.json", "summary.json", ".jsonl"))]
    for number in range(request.config.getoption("--inputs", 40) // SHARE):
        place = shutil.copytree(begun, tmp_path / "place")
        name = rng.choice(read if number % 4 else names)
        mutate_file(place / state / name, rng)
        counted["bad inputs refused"] += _check_answers(place, state, (state, number, name)) == 2
        counted["inputs tried"] += 1
        shutil.rmtree(place)
