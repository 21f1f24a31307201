"""The command line: what reaches the sweep, and one line with status 2 for every misuse."""

import importlib
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from hpjax.cli.arguments import parse_arguments
from hpjax.config.fields import FIELDS, PbtOptions
from hpjax.config.rules import list_fields
from hpjax.errors import DeviceError, HpjaxError
from hpjax.main import main
from hpjax.search.space import parse_space
from hpjax.sweep.preflight import check_config
from hpjax.trained import load
from hpjax.trained.load import load_trial

ROOT = Path(__file__).parents[2]
CONFIG = f"--config={ROOT}/configs/wd.py"
NOTHING = 77  # seed of a sweep in which every trial diverges


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """Stands in for the sweep; notes how it was called."""
    package, calls = importlib.import_module("hpjax.sweep"), []

    def run_sweep(config, workdir, resume, progress):
        calls.append((config, workdir, resume, progress))
        best, standings = None if config.seed == NOTHING else 0, ["the best of 2 settings:", "  1.  0.9"]
        return types.SimpleNamespace(
            workdir=tmp_path,
            outcome="best: trial 0",
            best=best,
            standings=standings,
            diagnosis=[],
            summary={"wall_seconds": 9.0, "planned_seconds": 7.0},
        )

    monkeypatch.setattr(package, "run_sweep", run_sweep)
    monkeypatch.setattr(package, "plan_sweep", lambda config, progress: "the plan")
    monkeypatch.setattr(package, "calls", calls, raising=False)
    return package


def _write(folder, text):
    path = folder / "mine.py"
    path.write_text(text)
    return path


def _run(*args, **kwargs):
    command = [sys.executable, "-m", "hpjax.main", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, **kwargs)


def test_a_sweep_is_run_and_its_results_are_pointed_out(sweep, tmp_path, capsys):
    assert main(["main", CONFIG]) == 0
    config, workdir, resume, progress = sweep.calls[0]
    assert (workdir, resume, progress) == ("runs/wd", "auto", True)
    assert config.sweep.space == {"weight_decay": (0.01, 1.0)}
    out = capsys.readouterr().out
    assert f"{tmp_path}/trials.csv" in out and f"{tmp_path}/figures/" in out
    assert "\ntime         9 s; its plan said 7 s\n" in out
    assert out.endswith("\nthe best of 2 settings:\n  1.  0.9\nbest: trial 0\n")


@pytest.mark.parametrize("installed", [True, False])
def test_tensorboard_is_named_where_it_is_installed(sweep, tmp_path, capsys, monkeypatch, installed):
    (tmp_path / "tensorboard").mkdir()
    find = lambda name: name if installed else None  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert main(["main", CONFIG]) == 0
    shown = f"curves       tensorboard --logdir={tmp_path}/tensorboard\n"
    missing = f"curves       {tmp_path}/tensorboard/  (pip install tensorboard)\n"
    assert (shown if installed else missing) in capsys.readouterr().out


def test_a_sweep_in_which_every_trial_diverges_has_a_status_of_its_own(sweep):
    assert main(["main", CONFIG, f"--config.seed={NOTHING}"]) == 3


@pytest.mark.parametrize("place", ["~", "$PLACE", "${PLACE}"])
def test_paths_may_begin_with_a_tilde_or_a_variable(place, tmp_path, monkeypatch):
    """Behind a `=` few shells replace them."""
    for name in ("HOME", "PLACE"):
        monkeypatch.setenv(name, str(tmp_path))
    text = Path(CONFIG.partition("=")[2]).read_text("utf-8")
    _write(tmp_path, text)
    flags = [f"--config={place}/mine.py", f"--workdir={place}/wd", f"--config.data.dir={place}/images"]
    arguments = parse_arguments(["main", *flags, f"--config.model.pretrained={place}/w.safetensors"])
    assert arguments.workdir == f"{tmp_path}/wd" and arguments.config.data.dir == f"{tmp_path}/images"
    assert arguments.config.model.pretrained == f"{tmp_path}/w.safetensors"
    assert parse_arguments(["main", flags[0]]).workdir == "runs/mine"


def test_a_plan_is_printed_and_nothing_is_run(sweep, capsys):
    assert main(["main", CONFIG, "--plan"]) == 0
    assert capsys.readouterr().out == "the plan\n" and not sweep.calls


def test_the_full_help_has_every_field_and_choice_with_its_documentation(capsys):
    assert main(["main", "--helpfull"]) == 0
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert text.startswith("usage:") and max(map(len, text.splitlines())) <= 100
    options = {f"sweep.pbt.{name}": field for name, field in list_fields(PbtOptions).items()}
    for key, field in (FIELDS | options).items():
        rule = field.rule
        documented = [
            rule.doc,
            *rule.choices,
            *rule.choices.values(),
            *(text for form in rule.forms for text in form[::2]),
        ]
        documented += [check.allowed for check in (rule.check, rule.each) if check]
        place = words.rindex(f"--config.{key}=")  # the usage has an example of one
        entry = words[
            place : words.find("--config.", place + 1) if "--config." in words[place + 1 :] else None
        ]
        assert all(word in entry for word in documented), key
        assert not field.axis or f"--space={field.axis}" in entry


def test_the_full_help_needs_no_jax():
    code = "import sys; from hpjax.main import main; main(['', '--helpfull']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_help_is_short(capsys):
    assert main(["main", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--config", "--space", "--workdir", "--resume", "--plan"))
    assert len(out.splitlines()) < 25


def test_fields_flags_and_space_reach_the_sweep():
    arguments = parse_arguments(
        [
            "main",
            CONFIG,
            "--config.optimizer.learning_rate=1",
            "--config.model.kernel_widths=(3,3,3)",
            "--config.lanes.tune",
            "--config.train.epochs",
            "3",
            "--config.sweep.pbt.every_epochs=2",
            "--space=learning_rate=1e-5:1e-1:log",
            "--space=batch_size=8,16",
            "--config.sweep.sampler=random",
            "--config.sweep.trials=4",
            "--workdir=/somewhere",
            "--resume=must",
            "--plan",
            "--for=h100",
        ]
    )
    config = arguments.config
    assert (config.optimizer.learning_rate, config.model.kernel_widths) == (1.0, (3, 3, 3))
    assert (config.lanes.tune, config.train.epochs, config.sweep.pbt) == (True, 3, {"every_epochs": 2})
    assert list(config.sweep.space) == ["learning_rate", "batch_size"]
    assert (arguments.workdir, arguments.resume, arguments.plan) == ("/somewhere", "must", True)
    assert arguments.plan_for == "h100"


def test_a_config_file_may_return_a_plain_dict(tmp_path):
    path = _write(tmp_path, "def get_config():\n    return {'train': {'epochs': 2}}\n")
    arguments = parse_arguments(["main", f"--config={path}", "--space=weight_decay=0.1"])
    assert arguments.config.train.epochs == 2 and arguments.workdir == "runs/mine"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "--config is missing"),
        (["--config=none.py"], "none.py"),
        (["--config="], "get_config"),
        (["--config=/"], "directory"),
        (["--config=" + 300 * "x"], "too long"),
        ([CONFIG, f"--flagfile={sys.executable}"], "--flagfile can't be read"),
        ([CONFIG, "--launcher=ray", "--ray_deadline=nan"], "--ray_deadline=nan is not allowed"),
        ([CONFIG, "--launcher=ray", "--ray_deadline=inf"], "1 to 86400"),
        ([CONFIG, "--ray_deadline=60"], "expected --launcher=ray --ray_deadline="),
        (["--config"], "--config"),
        ([CONFIG, "--foo"], "foo"),
        ([CONFIG, "--spaces=a=1"], "Did you mean: space"),
        ([CONFIG, "word"], "'word'"),
        ([CONFIG, "--resume=maybe"], "auto|never|must"),
        ([CONFIG, "--workdir=a\nb"], "--workdir"),
        ([CONFIG, "--plan=perhaps"], "plan"),
        ([CONFIG, "--for=h200"], "--for=h200 is not allowed alone: expected --plan --for=h200"),
        ([CONFIG, "--plan", "--for=tpu"], "a100|h100|h200"),
        ([CONFIG, "--flagfile=none"], "flagfile"),
        ([CONFIG, "--config.optimizer.learningrate=1"], "did you mean optimizer.learning_rate?"),
        ([CONFIG, "--config.optimzer.name=sgd"], "did you mean optimizer?"),
        ([CONFIG, "--config.zzz.a.b=1"], "zzz.a.b='1'"),
        ([CONFIG, "--config.model.name.a=1"], "model.name is one value"),
        ([CONFIG, "--config.=1"], "seed"),
        (
            [CONFIG, "--config.optimizer.learning_rate=fast"],
            "learning_rate='fast' is not allowed: expected a finite",
        ),
        ([CONFIG, "--config.optimizer.learning_rate=nan"], "optimizer.learning_rate=nan"),
        ([CONFIG, "--config.optimizer.learning_rate=-1"], "a number greater than 0"),
        ([CONFIG, "--config.train.epochs=1.5"], "train.epochs='1.5' is not allowed: expected a whole number"),
        ([CONFIG, "--config.train.epochs=0"], "train.epochs=0"),
        ([CONFIG, "--config.model.kernel_widths=(3,,"], "model.kernel_widths"),
        ([CONFIG, "--config.model.kernel_widths=(0,3,3)"], "three whole numbers"),
        ([CONFIG, "--config.lanes.tune=perhaps"], "true or false"),
        ([CONFIG, "--config.optimizer=3"], "optimizer"),
        ([CONFIG, "--config.data.name=mnist"], "synthetic_scenes"),
        ([CONFIG, "--config.sweep.space.weight_decay=()"], "at least one value"),
        ([CONFIG, "--space=weight_decay="], "NAME=a,b"),
        ([CONFIG, "--space=zzz=1"], "learning_rate"),
        ([CONFIG, "--space=weight_decay=a"], "numbers"),
        ([CONFIG, "--space=wieght_decay=1"], "did you mean weight_decay?"),
        ([CONFIG, "--space=seed=0,0"], "expected different whole numbers"),
        ([CONFIG, "--space=seed=0,1", "--config.sweep.seeds=2"], "nothing beside sweep.space.seed"),
        ([CONFIG, "--space=weight_decay=1:2:lg"], "expected log or a step"),
        ([CONFIG, "--space=batch_size=8:16:2.5"], "expected log or a step (one of the whole numbers)"),
        ([CONFIG, "--space=weight_decay=1", "--space=weight_decay=0.1"], "weight_decay once"),
        ([CONFIG, "--config.sweep.space.weight_decay.low=1"], "weight_decay is (0.01, 1.0) in the config"),
        ([CONFIG, "--lr=0.1"], "--lr is no flag; did you mean --config.optimizer.learning_rate=…?"),
        ([CONFIG, "--noconfig.seed"], "--noconfig.seed"),
        ([CONFIG, "--noplan=3"], "--noplan=3 does not take an argument"),
        ([CONFIG, "--config.train.epochs"], "--config.train.epochs has no value"),
    ],
)
def test_a_misuse_is_one_line_and_status_2(args, expected, sweep, capsys):
    assert main(["main", *args]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("hpjax: error: ") and err.count("\n") == 1
    assert expected in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError"),
        ("x = 1\n", "get_config"),
        ("def get_config():\n    return 3\n", "is not allowed: expected"),
        ("def get_config():\n    x = 1\n    return x / 0\n", "line 3: ZeroDivisionError"),
        ("def get_config():\n    return {'zzz': 1}\n", "is not allowed: expected"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("import sys\ndef get_config():\n    sys.exit('no')\n", "line 3: SystemExit: no"),
        (
            "def get_config():\n    a = {}\n    a['a'] = a\n    return {'sweep': a}\n",
            "is not allowed: expected",
        ),
        ("def get_config():\n    return {'sweep': {'trials': 10**5000}}\n", "is not allowed: expected"),
        (
            "from hpjax.config import get_default\n"
            "def get_config():\n    c = get_default()\n    c.seed = 'a'\n    return c\n",
            "line 4: TypeError",
        ),
    ],
)
@pytest.mark.parametrize("more", [[], ["--config.train.epochs=3"], ["--space=weight_decay=1"]])
def test_a_config_file_that_fails_is_one_line_and_status_2(text, expected, more, sweep, tmp_path, capsys):
    assert main(["main", f"--config={_write(tmp_path, text)}", *more]) == 2
    err = capsys.readouterr().err
    assert err.startswith("hpjax: error: ") and err.count("\n") == 1
    assert expected in err


def test_what_the_sweep_refuses_is_status_2(sweep, capsys):
    def refuse(*args, **kwargs):
        raise HpjaxError("the folder is in use")

    sweep.run_sweep = refuse
    assert main(["main", CONFIG]) == 2
    assert capsys.readouterr().err == "hpjax: error: the folder is in use\n"


def test_a_misuse_in_a_process_of_its_own():
    done = _run(CONFIG, "--config.optimizer.lr=3")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_defect_is_status_1_with_a_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types; sys.modules['hpjax.sweep.run'] = types.ModuleType('x')"
    )
    done = _run(CONFIG, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and "Traceback" in done.stderr and not done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_sweep_has_begun(number, tmp_path):
    # A shell starts what it puts into the background with SIGINT ignored.
    head = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    body = f"def get_config():\n    os.kill(os.getpid(), {int(number)})\n    return {{}}\n"
    path = _write(tmp_path, head + body)
    done = _run(f"--config={path}")
    assert (done.returncode, done.stderr) == (128 + number, "hpjax: interrupted\n")


def test_the_restart_for_huge_pages_keeps_the_arguments():
    environment = {name: value for name, value in os.environ.items() if name != "HPJAX_NO_REEXEC"}
    done = _run("--help", env=environment | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0 and done.stdout.startswith("usage:")


def test_a_locale_without_our_characters_ends_nothing():
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    done = _run("--helpfull", env=os.environ | ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii() and "[--config.SECTION.FIELD=VALUE ...] [options]" in done.stdout


FLAGS = [
    "--config.sweep.space.weight_decay=(-1.0,)",
    "--config.optimizer.learning_rate=-1",
    "--config.sweep.pruner=asha",
    "--config.optimizer.lr=1",
    "--config.learning_rate=1",
    "--config.train.wd=1",
    "--config.model=resnet18",
    "--space=batch_size=8:4",
    "--space=batch_size=8:16:100",
    "--space=optimizer=sgdm",
    "--space=lr=0.1",
]


@pytest.mark.parametrize("flag", FLAGS)
def test_an_error_names_the_flag_as_it_is_typed(flag, monkeypatch, capsys):
    package = importlib.import_module("hpjax.sweep")
    monkeypatch.setattr(package, "run_sweep", lambda config, *_, **__: parse_space(config.sweep.space))
    assert main(["main", CONFIG, flag]) == 2
    name, _, value = flag.partition("=")
    said = capsys.readouterr().err
    assert said.startswith(f"hpjax: error: {name}")
    assert value.strip("()") in said or value.strip("()-,") in said


QUEUED = """
def get_config():
    return {"sweep": {"space": {"momentum": (0.1, 0.2)}, "enqueue": ({"momentum": 0.1},)}}
"""


def test_a_queued_setting_outside_the_new_space_is_answered_with_the_cure(monkeypatch, tmp_path, capsys):
    package, flags = importlib.import_module("hpjax.sweep"), ["--space=learning_rate=0.1"]
    monkeypatch.setattr(package, "run_sweep", lambda config, *_, **__: check_config(config))
    command = ["main", f"--config={_write(tmp_path, QUEUED)}", *flags]
    assert main(command) == 2
    assert "--config.sweep.enqueue= leaves out" in capsys.readouterr().err
    monkeypatch.setattr(package, "run_sweep", lambda config, *_, **__: _raise(HpjaxError(str(config.sweep))))
    assert main([*command, "--config.sweep.enqueue="]) == 2
    assert "enqueue=()" in capsys.readouterr().err


def _raise(error):
    raise error


def test_the_package_is_light_and_its_names_are_lazy():
    code = "import sys, hpjax; assert 'jax' not in sys.modules; hpjax.run_sweep; assert 'jax' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_package_lists_its_names_and_has_each():
    import hpjax

    assert {"run_sweep", "plan_sweep", "load_result", "load_trial", "to_torch"} <= set(dir(hpjax))
    assert all(getattr(hpjax, name) is not None for name in hpjax.__all__)


@pytest.mark.parametrize("told", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_said_in_one_line(tmp_path, told):
    workdir = f"--workdir={tmp_path / 'w'}"
    flags = ("--config=configs/wd.py", workdir, "--config.data.name=synthetic_scenes")
    done = _run(*flags, env={**os.environ, "JAX_PLATFORMS": told})
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "JAX_PLATFORMS" in line)
    assert f"JAX_PLATFORMS={told}: jax finds no such device here" in line
    assert "Traceback" not in done.stderr and not (tmp_path / "w").exists()


def test_a_trained_model_needs_a_device_too(monkeypatch, tmp_path):
    """Not its checkpoint is at fault."""
    monkeypatch.setattr(load, "find_trial", lambda *_: types.SimpleNamespace(trial=0))
    monkeypatch.setattr(jax, "devices", _no_device)
    with pytest.raises(DeviceError, match=r"^JAX_PLATFORMS=cpu: jax finds no such device here$"):
        load_trial(tmp_path, "best")


def _no_device():
    raise AssertionError
