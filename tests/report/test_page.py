"""What the page says follows from the rows of the sweep."""

import dataclasses
import json
import os
import shlex
import shutil

import pytest
from page_workdirs import SPACE, record_search, write_workdir

from hpjax.cli.arguments import parse_arguments
from hpjax.report.__main__ import main
from hpjax.report.diagnosis import Finding, describe_findings
from hpjax.report.outcome import describe_outcome
from hpjax.report.page import create_page, load_source
from hpjax.report.page.answer import create_answer
from hpjax.report.page.figures import create_figures
from hpjax.report.page.next_run import propose, spell_axis
from hpjax.report.page.produced import list_changes, repeat_command
from hpjax.report.page.table import create_table
from hpjax.report.page.write import PAGE_NAME
from hpjax.search.axis import Axis
from hpjax.search.flags import parse_space_flag

MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return record_search(tmp_path_factory.mktemp("search"), trials=40)


def _column(source, name):
    return next(c["values"] for c in create_table(source)["columns"] if c["name"] == name)


def test_the_table_has_every_trial(search):
    assert _column(search, "trial") == [trial.trial for trial in search.trials]
    rates = [trial.hyperparameters["learning_rate"] for trial in search.trials]
    assert _column(search, "learning_rate") == rates
    scores = [float(f"{trial.final_validation_accuracy:.5g}") for trial in search.trials]
    assert _column(search, "score") == scores
    assert {len(column["values"]) for column in create_table(search)["columns"]} == {40}


def test_small_curves_share_a_scale(search):
    sparks = _column(search, "spark")
    assert [len(spark) for spark in sparks] == [trial.epochs for trial in search.trials]
    assert max(max(spark) for spark in sparks) == 99 and min(min(spark) for spark in sparks) == 0
    best = search.best.trial
    assert sparks[best][-1] == max(spark[-1] for spark in sparks)


def test_figures_come_in_the_articles_order_with_the_same_settings(search):
    curves = create_figures(search)["curves"]
    assert [figure["metric"] for figure in curves[:3]] == [
        "train_loss", "validation_loss", "validation_accuracy"]  # fmt: skip
    orders = [[line["setting"] for line in figure["lines"]] for figure in curves]
    assert all(order == orders[0] for order in orders)
    assert orders[0][0] == search.winner.setting and curves[0]["lines"][0]["wins"]


def test_hyperparameters_are_drawn_as_they_were_searched(search):
    figures = {f["column"]: f for f in create_figures(search)["response"] if f["kind"] == "response"}
    assert list(figures) == list(SPACE)
    assert figures["learning_rate"]["log"] and not figures["optimizer"]["numeric"]


def test_best_so_far_only_gets_better_and_ends_with_the_winner(search):
    (figure,) = [f for f in create_figures(search)["search"] if f["kind"] == "best"]
    values = [step[2] for step in figure["steps"]]
    assert values == sorted(values) and figure["steps"][-1][3] == search.best.trial
    assert figure["last"]["trials"] == 40


def test_lanes_hold_one_trial_at_a_time(search):
    (figure,) = [f for f in create_figures(search)["search"] if f["kind"] == "lanes"]
    bars = figure["bars"]
    assert sorted(bars["trial"]) == list(range(40)) and figure["lanes"] == 8
    taken = sorted(zip(bars["lane"], bars["left"], bars["right"], strict=True))
    for (lane, _, end), (following, start, _) in zip(taken, taken[1:], strict=False):
        assert lane != following or start >= end
    spans = [end - start for start, end in zip(bars["left"], bars["right"], strict=True)]
    assert sum(spans) == 2.0 * sum(trial.epochs for trial in search.trials)


def test_the_answer_is_worded_as_on_the_terminal(search):
    answer = create_answer(search)
    assert answer.outcome == describe_outcome(search.best, search.summary)
    text = create_page(search)
    for finding in search.findings:
        assert finding.sentence.split("'")[0] in text
    assert len(describe_findings(search.findings)) <= 4
    assert "95 % interval of 100 validation images: " in answer.certainty


def test_with_seeds_the_answer_is_a_mean_with_its_interval(tmp_path):
    answer = create_answer(record_search(tmp_path, trials=6, seeds=3, pruned=0))
    assert answer.score.startswith("mean final validation accuracy")
    assert answer.certainty.startswith("95 % interval of the mean over 3 seeds: ")


def test_a_sweep_where_all_diverged_has_no_best(tmp_path):
    source = record_search(tmp_path, trials=4)
    lost = [dataclasses.replace(trial, status="diverged") for trial in source.trials]
    source = dataclasses.replace(source, trials=lost, summary={**source.summary, "trials": {}})
    answer = create_answer(source)
    assert answer.setting == "" and "no trial ended well" in answer.outcome
    assert "lower learning rates" in answer.next.why
    assert create_page(source)


def test_what_a_figure_leaves_out_is_said(tmp_path):
    source = record_search(tmp_path, trials=200, epochs=2)
    curves = create_figures(source)["curves"]
    assert len(curves[0]["lines"]) == 150 and "150 of 200 settings are drawn" in curves[0]["note"]


def test_a_thousand_trials_are_small_enough(tmp_path):
    page = create_page(record_search(tmp_path, trials=1000, epochs=30, pruned=0.1))
    assert len(page.encode()) < MOST_BYTES


def test_changes_from_the_defaults_are_listed(search):
    changes = {fact.name: fact for fact in list_changes(search.config)}
    assert changes["train.epochs"].value == "6" and changes["train.epochs"].note == "10"
    assert changes["data.name"].value == "digits" and "optimizer.learning_rate" not in changes


# Commands are read as the command line reads them.


def _parse(source, command):
    source.workdir.mkdir(exist_ok=True)
    (source.workdir / "config.json").write_text(json.dumps(source.config), encoding="utf-8")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "hpjax.main"]
    return parse_arguments(words[2:])


def _with(source, *findings):
    entries = [finding.to_dict() for finding in findings]
    return dataclasses.replace(source, summary={**source.summary, "findings": entries})


EDGE = Finding(
    "best_at_edge", "warning", "s", "a", {"hyperparameter": "learning_rate", "space": "0.003:0.3:log"}
)
IMPROVING = Finding("still_improving", "info", "s", "a", {"epochs": 6, "more_epochs": 4})
LOW = Finding("learning_rate_too_low", "warning", "s", "a", {"learning_rate": 1e-5})


def test_the_edge_is_searched_next(search):
    source = _with(search, IMPROVING, EDGE)
    found = _parse(source, propose(source).command).config
    assert found.sweep.space["learning_rate"] == {"low": 0.003, "high": 0.3, "log": True}
    assert found.sweep.space.keys() == SPACE.keys() and found.train.epochs == 6


def test_settings_that_were_run_first_dont_keep_the_range(tmp_path):
    first = {"learning_rate": 1e-4, "weight_decay": 0.01, "optimizer": "adam"}
    source = _with(record_search(tmp_path / "s", sweep={"enqueue": (first,)}), EDGE)
    found = _parse(source, propose(source).command).config.sweep
    assert found.space["learning_rate"]["low"] == 0.003 and found.enqueue == ()


def test_what_still_improves_is_trained_longer(search):
    source = _with(search, IMPROVING)
    arguments = _parse(source, propose(source).command)
    assert arguments.config.train.epochs == 10
    assert arguments.workdir == f"{search.workdir}-next"


def test_too_low_a_rate_is_raised(search):
    source = _with(search, LOW)
    found = _parse(source, propose(source).command).config
    assert found.sweep.space["learning_rate"] == (1e-5, 1e-4, 1e-3)


def test_two_settings_that_chance_cant_tell_apart_are_run_with_seeds(search):
    rival = next(row.setting for row in search.settings if not row.winner and not row.lost)
    evidence = {"settings": [search.winner.setting, rival], "seeds_to_decide": 7}
    source = _with(search, Finding("winner_within_noise", "info", "s", "a", evidence))
    found = _parse(source, propose(source).command).config.sweep
    assert found.seeds == 7 and found.trials == 2 and len(found.enqueue) == 2
    rates = {float(f"{search.trials[n].hyperparameters['learning_rate']:.4g}") for n in evidence["settings"]}
    assert {setting["learning_rate"] for setting in found.enqueue} == rates


def test_one_hyperparameter_is_compared_in_a_grid(tmp_path):
    space = {"learning_rate": SPACE["learning_rate"]}
    source = _with(record_search(tmp_path / "s", trials=6, pruned=0, sweep={"space": space}))
    found = _parse(source, propose(source).command).config.sweep
    assert found.sampler == "grid" and found.seeds == 5 and len(found.space["learning_rate"]) == 2


def test_what_is_proposed_says_nothing_by_itself(search, caplog):
    caplog.set_level("INFO", "hpjax")
    data = {**search.config["data"], "validation_fraction": 0.0}
    source = dataclasses.replace(_with(search, EDGE), config={**search.config, "data": data})
    assert propose(source).command and not caplog.records


def test_an_unfinished_sweep_goes_on_first(tmp_path):
    source = record_search(tmp_path / "s", finished=False)
    arguments = _parse(source, propose(source).command)
    assert arguments.workdir == str(source.workdir)


def test_conditions_stay(tmp_path):
    momentum = {"low": 0.5, "high": 0.99, "when": {"optimizer": ("momentum", "nesterov")}}
    space = {**SPACE, "optimizer": ("adam", "momentum"), "momentum": momentum}
    source = _with(record_search(tmp_path / "s", sweep={"space": space}), EDGE)
    found = _parse(source, propose(source).command).config.sweep.space
    assert found["learning_rate"]["high"] == 0.3
    assert found["momentum"]["when"] == {"optimizer": ("momentum", "nesterov")}


def test_the_same_sweep_once_more(search):
    assert _parse(search, repeat_command(search)).config.sweep.trials == 40


def test_folders_with_odd_names_are_quoted(tmp_path):
    source = record_search(tmp_path / "a b; $(touch c)'\"", trials=6)
    assert _parse(source, propose(source).command).workdir == f"{source.workdir}-next"


def test_choices_are_spelled_as_they_are_read_back():
    for choices in [("1", "2"), ("true", "none", "x"), (None, 3), (1, 2.5), (False, True)]:
        name, spec = parse_space_flag(f"model.norm={spell_axis(Axis('model.norm', choices))}")
        assert (name, tuple(spec)) == ("model.norm", choices)


def test_none_as_a_choice_is_drawn_and_proposed(tmp_path):
    source = record_search(tmp_path / "s", trials=6)
    trials = [
        dataclasses.replace(t, hyperparameters={**t.hyperparameters, "model.kernel1": (None, 3)[t.trial % 2]})
        for t in source.trials
    ]
    sweep = {**source.config["sweep"], "space": {"model.kernel1": [None, 3]}}
    source = dataclasses.replace(source, trials=trials, config={**source.config, "sweep": sweep})
    assert set(_column(source, "model.kernel1")) == {"None", "3"}
    assert [figure["column"] for figure in create_figures(source)["response"]] == ["model.kernel1"]


def test_a_folder_whose_name_is_no_text_has_a_page(tmp_path):
    folder = tmp_path / os.fsdecode(b"a\xff")
    assert main(["report", f"--workdir={write_workdir(folder, trials=3)}"]) == 0
    assert (folder / PAGE_NAME).stat().st_size


# The command.


def test_the_command_writes_the_page_of_an_unfinished_sweep(tmp_path, capsys):
    path = write_workdir(tmp_path / "sweep", trials=6, finished=False)
    assert main(["report", f"--workdir={path}"]) == 0
    assert str(path / PAGE_NAME) in capsys.readouterr().out
    text = (path / PAGE_NAME).read_text(encoding="utf-8")
    assert "The answer so far" in text and "The sweep isn&#39;t done" in text


def test_a_half_written_line_is_passed_over(tmp_path):
    path = write_workdir(tmp_path / "sweep", trials=6)
    with open(path / "history.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "epo')
    assert len(load_source(path).trials) == 6


def _overwrite(name, text):
    return lambda path: (path / name).write_text(text, encoding="utf-8")


def _replace(name, **entries):
    def change(path):
        content = json.loads((path / name).read_text(encoding="utf-8"))
        _overwrite(name, json.dumps({**content, **entries}))(path)

    return change


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda path: (path / "config.json").unlink(), "holds no sweep: expected a folder with config.json"),
        (lambda path: (path / "summary.json").unlink(), "holds no summary.json yet"),
        (_overwrite("summary.json", "{}"), "is damaged"),
        (_overwrite("config.json", '{"sweep": 3}'), "holds a damaged config.json"),
        (_overwrite("history.jsonl", "{}\n"), "is damaged in line 1"),
        *(
            (_replace("summary.json", **{name: 5}), "holds a damaged")
            for name in ("layouts", "data", "findings")
        ),
        (_replace("summary.json", made_with=[1]), "holds a damaged"),
        (_replace("config.json", model=None), "holds a damaged"),
        (lambda path: (path / PAGE_NAME).mkdir(), "can't write"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, capsys, break_it, said):
    path = write_workdir(tmp_path / "sweep", trials=3)
    break_it(path)
    assert main(["report", f"--workdir={path}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_what_is_left_of_a_disk_is_left_to_the_records(tmp_path, monkeypatch, capsys):
    path = write_workdir(tmp_path / "sweep", trials=3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 << 20))
    assert main(["report", f"--workdir={path}"]) == 2
    assert "only 3 MiB are left on the disk" in capsys.readouterr().err
    assert not (path / PAGE_NAME).exists()


@pytest.mark.parametrize("arguments", [[], ["--workdir"], ["--workdir="], ["--work=x"], ["x"]])
def test_a_wrong_command_line_is_one_line(arguments, capsys):
    assert main(["report", *arguments]) == 2
    assert "expected --workdir=DIR" in capsys.readouterr().err


def test_help(capsys):
    assert main(["report", "--help"]) == 0
    assert "usage: python -m hpjax.report --workdir=DIR" in capsys.readouterr().out
