"""What a page of the documentation shows runs as it is shown."""

import re
import shlex
from pathlib import Path

import pytest

from hpjax.cli.arguments import parse_arguments
from hpjax.config import get_default, parse_config, to_dict
from hpjax.models.options import list_options
from hpjax.models.registry import find_model_class
from hpjax.sweep import plan_sweep, run_sweep

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text("utf-8")
DATA = {"name": "synthetic_scenes", "image_size": 12, "max_train_examples": 24, "max_test_examples": 12}


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Returns the command's arguments, beside the model that the page shows."""
    (code,) = re.findall(r"```python\n# blocknet.py\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "blocknet.py").write_text(code, "utf-8")
    (shown,) = re.findall(r"python -m hpjax.main (.*?)\n```", PAGE, re.DOTALL)
    arguments = parse_arguments(["hpjax", *shlex.split(shown.replace("\\\n", " "))])
    monkeypatch.chdir(tmp_path)
    return to_dict(arguments.config)


@pytest.mark.usefixtures("promotion_as_users_have_it")
@pytest.mark.landing
def test_the_model_is_planned_as_the_page_says(command):
    command |= {"data": DATA, "lanes": {"strategy": "fused"}}
    plan = plan_sweep(parse_config(command))
    assert [(group.trials, group.lanes) for group in plan.groups] == [(3, 3)] * 4


@pytest.mark.usefixtures("promotion_as_users_have_it")
def test_the_model_trains(command, tmp_path):
    command["sweep"]["space"] = {"model.drop_path": (0.0, 0.5)}
    command |= {"data": DATA, "lanes": {"count": 1}, "train": {"batch_size": 12, "epochs": 1}, "trackers": ()}
    result = run_sweep(parse_config(command), tmp_path / "run")
    assert len({trial.final_train_loss for trial in result.trials}) == 2


def test_a_config_file_may_say_what_the_page_says():
    (lines,) = re.findall(r"```python\n(config\..*?)```", PAGE, re.DOTALL)
    config = get_default()
    exec(lines, {"config": config})
    parsed = parse_config(config)
    assert parsed.model.options == {"width": 32}
    assert sorted(parsed.sweep.space) == ["model.dropout", "model.width"]
    config.sweep.space = {"model.width": (1, 2)}
    assert parse_config(config).sweep.space == {"model.width": (1, 2)}


@pytest.mark.parametrize("name", ["custom_cnn", "resnet18", "resnet34"])
def test_every_option_of_a_built_in_network_is_listed(name):
    (table,) = re.findall(r"(\| network \|.*?)\n\n", PAGE, re.DOTALL)
    rows = re.split(rf"\n\| (?=[^|]*`{name}`)", table)[1].split("\n| `")[0]
    listed = {option for row in rows.split("\n") for option in re.findall(r"`(\w+)`", row.split("|")[-4])}
    assert listed == set(list_options(find_model_class(name)))
