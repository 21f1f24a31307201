"""Configurations in Python, with neighbours, as YAML and as JSON give the same; whatever else is one line."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpjax.cli.arguments import parse_arguments
from hpjax.cli.config_file import load_config_file
from hpjax.config import parse_config
from hpjax.errors import HpjaxError, UsageError

HEAD = """
import numpy as np
from ml_collections import FrozenConfigDict
from hpjax.config import get_default, parse_config
"""
BODY = """
def get_config():
    config = get_default()
    config.optimizer.learning_rate = {rate}
    config.train.epochs = {epochs}
    config.model.kernel_widths = {widths}
    config.sweep.space.weight_decay = {choices}
    config.sweep.space.batch_size = {sizes}
    return {wrapped}
"""
SAME = {"rate": "0.1", "epochs": "3", "widths": "(3, 5, 7)", "choices": "(0.1, 0.2)", "sizes": "(4, 8)"}
OTHERS = {
    "rate": ["np.float32(0.1)", "np.float64(0.1)", "np.array(0.1)"],
    "epochs": ["np.int64(3)", "np.uint8(3)", "np.array(3)"],
    "widths": ["[3, 5, 7]", "range(3, 8, 2)", "np.array([3, 5, 7])", "(np.int32(3), 5, 7)"],
    "choices": ["[0.1, 0.2]", "np.array([0.1, 0.2], np.float32)", "np.linspace(0.1, 0.2, 2)"],
    "sizes": ["range(4, 9, 4)", "np.arange(4, 9, 4)", "(np.int64(4), np.int64(8))"],
    "wrapped": ["FrozenConfigDict(config)", "config.to_dict()", "parse_config(config)"],
}


def _parse(folder, text, name="mine.py", *flags):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return parse_arguments(["main", f"--config={path}", *flags]).config


def _python(**changed):
    return HEAD + BODY.format(**{**SAME, "wrapped": "config", **changed})


@pytest.mark.parametrize(("part", "other"), [(part, other) for part in OTHERS for other in OTHERS[part]])
def test_values_of_numpy_ranges_and_frozen_configs_are_taken(part, other, tmp_path):
    expected = _parse(tmp_path, _python())
    assert _parse(tmp_path, _python(**{part: other})) == expected
    assert _parse(tmp_path, _python(**{part: other}), "mine.py", "--config.seed=3").seed == 3


@given(st.integers(1, 9), st.floats(1e-6, 1e3))
def test_a_scalar_of_any_kind_is_the_number_that_it_shows(whole, number):
    for kind in (np.int8, np.uint16, np.int64):
        assert parse_config({"train": {"epochs": kind(whole)}}).train.epochs == whole
    for kind in (np.float16, np.float32, np.float64):
        shown = float(str(kind(number)))
        taken = parse_config({"optimizer": {"learning_rate": kind(number)}}).optimizer.learning_rate
        assert taken == shown


@pytest.mark.parametrize(
    "value", ["np.array([1, 2])", "np.array('a')", "1 + 2j", "np.float64('nan')", "range(3)"]
)
def test_what_is_no_number_is_still_refused(value, tmp_path):
    with pytest.raises(HpjaxError, match="epochs|line 7"):
        _parse(tmp_path, _python(epochs=value))


def test_a_config_imports_its_neighbour(tmp_path):
    (tmp_path / "its_neighbour.py").write_text("RATE = 0.25\n")
    text = (
        "from its_neighbour import RATE\n"
        "def get_config():\n    import its_neighbour\n"
        "    return {'optimizer': {'learning_rate': its_neighbour.RATE}}\n"
    )
    assert _parse(tmp_path, text).optimizer.learning_rate == 0.25


def test_a_config_takes_an_argument(tmp_path):
    text = "def get_config(rate):\n    return {'optimizer': {'learning_rate': float(rate)}}\n"
    (tmp_path / "with:colon.py").write_text(
        text.replace("get_config(rate)", "get_config(rate=2)"), encoding="utf-8"
    )
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    for name, expected in (("mine.py:0.5", 0.5), ("with:colon.py", 2.0)):
        arguments = parse_arguments(["main", f"--config={tmp_path}/{name}"])
        assert arguments.config.optimizer.learning_rate == expected


FIELDS = {"optimizer": {"learning_rate": 1e-4}, "sweep": {"space": {"weight_decay": [1e-5, 0.1]}}}
YAML = """
# a comment
optimizer: {learning_rate: 1e-4}
sweep:
  space:
    weight_decay: [1e-5, 0.1]
"""


@pytest.mark.parametrize("name", ["mine.yaml", "mine.YML", "mine.json"])
def test_yaml_and_json_hold_fields_by_name(name, tmp_path):
    text = json.dumps(FIELDS) if name.endswith("json") else YAML
    config = _parse(tmp_path, text, name, "--config.train.epochs=3", "--space=b1=0.5")
    assert (config.optimizer.learning_rate, config.train.epochs) == (1e-4, 3)
    assert config.sweep.space == {"b1": (0.5,)}
    assert _parse(tmp_path, text, name).sweep.space == {"weight_decay": (1e-5, 0.1)}


def test_an_empty_yaml_file_changes_nothing(tmp_path):
    assert _parse(tmp_path, "# nothing\n", "mine.yaml") == parse_config({})


BAD = {
    "mine.yaml": ["a: [", "- 1\n- 2\n", "3", "a: b: c", "\tx",
                  "zzz: 1", "optimizer: 3", "!!python/object:os.x {}"],
    "mine.json": ["", "{", "[1]", "3", '{"zzz": 1}', "[" * 100_000, '{"train": {"epochs": 1e999}}', "\x00"],
    "mine.py": ["x = 1", "get_config = 3", "def get_config():\n    return 3\n",
                "\x00", "def get_config(): 0"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_file_that_is_no_config_is_one_line(name, text, tmp_path):
    with pytest.raises(HpjaxError) as caught:
        _parse(tmp_path, text, name)
    said = str(caught.value)
    assert said.isprintable() and 20 < len(said) < 1_200


@given(st.binary(max_size=40), st.sampled_from(["py", "yaml", "json"]))
def test_any_content_is_a_config_or_one_line(tmp_path_factory, content, kind):
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    path.write_bytes(content)
    try:
        parse_arguments(["main", f"--config={path}"])
    except HpjaxError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("name", ["wd", "wd.py", "configs/wd.py"])
def test_the_experiments_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = parse_arguments(["main", f"--config={name}"])
    assert found.workdir == "runs/wd" and list(found.config.sweep.space) == ["weight_decay"]


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wd.py").write_text(_python(epochs="7"), encoding="utf-8")
    assert parse_arguments(["main", "--config=wd.py"]).config.train.epochs == 7


@pytest.mark.parametrize("name", ["wdd", "other/wd.py", "wd.yaml", "../configs/wd.py", "configs"])
def test_no_other_name_is_one_of_the_experiments(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HpjaxError, match="--config=") as error:
        parse_arguments(["main", f"--config={name}"])
    assert "\n" not in str(error.value)
    assert ("or one of asha, batch_size" in str(error.value)) == ("." not in name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "train: {epochs: 2}\ntrain: {batch_size: 8}\n"),
        ("c.yml", "train:\n  epochs: 2\n  epochs: 3\n"),
        ("c.json", '{"train": {"epochs": 2}, "train": {"batch_size": 8}}'),
    ],
)
def test_what_stands_there_twice_is_refused(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=r"(train|epochs) stands there twice"):
        load_config_file(str(tmp_path / name))


def test_a_yaml_file_may_merge_what_it_named(tmp_path):
    merged = "model: &m {name: custom_cnn}\ndata:\n  <<: *m\n  name: digits\n"
    (tmp_path / "c.yaml").write_text(merged)
    assert load_config_file(str(tmp_path / "c.yaml"))["data"] == {"name": "digits"}
