"""Weights & Biases: a project per workdir's name, a run per trial."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hpjax.store.identity import read_identity


class WandB:
    """Writes to the user's account, or, where nobody is logged in, offline below the workdir.

    `WANDB_MODE`, `WANDB_PROJECT` and the other variables of wandb hold. What was written offline is sent by
    `wandb sync WORKDIR/wandb/offline-run-*`. A trial's run goes on after a resume.

    Args:
      workdir: the sweep's; its name is the project's, its identity groups the runs.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._runs: dict[int, Any] = {}

    def log_epoch(self, trial: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """Adds one epoch's numbers, at the epoch's step."""
        self._run(trial).log(dict(scalars), step=epoch)

    def log_hparams(self, trial: int, hyperparameters: Mapping, metrics: Mapping[str, float]) -> None:
        """Adds hyperparameters to the run's config, metrics by column to its summary, and ends it."""
        run = self._run(trial)
        run.config.update(dict(hyperparameters), allow_val_change=True)
        run.summary.update(dict(metrics))
        self._runs.pop(trial).finish()

    def close(self) -> None:
        """Sends what is left; runs of unfinished trials can be resumed."""
        while self._runs:
            self._runs.popitem()[1].finish()

    def _run(self, trial: int) -> Any:
        if trial not in self._runs:
            self._runs[trial] = self._open(trial)
        return self._runs[trial]

    def _open(self, trial: int) -> Any:
        import wandb  # takes seconds: not before the first epoch

        identity = read_identity(self._workdir)
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        return wandb.init(
            project=None if os.environ.get("WANDB_PROJECT") else self._workdir.name,
            group=f"{self._workdir.name}-{identity}",
            name=f"trial_{trial:05d}",
            id=f"{identity}-{trial:05d}",
            dir=self._workdir,
            resume="allow",
            reinit="create_new",
            mode=_mode(),
            settings=settings,
        )


def _mode() -> Literal["offline"] | None:
    """Returns `offline` where wandb would stop and ask who the user is."""
    import wandb

    known = os.environ.get("WANDB_MODE") or wandb.login(prompt=False, verify=False)
    return None if known else "offline"
