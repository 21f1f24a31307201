"""MLflow: an experiment per sweep, a run per trial."""

import functools
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpjax.store.identity import read_identity

_TRIAL = "hpjax.trial"


class MLflow:
    """Writes to the server at `MLFLOW_TRACKING_URI`, else to `mlflow.db` in the workdir (SQLite).

    A trial's run is found again after a resume by its tag, and goes on; epochs that were logged before come
    once more at the same step, with the same numbers.

    Args:
      workdir: the sweep's; its name and identity are the experiment's.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._runs: dict[int, str] = {}

    @functools.cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient  # takes seconds: not before the first epoch

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells how it makes its tables
        path = (self._workdir / "mlflow.db").resolve()
        return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}")

    @functools.cached_property
    def _experiment(self) -> str:
        name = f"{self._workdir.name}-{read_identity(self._workdir)}"
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known else self._client.create_experiment(name)

    def log_epoch(self, trial: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """Adds one epoch's numbers, at the epoch's step."""
        self._log(trial, epoch, scalars)

    def log_hparams(self, trial: int, hyperparameters: Mapping, metrics: Mapping[str, float]) -> None:
        """Adds hyperparameters as parameters, metrics under columns' names, and ends the trial's run."""
        self._log(trial, 0, dict(metrics), hyperparameters)
        self._client.set_terminated(self._runs.pop(trial))

    def close(self) -> None:
        """Does nothing: what is logged is logged; a run that goes on after a resume stays open."""

    def _log(self, trial: int, step: int, metrics: Mapping[str, float], parameters: Mapping = {}) -> None:
        from mlflow.entities import Metric, Param

        now = int(1000 * time.time())
        self._client.log_batch(
            self._find_run(trial),
            metrics=[Metric(name, value, now, step) for name, value in metrics.items()],
            params=[Param(name, str(value)) for name, value in parameters.items()],
        )

    def _find_run(self, trial: int) -> str:
        if trial not in self._runs:
            found = self._client.search_runs(
                [self._experiment], f"tags.`{_TRIAL}` = '{trial}'", max_results=1
            )
            run = found[0] if found else self._create_run(trial)
            self._runs[trial] = run.info.run_id
        return self._runs[trial]

    def _create_run(self, trial: int) -> Any:
        return self._client.create_run(
            self._experiment, tags={_TRIAL: str(trial)}, run_name=f"trial_{trial:05d}"
        )
