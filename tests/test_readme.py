"""The code that the README shows runs as it is shown, and what it names exists."""

import importlib
import os
import re
import shlex
from pathlib import Path

import pytest

import hpjax
from hpjax.cli.arguments import parse_arguments
from hpjax.config import parse_config
from hpjax.config.fields import FIELDS
from hpjax.sweep import run_sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FILES = {name: text for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, re.DOTALL)}


@pytest.fixture
def files(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_model_and_a_metric_of_ones_own(files):
    data = {"name": "synthetic_scenes", "image_size": 24, "max_train_examples": 60, "max_test_examples": 24}
    config = parse_config(
        {
            "model": {"name": f"{files}/mynet.py:MyNet"},
            "data": data,
            "train": {"batch_size": 15, "epochs": 2},
            "sweep": {
                "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
                "sampler": "tpe",
                "trials": 3,
                "metric": f"{files}/mymetric.py:cautious",
            },
            "lanes": {"count": 2, "strategy": "fused"},
        }
    )
    result = run_sweep(config, files / "run")
    assert [t.status for t in result.trials] == ["complete"] * 3
    assert all(e.validation_loss is not None and e.test_loss is None for e in result.epochs)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_every_config_and_page_that_is_named_exists(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / name).is_file(), name
    for link in re.findall(r"\]\(([\w./]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / link).exists(), link


def test_the_readme_is_short():
    assert README.count("\n") < 130


PAGES = [
    README,
    *((ROOT / "docs" / name).read_text("utf-8") for name in sorted(os.listdir(ROOT / "docs")) if "." in name),
]
COMMANDS = [
    line.replace("\\\n", " ")
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    for line in re.findall(r"^(?:.*\\\n)*.*$", block, re.MULTILINE)
    if "hpjax.main" in line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)
    arguments = parse_arguments(words[words.index("hpjax.main") :])
    assert arguments.workdir


def test_every_field_that_is_named_exists():
    sections = "|".join({key.split(".")[0] for key in FIELDS if "." in key})
    elsewhere = {f"model.{suffix}" for suffix in ("safetensors", "json", "onnx")}  # names of files
    for page in PAGES:
        named = set(
            map("".join, re.findall(rf"--config\.([\w.]+)=|`(?:config\.)?((?:{sections})\.\w+)[`=.]", page))
        )
        if page.startswith("# Options of a model"):
            named = {key for key in named if not key.startswith("model.")}  # those of a class, as axes
        of_dicts = {
            key for key in named if (field := FIELDS.get(key.rpartition(".")[0])) and field.type is dict
        }
        assert named - elsewhere - of_dicts <= {*FIELDS, "sweep.space"}


def test_what_is_called_from_python_exists():
    for name in re.findall(r"`?hpjax\.(\w+)\(", README):
        assert callable(getattr(hpjax, name)), name
    for module, name in re.findall(r"from (hpjax[\w.]*) import (\w+)", README):
        assert hasattr(importlib.import_module(module), name), name
    for variable in re.findall(r"HPJAX_\w+", "".join(PAGES)):
        assert any(variable in file.read_text("utf-8") for file in (ROOT / "hpjax").rglob("*.py")), variable


def test_every_sampler_and_pruner_is_listed_as_it_is_called():
    listed = re.search(r"`sweep\.sampler` is ([\w, ]+) or (\w+);", README)
    assert listed and {*listed[1].split(", "), listed[2]} == set(FIELDS["sweep.sampler"].rule.choices)
    listed = re.search(r"`sweep\.pruner` one of Optuna's \(([\w, ]+)\)", README)
    assert listed and {*listed[1].split(", "), "none"} == set(FIELDS["sweep.pruner"].rule.choices)
