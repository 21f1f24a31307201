"""The code that the README shows runs as it is shown."""

import re
from pathlib import Path

import pytest

from hpjax.config import parse_config
from hpjax.sweep import run_sweep

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
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


def test_every_config_that_is_named_exists():
    for name in re.findall(r"configs/\w+\.py", README):
        assert (Path(__file__).parents[1] / name).is_file(), name
    for link in re.findall(r"\]\(([\w./]+)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
