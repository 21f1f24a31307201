"""What holds for every rule: it abstains on thin evidence, survives odd rows, and says what fits in JSON."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_sweeps import FIXED, Simulator, learn, log_axis

from hpjax.report.diagnosis import Finding, SweepFacts, describe_findings, diagnose, format_findings
from hpjax.report.diagnosis.noise import expected_luck, image_sd, jitter, pooled_sd, superiority
from hpjax.search.space import Axis
from hpjax.store.ranking import Ranking
from hpjax.store.rows import STATUSES, EpochRow, TrialRow
from hpjax.store.tables import finite

RATES = Axis("learning_rate", choices=(1e-4, 1e-3))
RANGE = log_axis("weight_decay", 1e-6, 1.0)
FACTS = SweepFacts(
    Ranking("test_accuracy"), (RATES, RANGE), FIXED, 6, {"train": 100, "test": 50}, sampler="random"
)
ODD = st.sampled_from((float("nan"), float("inf")))
LOSSES = st.one_of(ODD, st.floats(0, 3), st.floats(0, width=32))
SHARES = st.one_of(ODD, st.none(), st.floats(0, 1))


@st.composite
def _rows(draw):
    trials, epochs, held_out = [], [], draw(st.booleans())
    for number in range(draw(st.integers(0, 7))):
        count = draw(st.integers(0, 9))
        for epoch in range(1, count + 1):
            values = {"test_loss": draw(st.none() | LOSSES), "test_accuracy": draw(SHARES)}
            values |= (
                {"validation_loss": draw(LOSSES), "validation_accuracy": draw(SHARES)} if held_out else {}
            )
            train = draw(LOSSES)
            epochs.append(EpochRow(number, epoch, train, epoch_seconds=draw(st.floats(0, 9)), **values))
        own = epochs[len(epochs) - count :] if count else []
        hyperparameters = {"learning_rate": draw(st.sampled_from((1e-4, 1e-3))),
                           "weight_decay": draw(st.floats(1e-6, 1.0))}  # fmt: skip
        results = {"final_test_accuracy": own[-1].test_accuracy if own else None, "setting": number // 2}
        row = (number, draw(st.sampled_from(STATUSES)), 0, hyperparameters, count)
        trials.append(TrialRow(*row, seed_index=number % 2, **results))
    return trials, epochs


@given(_rows())
@settings(max_examples=40, deadline=None)
def test_no_rule_fails_whatever_was_recorded(rows):
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("hpjax").addHandler(handler)
    try:
        for facts in (FACTS, SweepFacts()):
            found = diagnose(*rows, facts)
            entries = finite([finding.to_dict() for finding in found])
            assert len([Finding(**entry) for entry in json.loads(json.dumps(entries))]) == len(found)
            assert describe_findings(found) or not found
    finally:
        logging.getLogger("hpjax").removeHandler(handler)
    assert not messages


def test_a_rule_that_fails_is_left_out_and_named(monkeypatch, caplog):
    from hpjax.report import diagnosis

    def broken(sweep):
        raise ZeroDivisionError("by zero")

    simulator = Simulator(np.random.default_rng(0))
    simulator.add(FIXED, *learn(10, 0.0))
    monkeypatch.setattr(diagnosis, "RULES", (broken, *diagnosis.RULES))
    assert "failed_trials" in simulator.diagnose()
    assert "broken" in caplog.text and "by zero" in caplog.text


def test_thin_evidence_says_nothing():
    assert diagnose([], [], FACTS) == []
    simulator = Simulator(np.random.default_rng(0))
    for rate, quality in ((1e-4, 0.7), (1e-3, 0.2)):
        simulator.add({**FIXED, "learning_rate": rate}, *learn(3, quality))
    assert simulator.diagnose(RATES) == {}  # a trial of three epochs has no shape
    simulator = Simulator(np.random.default_rng(0))
    simulator.add(FIXED, *learn(10, 0.0))
    assert simulator.diagnose(images={}, classes=0) == {}


def test_the_most_severe_comes_first_and_a_terminal_shows_four():
    simulator = Simulator(np.random.default_rng(0))
    for rate in (1e-4, 1e-3):
        train, loss, error = learn(10, 0.0)
        train[0] = 20.0
        simulator.add({**FIXED, "learning_rate": rate}, train, loss, error)
    rows = (simulator.history.trials(), simulator.history.epochs())
    found = diagnose(*rows, simulator.facts(RATES, copies_of_train=1))
    levels = [finding.level for finding in found]
    assert levels == sorted(levels, key=("severe", "warning", "info").index) and levels[0] == "severe"
    assert found[0].name == "failed_trials"
    many = [Finding(f"rule_{n}", "info", f"Seen {n}.", "Try.", {}) for n in range(6)]
    lines = describe_findings([found[0], *many])
    assert len(lines) == 4 and lines[0].startswith("severe:  2 of 2 trials came to nothing")
    assert lines[-1] == "and 4 more findings in summary.json"
    assert (
        len(describe_findings(many[:4])) == 4 and describe_findings(many[:4])[-1] == "info:    Seen 3. Try."
    )
    assert format_findings(many).count("\n") == 5 and format_findings([]) == "Nothing stands out."


def test_unequal_classes_are_held_against_the_accuracy():
    def found(quality, counts):
        simulator = Simulator(np.random.default_rng(0), noisy=False)
        simulator.add(FIXED, *learn(10, quality, 0.1))
        return simulator.diagnose(class_counts={"test": counts}).get("class_imbalance")

    skewed = (2500, 100, 100, 100, 100, 100)
    assert found(0.9, (500,) * 6) is None
    (warning,) = found(0.8, skewed)  # an accuracy of 0.83, where one answer gives as much
    assert warning.level == "warning" and warning.evidence["largest_share"] == pytest.approx(2500 / 3000)
    (info,) = found(0.97, skewed)
    assert info.level == "info" and info.evidence["beats_guessing"]


def test_test_images_that_were_trained_on():
    def found(copies):
        simulator = Simulator(np.random.default_rng(0))
        simulator.add(FIXED, *learn(10, 0.7))
        return simulator.diagnose(copies_of_train=copies).get("train_images_in_test")

    assert found(None) is None and found(0) is None
    assert found(3)[0].level == "info" and found(30)[0].level == "warning"
    assert found(30)[0].evidence == {"copies": 30, "test_images": 3000, "share": 0.01}


def test_populations_are_judged_by_no_value():
    """Their hyperparameters change on the way: an epoch belongs to none of them."""
    simulator = Simulator(np.random.default_rng(0))
    for decay, quality in ((0.0, 0.7), (1.0, 0.1)):
        simulator.add({**FIXED, "weight_decay": decay}, *learn(10, quality))
    axis = Axis("weight_decay", choices=(0.0, 1.0))
    assert "weight_decay_too_strong" in simulator.diagnose(axis)
    assert "weight_decay_too_strong" not in simulator.diagnose(axis, population=True)


def test_values_without_an_order_count_as_well():
    """The best run of each optimizer is looked at, and failures are put down to one."""
    simulator = Simulator(np.random.default_rng(0))
    train, loss, error = learn(10, 0.75, 0.1)
    simulator.add({**FIXED, "optimizer": "adam"}, train, loss[2] * np.linspace(1, 1.8, 10), error)
    for name, quality in (("adam", 0.5), *[("sgd", 0.0)] * 3, *[("lion", 0.9)] * 2):
        simulator.add({**FIXED, "optimizer": name}, *learn(10, quality))
    found = simulator.diagnose(Axis("optimizer", choices=("adam", "sgd", "lion")))
    assert found["overfitting"][0].evidence["trials"] == [0]
    (entry,) = found["failed_trials"][0].evidence["by_value"]
    assert entry["label"] == "optimizer = sgd" and (entry["failed"], entry["others_failed"]) == (3, 0)


def test_noise():
    rng = np.random.default_rng(0)
    assert image_sd(0.8, 3000) == pytest.approx(np.sqrt(0.16 / 3000), rel=0.01)
    assert image_sd(1.0, 3000) > 0  # none wrong of many isn't certainty
    line = np.linspace(0, 1, 4000)
    assert jitter(line + rng.normal(0, 0.05, 4000)) == pytest.approx(0.05, rel=0.05)
    assert jitter(line) == pytest.approx(0, abs=1e-12) and jitter(line[:4]) == 0.0
    assert pooled_sd([[1.0, 2.0]]) is None
    assert pooled_sd([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]) == pytest.approx(1.0)
    best = rng.normal(size=(20000, 10)).max(1).mean()
    assert expected_luck(10) == pytest.approx(best, rel=0.02) and expected_luck(1) == 0.0
    share, low, high = superiority([0.1, 0.2, 0.3, -0.1])
    assert share == 0.75 and low < 0.5 < share < high < 1
    assert superiority([0.1] * 20)[1] > 0.8
