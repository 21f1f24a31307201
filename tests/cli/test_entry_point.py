"""The command `hpjax`, from a checkout and from a wheel in an environment of its own."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from PIL import Image

import hpjax
from hpjax.__main__ import COMMANDS, main
from hpjax.data import synthetic

# Of what pip notes in the home for later, nothing.
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir")
ROOT = Path(__file__).parents[2]
CONFIG = """
model: {kernel_widths: [3, 3, 3]}
data: {name: synthetic_scenes, image_size: 30, max_train_examples: 60, max_test_examples: 24}
train: {epochs: 1, batch_size: 20}
sweep: {space: {learning_rate: [0.001, 0.003]}}
"""


def test_every_command_is_a_module_and_is_listed(capsys):
    assert main(["hpjax"]) == 0
    listed = capsys.readouterr().out
    for name, (module, text) in COMMANDS.items():
        place = ROOT.joinpath(*module.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
        assert re.search(rf"^  {name} +{re.escape(text)}$", listed, re.MULTILINE)


def test_commands_get_their_arguments_and_give_their_status():
    def run(*arguments):
        done = subprocess.run([sys.executable, "-m", "hpjax", *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert run("exprot") == (
        2,
        "",
        f"hpjax: error: hpjax has no command 'exprot': expected {_names()}; {_meant()}\n",
    )
    status, out, err = run("predict", "--help")
    assert (status, err) == (0, "") and out.startswith("usage: python -m hpjax.predict")
    status, out, err = run("export", "--workdir=x", "--trial=y", "--out=z")
    assert (status, out) == (2, "") and "--trial='y' is not allowed" in err and err.count("\n") == 1


def _names():
    return ", ".join(COMMANDS)


def _meant():
    return "did you mean export?"


def test_the_license_is_in_every_package():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and len(text.splitlines()) == 202


def test_the_version_is_the_same_wherever_it_stands():
    for file, line in (("CITATION.cff", "version: {}"), ("pyproject.toml", 'version = "{}"')):
        assert line.format(hpjax.__version__) in (ROOT / file).read_text("utf-8").splitlines()


def test_a_wheel_brings_the_experiments(tmp_path):
    """Built with the setuptools that is here and unpacked as pip does it, without any network."""
    found = [d.version for d in importlib.metadata.distributions(name="setuptools")]
    if not found or int(found[0].split(".")[0]) < 77:
        pytest.skip("is built with setuptools 77 or newer")
    wheel = _build(tmp_path / "source", "--no-build-isolation")
    command = [sys.executable, *PIP, "install", "--no-deps", "--no-index", "--no-compile"]
    # Else pip takes the one that is tested out of its environment.
    command += ["--ignore-installed", f"--prefix={tmp_path / 'there'}"]
    before = {str(found.locate_file("")) for found in importlib.metadata.distributions(name="hpjax")}
    subprocess.run([*command, wheel], check=True)
    assert {str(found.locate_file("")) for found in importlib.metadata.distributions(name="hpjax")} == before
    (packages,) = (tmp_path / "there").glob("lib*/python*/site-packages")
    assert not (packages / "configs").exists()  # a name that anyone may have
    code = (
        "import hpjax, sys; from hpjax.cli.arguments import parse_arguments as parse\n"
        "for name in ('wd', 'pbt', 'asha.py', 'configs/lr.py'):\n"
        "    found = parse(['hpjax', f'--config={name}'])\n"
        "    print(found.workdir, *found.config.sweep.space)\n"
        "print(hpjax.__file__)"
    )
    environment = {"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    *found, place = done.stdout.splitlines()
    assert found[0] == "runs/wd weight_decay" and found[3] == "runs/lr learning_rate", done.stderr
    assert len(found) == 4 and place.startswith(str(packages))


@pytest.mark.exhaustive
def test_a_wheel_in_an_environment_of_its_own_runs_every_command(tmp_path):
    """From a folder that has nothing to do with the checkout; pip fetches what the wheel depends on."""
    place = _install(_build(tmp_path / "source"), tmp_path / "environment")
    work = tmp_path / "work"
    work.mkdir()
    (work / "sweep.yaml").write_text(CONFIG)
    image, label = synthetic.draw_scenes(1, 30, seed=3)
    folder = work / "photos" / synthetic.CLASSES[label[0]]
    folder.mkdir(parents=True)
    Image.fromarray(image[0]).save(folder / "one.png")

    def run(*arguments):
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        environment |= {"HPJAX_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [place / "hpjax", *arguments], cwd=work, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version").strip() == "0.1.0"
    run("main", "--config=wd", "--plan", "--config.data.image_size=38")
    assert "best: trial" in run("main", "--config=sweep.yaml", "--workdir=runs/mine")
    assert "agrees" in run("replay", "--workdir=runs/mine", "--trial=1")
    assert "model.onnx" in run("export", "--workdir=runs/mine", "--out=model")
    assert (work / "model" / "model.onnx").is_file()
    for model in ("model", "runs/mine:0"):
        assert "accuracy" in run("predict", f"--model={model}", "photos", "--csv=answers.csv")
    run("prepare", "--help")
    run("allocator")
    assert {"LICENSE"} <= {file.name for file in (tmp_path / "environment").rglob("hpjax-*/licenses/*")}
    assert not (tmp_path / "environment").joinpath("hpjax").exists()


def _build(source, *options):
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, source)
    for name in ("hpjax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", "dist"]
    subprocess.run([*command, *options, "."], cwd=source, check=True)
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


def _install(wheel, folder):
    """Returns the folder of the programs of an environment with a wheel in it."""
    venv.create(folder, with_pip=True)
    constraints = ROOT / "constraints.txt"
    command = [folder / "bin" / "python", *PIP, "install", "-c", constraints, f"{wheel}[onnx]"]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "bin"
