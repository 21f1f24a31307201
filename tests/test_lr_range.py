"""The range test of learning rates: what it proposes, and that the command it prints runs."""

import csv
import math
import shlex

import pytest
from tiny_network import MODEL

from hpjax.cli.arguments import parse_arguments
from hpjax.lr_range import main, space_rates
from hpjax.report.rate_range import RateTrial, describe_rate_range, find_rate_range

CONFIG = f"""
from hpjax.config import get_default

def get_config():
    config = get_default()
    config.model.name = {MODEL["name"]!r}
    config.data.name, config.data.image_size = "digits", 12
    config.data.max_test_examples = 20
    config.train.batch_size = 10
    config.sweep.space = {{"learning_rate": (1e-4, 1e-3), "batch_size": (5, 10)}}
    return config
"""


def _tested(ends, first=2.0):
    rates = space_rates(1e-4, 10.0, len(ends))
    return [
        RateTrial(rate, (first, end) if math.isfinite(end) else (math.nan,), not math.isfinite(end))
        for rate, end in zip(rates, ends, strict=True)
    ]


def test_the_range_is_what_gets_half_as_far_as_the_best():
    tested = _tested([2.0, 1.9, 1.4, 1.0, 1.2, 5.0, math.inf])
    found = find_rate_range(tested)
    assert found is not None
    assert (found.low, found.best, found.high) == tuple(tested[place].rate for place in (2, 3, 4))
    assert found.diverges == tested[-1].rate
    assert not found.at_lowest and not found.at_highest
    first, second = describe_rate_range(found, 200)
    assert "2 to 1 in 200 steps; 10 and above diverge" in first and "search among them" in second


def test_a_cluster_is_refused(tmp_path, capsys):
    (tmp_path / "config.py").write_text(CONFIG)
    assert main(["lr_range", f"--config={tmp_path / 'config.py'}", "--launcher=ray"]) == 2
    assert "--launcher=ray is not allowed" in capsys.readouterr().err


def test_a_rate_that_starts_badly_makes_no_lower_one_look_good():
    tested = [RateTrial(1e-6, (2.0, 2.1)), RateTrial(1e-3, (1.9, 1.2)), RateTrial(1e-2, (3.5, 1.0))]
    found = find_rate_range(tested)
    assert found is not None and (found.low, found.high) == (1e-3, 1e-2)


def test_beside_a_rate_that_is_alone_its_neighbours_are_searched():
    tested = _tested([2.0, 1.9, 1.0, 3.0])
    found = find_rate_range(tested)
    assert found is not None and (found.low, found.high) == (tested[1].rate, tested[3].rate)
    assert "no other gets half as far: search from" in describe_rate_range(found, 200)[1]


@pytest.mark.parametrize("ends", [[2.0] * 5, [2.0, 1.99, 2.0], [math.inf] * 4, [2.0, 3.0, math.inf]])
def test_where_nothing_is_learned_nothing_is_proposed(ends):
    assert find_rate_range(_tested(ends)) is None
    assert "no learning rate" in describe_rate_range(None, 200)[0]


@pytest.mark.parametrize(("ends", "said"), [([1.0, 1.1, 2.0], "--low"), ([2.0, 1.2, 1.0], "--high")])
def test_a_range_at_the_edge_of_what_was_tested_is_said(ends, said):
    found = find_rate_range(_tested(ends))
    assert found is not None and said in describe_rate_range(found, 200)[-1]


def test_rates_are_even_in_the_logarithm_and_hold_both_ends():
    rates = space_rates(1e-7, 10.0, 33)
    assert (rates[0], rates[-1], len(rates)) == (1e-7, 10.0, 33)
    steps = [math.log10(high / low) for low, high in zip(rates, rates[1:], strict=False)]
    assert max(steps) - min(steps) < 0.01


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(CONFIG)
    return file


@pytest.mark.slow
def test_it_trains_every_rate_and_prints_a_command_that_parses(config, tmp_path, capsys):
    flags = ["--rates=10", "--low=1e-5", "--high=1e22", "--steps=30", f"--workdir={tmp_path / 'w'}"]
    assert main(["lr_range", f"--config={config}", "--config.data.augment=flip", *flags]) == 0
    printed = capsys.readouterr().out
    with open(tmp_path / "w" / "trials.csv", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    assert [float(t["learning_rate"]) for t in trials] == list(space_rates(1e-5, 1e22, 10))
    assert {"complete", "diverged"} == {t["status"] for t in trials} and "above diverge" in printed
    assert "in 30 steps" in printed
    assert (tmp_path / "w" / "lr_range.png").read_bytes().startswith(b"\x89PNG")
    said, command = printed.splitlines()[-2:]
    assert said.startswith("next; the config's other axes (batch_size) need")
    words = shlex.split(command)
    parsed = parse_arguments(words[words.index("hpjax.main") :])
    assert parsed.config.data.augment == "flip" and parsed.workdir == "runs/config"
    assert len(parsed.config.sweep.space["learning_rate"]) > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--low=1", "--high=0.1"], "--low=1 is not allowed: expected less than --high=0.1"),
        (["--rates=3"], "[4, 256]"),
        (["--steps=0"], "[5, 1000000]"),
        (["--low=-1"], "low"),
        (["--low=cold"], "low"),
        (["--plan"], "--plan is not allowed"),
        (["--space=learning_rate=1e-3,1e-2"], "expected --low and --high"),
        (["--config.train.batch_size=0"], "batch_size"),
        (["--rate=3"], "rate"),
    ],
)
def test_misuse_is_one_line(config, capsys, arguments, said):
    assert main(["lr_range", f"--config={config}", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hpjax: error: ") and said in line


def test_help_needs_no_config(capsys):
    assert main(["lr_range", "--help"]) == 0
    assert "--rates=32" in capsys.readouterr().out
