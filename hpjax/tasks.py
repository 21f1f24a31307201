"""What can be learned: losses, the kind of target that each takes, and the metrics of each kind.

Whatever depends on the kind of a task asks here.
"""

from collections.abc import Mapping
from typing import NamedTuple

CLASSES = "classes"  # one of several, whole numbers [examples]
LABELS = "labels"  # any of several, 0 or 1 [examples, labels]
NUMBERS = "numbers"  # [examples, numbers]
ANY = "any"  # what a loss of the user's own takes
LOSS = "loss"
SPLITS = ("train", "test", "validation")


class Loss(NamedTuple):
    """What is made small.

    Attributes:
      kind: of the targets that it takes.
      doc: what it is.
      unit: what an axis of it says.
    """

    kind: str
    doc: str
    unit: str


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": Loss(
        CLASSES, "one class per example; the model gives a logit per class", "nats per image"
    ),
    "binary": Loss(
        LABELS, "labels of 0 and 1, one or several per example; a logit per label", "nats per label"
    ),
    "mse": Loss(NUMBERS, "numbers, one or several per example; squared error", "squared unit of the target"),
    "huber": Loss(NUMBERS, "half the squared error up to an error of 1, linear beyond", "per number"),
}


class Metric(NamedTuple):
    """What is measured besides the loss.

    Attributes:
      doc: what it is.
      kinds: of the targets that it is defined for.
      title: how figures call it.
      unit: what an axis of it says.
      minimize: whether less is better.
    """

    doc: str
    kinds: tuple[str, ...]
    title: str
    unit: str
    minimize: bool = False


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(
        "share of classes (of labels) that are right", (CLASSES, LABELS), "accuracy", "share of images"
    ),
    "top5_accuracy": Metric(
        "share whose class is among the five likeliest", (CLASSES,), "top-5 accuracy", "share of examples"
    ),
    "balanced_accuracy": Metric(
        "accuracy of each class by itself, averaged",
        (CLASSES, LABELS),
        "balanced accuracy",
        "mean of classes",
    ),
    "f1": Metric("F1 of each class or label by itself, averaged", (CLASSES, LABELS), "F1", "mean of classes"),
    "auroc": Metric(
        "area under the ROC curve of each class or label, averaged; from 512 bins, of at most 100 classes",
        (CLASSES, LABELS),
        "AUROC",
        "mean of classes",
    ),
    "mae": Metric("mean absolute error", (NUMBERS,), "mean absolute error", "unit of the target", True),
    "r2": Metric("share of the variance that is explained, averaged", (NUMBERS,), "R²", "1: all explained"),
}
MOST_CLASSES_OF_AUROC = 100
_USUAL = {CLASSES: ("accuracy",), LABELS: ("accuracy", "f1"), NUMBERS: ("mae", "r2"), ANY: ()}
_SMALL = (LOSS, *(name for name, metric in METRICS.items() if metric.minimize))
_COLUMNS = {f"{split}_{name}": name for split in SPLITS for name in METRICS}


def kind_of(loss: str) -> str:
    """Returns the kind of target that a loss takes; `any` for one of the user's own."""
    return LOSSES[loss].kind if loss in LOSSES else ANY


def unit_of(loss: str) -> str:
    """Returns what an axis of a loss says."""
    return LOSSES[loss].unit if loss in LOSSES else "as its function says"


def choose_metrics(loss: str, metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Returns what is measured besides the loss: what is asked for, or else what is usual with the loss."""
    return metrics or _USUAL[kind_of(loss)]


def main_metric(loss: str, metrics: tuple[str, ...]) -> str:
    """Returns what ranks trials where nothing else is asked for: the first metric, or the loss."""
    return next(iter(choose_metrics(loss, metrics)), LOSS)


def list_known(loss: str) -> tuple[str, ...]:
    """Returns the metrics that are defined for a loss."""
    kind = kind_of(loss)
    return tuple(name for name, metric in METRICS.items() if kind == ANY or kind in metric.kinds)


def is_column(name: str) -> bool:
    """Returns whether a name is that of an epoch's column of a metric, e.g. `test_mae`."""
    return name in _COLUMNS


def metric_of(column: str) -> Metric | None:
    """Returns the metric of an epoch's column; None where it is none's."""
    return METRICS[_COLUMNS[column]] if column in _COLUMNS else None


def name_of(column: str) -> str:
    """Returns which metric a column is of, e.g. `mae` of `validation_mae`; `loss` of losses, else nothing."""
    split, _, name = column.partition("_")
    return name if split in SPLITS and (name in METRICS or name == LOSS) else ""


def prefers_small(column: str) -> bool:
    """Returns whether less is better of a column: `test_loss`, `final_test_mae`; not of `test_r2`."""
    return column.endswith(_SMALL)
