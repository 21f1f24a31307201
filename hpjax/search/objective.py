"""What a sweep optimises: a recorded metric, or a function of the user's own."""

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpjax.errors import ConfigError

METRICS = (
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
    "train_loss",
)


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
    function: Callable[[Mapping[str, float | None]], float] = dataclasses.field(compare=False)

    def value(self, epoch: Mapping[str, float | None]) -> float:
        """Returns the metric of an epoch; NaN where it isn't a finite number."""
        value = self.function(epoch)
        return float(value) if value is not None and math.isfinite(value) else math.nan

    def score(self, value: float) -> float:
        """Returns the value so that higher is better; -inf for NaN."""
        if math.isnan(value):
            return -math.inf
        return value if self.maximize else -value


def create_objective(metric: str, has_validation: bool) -> Objective:
    """Returns the objective that `sweep.metric` names.

    Args:
      metric: auto (accuracy on the validation split if there is one, else on the test split), a column, or
        FILE.py:FUNCTION, where FUNCTION takes a mapping of the epoch's columns (`epoch`, `train_loss`,
        `validation_loss`, …) to a number; larger is better unless it has an attribute `maximize = False`.
      has_validation: whether training images are held out.

    Raises:
      ConfigError: There is no such metric, or it needs a validation split.
    """
    if metric == "auto":
        metric = "validation_accuracy" if has_validation else "test_accuracy"
    if metric.startswith("validation_") and not has_validation:
        raise ConfigError("sweep.metric", metric, "data.validation_fraction greater than 0 with this metric")
    if ":" in metric:
        function = _load_function(metric)
        return Objective(metric, getattr(function, "maximize", True), function)
    if metric not in METRICS:
        raise ConfigError("sweep.metric", metric, f"auto, FILE.py:FUNCTION or one of {', '.join(METRICS)}")
    return Objective(metric, metric.endswith("accuracy"), lambda epoch: epoch.get(metric))  # type: ignore[arg-type, return-value]


def _load_function(metric: str) -> Callable:
    file, _, name = metric.rpartition(":")
    if not Path(file).is_file():
        raise ConfigError("sweep.metric", metric, f"FILE.py:FUNCTION; there is no file {file}")
    spec = importlib.util.spec_from_file_location(f"hpjax_metric_{Path(file).stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError("sweep.metric", metric, f"a file that runs; it raised {error!r}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError("sweep.metric", metric, f"a function that {file} defines")
    return function
