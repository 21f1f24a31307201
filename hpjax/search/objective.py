"""What a sweep optimises: a recorded metric, or a function of the user's own."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpjax.config import TaskConfig, check_field, list_choices
from hpjax.config.user_files import blaming, load_from_file
from hpjax.errors import ConfigError
from hpjax.tasks import main_metric, prefers_small

_CLASSES = TaskConfig()


@dataclass(frozen=True)
class Objective:
    """A metric of an epoch.

    Attributes:
      name: a column of `epochs.csv`, or FILE.py:FUNCTION.
      maximize: whether larger is better.
      function: the metric's value from an epoch's columns.
    """

    name: str
    maximize: bool
    function: Callable[[Mapping[str, float | None]], float | None] = dataclasses.field(compare=False)

    def value(self, epoch: Mapping[str, float | None]) -> float:
        """Returns the metric of an epoch; NaN where it isn't a finite number, or where there is none."""
        value = self.measure(epoch)
        return math.nan if value is None else value

    def measure(self, epoch: Mapping[str, float | None]) -> float | None:
        """Returns the metric of an epoch, NaN where it isn't finite; None where it has no value then."""
        value = self.function(epoch)
        return value if value is None or math.isfinite(value) else math.nan

    def score(self, value: float) -> float:
        """Returns the value so that higher is better; -inf for NaN."""
        if math.isnan(value):
            return -math.inf
        return value if self.maximize else -value


def create_objective(metric: str, has_validation: bool, task: TaskConfig = _CLASSES) -> Objective:
    """Returns the objective that `sweep.metric` names.

    Args:
      metric: auto (the task's first metric, or its loss, on the validation split if there is one, else on
        the test split), a column, or
        FILE.py:FUNCTION, where FUNCTION takes a mapping of the epoch's columns (`epoch`, `train_loss`,
        `validation_loss`, …) to a number; larger is better unless it has an attribute `maximize = False`.
        It may give None for all epochs of a trial but its last one.
      has_validation: whether training images are held out.
      task: what is learned.

    Raises:
      ConfigError: There is no such metric, or it needs a validation split.
      UserCodeError: The user's file can't be imported; or, when the objective is asked for a value, fails.
    """
    if check_field("sweep.metric", metric) == "auto":
        split = "validation" if has_validation else "test"
        metric = f"{split}_{main_metric(task.loss, task.metrics)}"
    if ":" in metric:
        return _load_objective(metric)
    if metric.startswith("validation_") and not has_validation:
        raise ConfigError("sweep.metric", metric, "data.validation_fraction greater than 0 with this metric")
    return Objective(metric, not prefers_small(metric), lambda epoch: epoch.get(metric))


def _load_objective(metric: str) -> Objective:
    form = f"FILE.py:FUNCTION or one of {', '.join(list_choices('sweep.metric'))}"
    path, function = load_from_file("sweep.metric", metric, form)
    if not callable(function):
        raise ConfigError("sweep.metric", metric, f"the name of a function in {path} after the colon")

    own: Callable[..., Any] = function

    def value(epoch: Mapping[str, float | None]) -> float | None:
        with blaming(f"sweep.metric={metric!r} failed", path):
            found = own(epoch)
            return None if found is None else float(found)

    with blaming(f"sweep.metric={metric!r} failed", path):
        maximize = getattr(function, "maximize", True)
    if maximize not in (True, False):
        raise ConfigError("sweep.metric", metric, "a function whose attribute maximize is True or False")
    return Objective(metric, bool(maximize), value)
