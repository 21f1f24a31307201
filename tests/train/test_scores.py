"""Metrics from sums equal scikit-learn's, whatever the batches; padded examples don't count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as theirs

from hpjax.errors import ConfigError, UserCodeError
from hpjax.tasks import METRICS, list_known
from hpjax.train.loss import LossRule, compute_losses
from hpjax.train.metrics import add_sums
from hpjax.train.scores import measure, sum_scores, zero_scores

COUNT, CLASSES = 90, 7
RNG = np.random.default_rng(0)


def _measure(rule, outputs, targets, parts=3):
    """Returns the metrics over several batches, of which the last is padded with nonsense."""
    sums = zero_scores(rule)
    step = jax.jit(lambda *batch: sum_scores(rule, *batch))
    size = -(-len(targets) // parts) + 2
    for start in range(0, len(targets), size):
        out, true = outputs[start : start + size], targets[start : start + size]
        missing = size - len(true)
        out = np.concatenate([out, np.full((missing, *out.shape[1:]), np.nan, np.float32)])
        true = np.concatenate([true, np.zeros((missing, *true.shape[1:]), true.dtype)])
        mask = (np.arange(size) < size - missing).astype(np.float32)
        sums = add_sums(sums, step(out, true, 0.0, mask))
    return measure(rule, jax.device_get(sums))


def _classes():
    targets = RNG.integers(0, CLASSES, COUNT).astype(np.int32)
    logits = RNG.normal(size=(COUNT, CLASSES)).astype(np.float32)
    logits[np.arange(COUNT), targets] += 0.8
    return logits, targets


def test_metrics_of_classes():
    logits, targets = _classes()
    rule = LossRule(metrics=list_known("cross_entropy"), outputs=CLASSES)
    found, answers = _measure(rule, logits, targets), logits.argmax(1)
    probabilities = np.asarray(jax.nn.softmax(logits))
    assert found["accuracy"] == theirs.accuracy_score(targets, answers)
    assert found["balanced_accuracy"] == pytest.approx(theirs.balanced_accuracy_score(targets, answers))
    assert found["f1"] == pytest.approx(theirs.f1_score(targets, answers, average="macro"))
    assert found["top5_accuracy"] == pytest.approx(theirs.top_k_accuracy_score(targets, logits, k=5))
    auroc = theirs.roc_auc_score(targets, probabilities, multi_class="ovr")
    assert found["auroc"] == pytest.approx(auroc, abs=2e-3)  # from bins


def test_metrics_of_labels():
    targets = (RNG.random((COUNT, 4)) < 0.3).astype(np.float32)
    logits = (RNG.normal(size=(COUNT, 4)) + 1.5 * targets - 0.5).astype(np.float32)
    found = _measure(LossRule("binary", list_known("binary"), 4, 1), logits, targets)
    answers = logits > 0
    assert found["accuracy"] == pytest.approx((answers == targets).mean())
    assert found["f1"] == pytest.approx(theirs.f1_score(targets, answers, average="macro"))
    each = [theirs.balanced_accuracy_score(targets[:, i], answers[:, i]) for i in range(4)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(each))
    assert found["auroc"] == pytest.approx(theirs.roc_auc_score(targets, logits), abs=2e-3)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_metrics_of_numbers(offset):
    targets = (RNG.normal(size=(COUNT, 2)) + offset).astype(np.float32)
    outputs = (targets + 0.3 * RNG.normal(size=(COUNT, 2))).astype(np.float32)
    centre = tuple(targets.mean(0, dtype=np.float64).tolist())
    found = _measure(LossRule("mse", ("mae", "r2"), 2, 1, centre=centre), outputs, targets)
    exact = outputs.astype(np.float64), targets.astype(np.float64)
    assert found["mae"] == pytest.approx(np.abs(exact[0] - exact[1]).mean(), rel=1e-5)
    assert found["r2"] == pytest.approx(theirs.r2_score(exact[1], exact[0]), rel=1e-4)
    assert found["loss"] == pytest.approx(np.square(exact[0] - exact[1]).mean(), rel=1e-5)


def test_what_is_undefined_has_no_value():
    rule = LossRule(metrics=("auroc", "balanced_accuracy"), outputs=3)
    found = _measure(rule, np.zeros((4, 3), np.float32), np.full(4, 1, np.int32), parts=1)
    assert found["auroc"] is None and found["balanced_accuracy"] == 0.0  # of the classes that are there
    constant = _measure(
        LossRule("mse", ("r2",), 1, 1), np.zeros((4, 1), np.float32), np.ones((4, 1), np.float32), 1
    )
    assert constant["r2"] == 0.0


def test_every_metric_is_computed():
    computed = {name for loss in ("cross_entropy", "binary", "mse") for name in list_known(loss)}
    assert computed == {*METRICS}


@jax.numpy_rank_promotion("allow")  # as a user has it
def test_a_model_of_another_shape_is_refused_and_not_broadcast():
    with pytest.raises(ConfigError, match=r"task.metrics.*\(5,\)"):
        sum_scores(LossRule("mse", ("mae",), 1, 1), jnp.zeros(5), jnp.zeros((5, 1)), 0.0, None)


@pytest.mark.parametrize("loss", [lambda o, t: 0.0, lambda o, t: (o - t).sum(), lambda o, t: o - t])
def test_a_loss_of_ones_own_is_a_number_per_example(loss):
    rule = LossRule("f.py:f", (), 2, 1, own=loss)
    with pytest.raises(UserCodeError, match="expected a loss per example"):
        compute_losses(rule, jnp.zeros((5, 2)), jnp.zeros((5, 2)))
