"""Where curves also go, besides the tables: TensorBoard, Weights & Biases, MLflow."""

import importlib.util
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hpjax.errors import ConfigError, text_of
from hpjax.store.mlflow import MLflow
from hpjax.store.rows import named_value
from hpjax.store.tensorboard import TensorBoard
from hpjax.store.wandb import WandB

_log = logging.getLogger("hpjax")


class Tracker(Protocol):
    """What a tracker can do; a trial's epochs come in order, starting anew after a resume."""

    def log_epoch(self, trial: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """Adds one epoch's numbers."""
        ...

    def log_hparams(self, trial: int, hyperparameters: Mapping, metrics: Mapping[str, float]) -> None:
        """Adds a finished trial's hyperparameters and final numbers."""
        ...

    def close(self) -> None:
        """Lets go of files and connections."""
        ...


class Trackers:
    """Several trackers as one; a tracker that fails is reported once and left out from then on."""

    def __init__(self, trackers: Mapping[str, Tracker]):
        self._trackers = dict(trackers)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log_epoch(self, trial: int, epoch: int, scalars: Mapping[str, float | None]) -> None:
        """Adds one epoch's numbers of a trial; entries that are None or not finite are left out."""
        self._call("log_epoch", trial, epoch, _measured(scalars))

    def log_hparams(self, trial: int, hyperparameters: Mapping, metrics: Mapping[str, float | None]) -> None:
        """Adds a finished trial's hyperparameters and final numbers; None and not finite are left out."""
        shown = {name: named_value(hyperparameters, name) for name in hyperparameters}
        self._call("log_hparams", trial, shown, _measured(metrics))

    def log_text(self, title: str, text: str) -> None:
        """Adds a text (Markdown) on the whole sweep, where a tracker has a place for one."""
        self._call("log_text", title, text)

    def close(self) -> None:
        """Closes every tracker."""
        self._call("close")

    def _call(self, method: str, *args: object) -> None:
        for name, tracker in list(self._trackers.items()):
            if method == "log_text" and not hasattr(tracker, method):
                continue  # not every tracker has a place for texts
            try:
                getattr(tracker, method)(*args)
            except (Exception, SystemExit) as error:  # whatever a tracker raises, the sweep is worth more
                del self._trackers[name]
                _warn(name, error)


# Name, the package it needs, and what makes it for a workdir.
TRACKERS: dict[str, tuple[str, Callable[[Path], Tracker]]] = {
    "tensorboard": ("tensorboardX", lambda workdir: TensorBoard(workdir / "tensorboard")),
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
}


def make_trackers(names: Sequence[str], workdir: str | Path) -> Trackers:
    """Returns the trackers of the config; what they write to disk lies below the workdir.

    Raises:
      ConfigError: a name isn't known, or its package isn't installed.

    """
    made = {name: _make_tracker(name, Path(workdir)) for name in names}
    return Trackers({name: tracker for name, tracker in made.items() if tracker is not None})


def _make_tracker(name: str, workdir: Path) -> Tracker | None:
    if name not in TRACKERS:
        raise ConfigError("trackers", name, f"among {', '.join(TRACKERS)}")
    package, create = TRACKERS[name]
    if importlib.util.find_spec(package) is None:  # to be said before hours of training
        raise ConfigError("trackers", name, f"a tracker whose package is installed (pip install {package})")
    try:
        return create(workdir)
    except (Exception, SystemExit) as error:
        return _warn(name, error)


def _warn(name: str, error: BaseException) -> None:
    reason = text_of(error) or type(error).__name__
    _log.warning("tracker %s failed and is left out from now on: %s", name, reason)


def _measured(values: Mapping[str, float | None]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in values.items() if value is not None}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
