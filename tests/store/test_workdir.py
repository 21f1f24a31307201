"""The workdir: one writer, one config, atomic files, one-line errors."""

import json
import os
import pydoc
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from hpjax.config import list_choices, parse_config
from hpjax.config.fields import FIELDS
from hpjax.errors import WorkdirError
from hpjax.search import samplers
from hpjax.search.journal import create_journal
from hpjax.search.objective import create_objective
from hpjax.search.opening import open_study
from hpjax.search.space import parse_space
from hpjax.store import workdir as workdir_module
from hpjax.store.changes import MAY_DIFFER, UNLEARNED
from hpjax.store.checkpoints import PopulationCheckpoints
from hpjax.store.lock import writing
from hpjax.store.marks import RunningMark
from hpjax.store.records import open_records
from hpjax.store.steps import Steps
from hpjax.store.workdir import JOURNAL_NAME, atomic_write, is_finished, open_workdir

CONFIG = {"seed": 0, "optimizer": {"learning_rate": 1e-4}, "lanes": {"count": 4}, "kernels": (5, 5, 7)}
HOLD = """
import sys
from hpjax.store.workdir import open_workdir
workdir = open_workdir(sys.argv[1], {"seed": 0})
print("held", flush=True)
sys.stdin.read()
"""
FORK = """
import os, sys
from hpjax.store.workdir import open_workdir
workdir = open_workdir(sys.argv[1], {"seed": 0})
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, b"1")
    sys.stdin.read()
    os._exit(0)
os.read(reader, 1)
print("forked", flush=True)
sys.stdin.read()
"""


def _start_holder(path: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def _record(path: Path) -> None:
    (path / "history.jsonl").write_text("{}\n")


def _changed(**changes: object) -> dict:
    return {**CONFIG, **changes}


def test_new_workdir_holds_the_config(tmp_path):
    path = tmp_path / "runs" / "wd"
    with open_workdir(path, CONFIG) as opened:
        assert (opened.resumed, opened.finished) == (False, False)
    assert json.loads((path / "config.json").read_text())["optimizer"] == {"learning_rate": 1e-4}


def test_unfinished_sweep_is_continued(tmp_path):
    open_workdir(tmp_path, CONFIG).close()
    _record(tmp_path)
    for resume in ("auto", "must"):
        with open_workdir(tmp_path, CONFIG, resume) as opened:
            assert (opened.resumed, opened.finished) == (True, False)


def test_finished_sweep_says_so(tmp_path):
    open_workdir(tmp_path, CONFIG).close()
    atomic_write(tmp_path / "summary.json", '{"finished": true}')
    with open_workdir(tmp_path, CONFIG) as opened:
        assert opened.finished
    atomic_write(tmp_path / "summary.json", '{"finis')
    assert not is_finished(tmp_path)


def test_never_and_must(tmp_path):
    with pytest.raises(WorkdirError, match="holds no sweep to resume"):
        open_workdir(tmp_path / "new", CONFIG, "must")
    open_workdir(tmp_path / "new", CONFIG, "never").close()
    _record(tmp_path / "new")
    with pytest.raises(WorkdirError, match="already holds a sweep"):
        open_workdir(tmp_path / "new", CONFIG, "never")


def test_other_config_is_refused_with_every_key_and_both_values(tmp_path):
    open_workdir(tmp_path, CONFIG).close()
    _record(tmp_path)
    with pytest.raises(WorkdirError) as caught:
        open_workdir(tmp_path, _changed(seed=1, optimizer={"learning_rate": 0.1, "b1": 0.9}))
    message = str(caught.value)
    assert "seed: 0 there, 1 now" in message
    assert "optimizer.learning_rate: 0.0001 there, 0.1 now" in message
    assert "optimizer.b1: nothing there, 0.9 now" in message
    assert "\n" not in message
    open_workdir(tmp_path, CONFIG).close()


def test_other_lane_count_goes_on_and_is_written_down(tmp_path):
    open_workdir(tmp_path, CONFIG).close()
    _record(tmp_path)
    with open_workdir(tmp_path, _changed(lanes={"count": 2})) as opened:
        assert json.loads((tmp_path / "config.json").read_text())["lanes"] == {"count": 4}
        opened.accept()
    assert json.loads((tmp_path / "config.json").read_text())["lanes"] == {"count": 2}


PLACES = [
    ("data.dir", "/d/ok", "/d/ok/", True),
    ("data.dir", "/d/ok", "", True),
    ("model.pretrained", "w.pth", "/x/w.safetensors", True),
    ("model.pretrained", "w.pth", "", False),
    ("model.name", "a.py:Net", "/x/b.py:Net", True),
    ("model.name", "a.py:Net", "a.py:Other", False),
    ("model.name", "a.py:Net", "custom_cnn", False),
    ("sweep.metric", "a.py:f", "../b.py:f", True),
    ("sweep.metric", "train_loss", "b.py:f", False),
    ("data.name", "tfds:a.py:f", "tfds:b.py:f", False),
]


@pytest.mark.parametrize(("key", "there", "now", "same"), PLACES)
def test_files_are_not_compared_by_the_place_where_they_lie(tmp_path, key, there, now, same):
    section, field = key.split(".")
    for old, new in ((there, now), (now, there)):
        path = tmp_path / str(old == there)
        open_workdir(path, {section: {field: old}}).close()
        _record(path)
        if same:
            open_workdir(path, {section: {field: new}}).close()
            continue
        with pytest.raises(WorkdirError, match=f"{key}: .* there, .* now"):
            open_workdir(path, {section: {field: new}})


COUNTED = {"sweep": {"sampler": "grid", "pruner": "none", "pbt": {}}, "lanes": {"data_order": "own"}}


def _begin(path: Path, sections: dict) -> dict:
    config = {name: {**COUNTED.get(name, {}), **sections.get(name, {})} for name in COUNTED}
    open_workdir(path, {**config, "lanes": {**config["lanes"], "count": 4}}).close()
    _record(path)
    return {**config, "lanes": {**config["lanes"], "count": 2}}


@pytest.mark.parametrize("sampler", UNLEARNED)
def test_other_lane_count_goes_on_where_it_shapes_nothing(tmp_path, sampler):
    open_workdir(tmp_path, _begin(tmp_path, {"sweep": {"sampler": sampler}})).close()


@pytest.mark.parametrize(
    "sections",
    [
        *({"sweep": {"sampler": name}} for name in list_choices("sweep.sampler") if name not in UNLEARNED),
        *({"sweep": {"pruner": name}} for name in list_choices("sweep.pruner") if name != "none"),
        {"sweep": {"pbt": {"every_epochs": 1}}},
        {"sweep": {"sampler": "random", "pbt": {"every_epochs": 1}}},
        {"lanes": {"data_order": "shared"}},
    ],
    ids=str,
)
def test_other_lane_count_is_refused_where_it_shapes_results(tmp_path, sections):
    with pytest.raises(WorkdirError, match="lanes.count: 4 there, 2 now"):
        open_workdir(tmp_path, _begin(tmp_path, sections))


def test_the_samplers_that_do_not_learn_are_those_of_the_search():
    assert UNLEARNED == samplers.UNLEARNED


def test_what_may_change_is_in_the_configuration():
    assert {*MAY_DIFFER, "lanes.count"} <= {*FIELDS}


def test_second_process_is_refused_naming_the_first(tmp_path):
    holder = _start_holder(tmp_path)
    try:
        with pytest.raises(WorkdirError, match=f"in use by process {holder.pid} on {os.uname().nodename}"):
            open_workdir(tmp_path, {"seed": 0})
    finally:
        holder.kill()
        holder.communicate()
    open_workdir(tmp_path, {"seed": 0}).close()


def test_same_process_cannot_open_twice(tmp_path):
    with open_workdir(tmp_path, CONFIG), pytest.raises(WorkdirError, match=f"process {os.getpid()} "):
        open_workdir(tmp_path, CONFIG)
    open_workdir(tmp_path, CONFIG).close()


def test_child_that_outlives_a_killed_process_does_not_keep_the_lock(tmp_path):
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "forked\n"
        process.kill()
        process.wait()
        open_workdir(tmp_path, {"seed": 0}).close()  # the child ends when its stdin does, below


def test_killed_while_creating_does_not_block(tmp_path):
    (tmp_path / ".lock").write_text('{"pid": 1, "ho')
    (tmp_path / ".config.json.hpjax-tmp-77").write_text('{"se')
    with open_workdir(tmp_path, CONFIG) as opened:
        assert not opened.resumed
    assert not list(tmp_path.glob(".*tmp*"))


def test_failed_open_releases_the_lock(tmp_path):
    with pytest.raises(WorkdirError):
        open_workdir(tmp_path, CONFIG, "must")
    open_workdir(tmp_path, CONFIG).close()


def test_records_without_config_are_not_overwritten(tmp_path):
    (tmp_path / "history.jsonl").write_text("{}\n")
    with pytest.raises(
        WorkdirError, match=r"holds history.jsonl, which a sweep would overwrite, but no conf"
    ):
        open_workdir(tmp_path, CONFIG)


OTHERS = {
    "notes.txt": r"holds notes.txt but no config.json: choose a new or an empty folder",
    "trials.csv": r"holds trials.csv, which a sweep would overwrite, but no config.json",
    "study.journal": r"holds study.journal, which a sweep would overwrite",
    "figures/mine.png": r"holds figures, which a sweep would overwrite",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_folder_of_somebody_elses_is_refused_and_left_as_it_is(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(WorkdirError, match=OTHERS[name]):
        open_workdir(tmp_path, CONFIG)
    assert file.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == sorted({file, *file.parents} & set(tmp_path.rglob("*")))


def test_many_files_of_somebody_elses_are_counted(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(WorkdirError, match=r"holds 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more but no"):
        open_workdir(tmp_path, CONFIG)


def test_hidden_files_and_leftovers_of_other_programs_stay(tmp_path):
    (tmp_path / ".notes.tmp-77").write_text("theirs")
    (tmp_path / "lost+found").mkdir()
    open_workdir(tmp_path, CONFIG).close()
    assert (tmp_path / ".notes.tmp-77").read_text() == "theirs"


def _remove(path):
    shutil.rmtree(path)


def _move(path):
    path.rename(path.with_name("moved"))


def _replace(path):
    _move(path)
    path.mkdir()
    (path / ".lock").write_text("another's")
    (path / "study.journal").write_text("another's")


@pytest.mark.parametrize("change", [_remove, _move, _replace])
def test_nothing_is_written_to_a_workdir_that_went_away(tmp_path, change):
    path = tmp_path / "sweep"
    with (
        open_workdir(path, CONFIG),
        open_records(path) as records,
        PopulationCheckpoints(path / "p") as saved,
    ):
        config = parse_config({"sweep": {"space": {"learning_rate": (0.1, 0.2)}}})
        space, objective = parse_space(config.sweep.space), create_objective("auto", False)
        study = open_study(config, space, objective, path / "study.journal")
        records.start_trial(0, {}, seed=0)
        saved.save(1, {"a": np.ones(3)}, {}, block=True)
        change(path)
        before = _read_all(tmp_path)
        for write in (
            lambda: atomic_write(path / "trials.csv", "ours"),
            records.mark,
            records.write_tables,
            study.ask,
            study.mark,
            lambda: saved.save(2, {"a": np.ones(3)}, {}, block=True),
            lambda: saved.set_aside(1),
        ):
            with pytest.raises(WorkdirError, match="was removed, moved or replaced while the sweep ran"):
                write()
        assert _read_all(tmp_path) == before
        records._pending.clear()


def _read_all(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_start_before_anything_was_recorded_binds_to_no_config(tmp_path):
    open_workdir(tmp_path, CONFIG).close()
    (tmp_path / "history.jsonl").touch()
    (tmp_path / "checkpoints" / "population").mkdir(parents=True)
    with open_workdir(tmp_path, _changed(seed=1)) as opened:
        assert not opened.resumed
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    (tmp_path / "config.json").write_text('{"somebody": "else"}')
    with pytest.raises(WorkdirError, match="another program"):
        open_workdir(tmp_path, CONFIG)


def test_damaged_config_is_named(tmp_path):
    deep = ('{"a":' * 5000 + "1" + "}" * 5000, "[" * 200 + "]" * 200)
    for content in ("{", "[]", *deep, "\x00", "9" * 9999):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(WorkdirError, match=r"config.json is damaged"):
            open_workdir(tmp_path, CONFIG)


NAMES = ("config.json", ".lock", ".saved", "history.jsonl", "trials.csv", "identity.txt")


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_place_of_a_file_is_named(tmp_path, name):
    open_workdir(tmp_path, CONFIG).close()
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(WorkdirError, match=f"{name} is a named pipe, not a file: remove it, or choose"):
        open_workdir(tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/trials", "figures", "tensorboard"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, name):
    open_workdir(tmp_path, CONFIG).close()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(WorkdirError, match=f"{name} is a file, not a folder: remove it, or choose"):
        open_workdir(tmp_path, CONFIG)


def test_path_that_cannot_be_a_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(WorkdirError, match="link is a link that leads nowhere: choose a folder"):
        open_workdir(tmp_path / "link", CONFIG)
    for path in (
        Path("/dev/null"),
        tmp_path / "file",
        tmp_path / "file" / "below",
        "a\0b",
        tmp_path / ("n" * 300),
    ):
        with pytest.raises(WorkdirError, match="workdir") as caught:
            open_workdir(path, CONFIG)
        assert "\n" not in str(caught.value)


def test_atomic_write_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    atomic_write(tmp_path / "a", "old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WorkdirError, match="can't write .*folder"):
        atomic_write(tmp_path / "folder", "new")
    monkeypatch.setattr(workdir_module.os, "replace", _fail)
    with pytest.raises(WorkdirError, match="can't write .*a: No space left on device"):
        atomic_write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a", "folder"]


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user, which only root may")
def test_no_permission(tmp_path):
    script = (
        "import os, sys\nfrom hpjax.store.workdir import open_workdir\n"
        "from hpjax.errors import WorkdirError\n"
        "os.seteuid(65534)\n"
        "try:\n    open_workdir(sys.argv[1], {})\nexcept WorkdirError as error:\n    print(error)"
    )
    with tempfile.TemporaryDirectory() as owned_by_root:
        os.chmod(owned_by_root, 0o755)
        for path in ("/proc/new", "/usr/new", owned_by_root):
            done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
            assert done.stdout.startswith(("can't create workdir", "can't write"))
            assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("config", [{}, {"name": "another's"}])
def test_a_configuration_of_another_program_is_refused_and_left_alone(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkdirError, match="config.json of another program: choose a new or an empty folder"):
        open_workdir(tmp_path, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_a_lock_that_is_a_link_empties_nothing(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(WorkdirError, match=r"\.lock is a link: remove it, or choose another workdir"):
        open_workdir(tmp_path / "sweep", CONFIG)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("hard", [False, True])
def test_a_lock_of_another_program_is_refused_and_left_as_it_is(hard, tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "sweep").mkdir()
    lock = tmp_path / "sweep" / ".lock"
    lock.hardlink_to(tmp_path / "mine") if hard else lock.write_text("precious")
    for _ in range(2):
        with pytest.raises(WorkdirError, match=r"\.lock is another program's: choose another workdir"):
            open_workdir(tmp_path / "sweep", CONFIG)
    assert lock.read_text() == "precious"


def _save(workdir):
    Steps(workdir.path / "checkpoints", "step", 8, 1, max_to_keep=1).write(1, {"a": np.ones(3)}, {})


def _record_a_trial(workdir):
    with open_records(workdir.path) as records:
        records.start_trial(0, {"optimizer.learning_rate": 1e-3}, seed=0)
        records.mark()


def _append(workdir):
    journal = create_journal(workdir.path / JOURNAL_NAME, RunningMark())
    with writing(workdir.path / JOURNAL_NAME):
        for _ in range(2):
            journal.append_logs([{"op_code": 0}])


@pytest.mark.parametrize(
    ("function", "write"),
    [
        ("hpjax.store.steps.Steps._write", _save),
        ("hpjax.search.journal._catch_up", _append),
        ("os.replace", lambda workdir: atomic_write(workdir.path / "plan.json", "{}")),
        ("hpjax.store.records._write_all", _record_a_trial),
    ],
)
@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), None])
def test_a_workdir_that_goes_away_while_it_is_written(tmp_path, monkeypatch, function, write, fault):
    workdir = open_workdir(tmp_path / "sweep", CONFIG)
    module, name = pydoc.locate(function.rpartition(".")[0]), function.rpartition(".")[2]
    original = getattr(module, name)
    folders = ("step_00000007.orbax-checkpoint-tmp", "step_00000007", "removed", "room")
    theirs = sorted(workdir.path / "checkpoints" / folder / "file" for folder in folders)

    def go_away(*args):
        if not theirs[0].exists():
            workdir.path.rename(tmp_path / "moved")
            for file in theirs:
                file.parent.mkdir(parents=True)
                file.write_text("another's")
        if fault is not None:
            raise fault
        return original(*args)

    monkeypatch.setattr(module, name, go_away)
    with pytest.raises(WorkdirError, match="was removed, moved or replaced"):
        write(workdir)
    assert sorted(file for file in workdir.path.rglob("*") if file.is_file()) == theirs
    workdir.close()
