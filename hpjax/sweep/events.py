"""What the loop over epochs asks of the sweep around it: trials, records, checkpoints, progress."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.lanes.group import evaluate_weights, model_arguments
from hpjax.report.curves import label_setting
from hpjax.search.trial import Trial
from hpjax.store.rows import OBJECTIVE, CopyRow, EpochRow
from hpjax.store.tables import find_best
from hpjax.sweep.loop import GroupRun, Slot
from hpjax.sweep.session import Group, Interrupted, Session

log = logging.getLogger("hpjax")

TABLES_SHARE = 0.02  # of the wall time may go into rewriting tables
CHECKPOINT_SHARE = 0.03  # of the wall time may go into saving, what a thread does on a CPU included

_SCALARS = (
    "train_loss",
    "test_loss",
    "test_accuracy",
    "validation_loss",
    "validation_accuracy",
    "epoch_seconds",
    OBJECTIVE,
)
_RESULTS = (
    "final_test_loss",
    "best_test_loss",
    "final_test_accuracy",
    "best_test_accuracy",
    "average_epoch_seconds",
)


def read_test(
    session: Session, trial: int, hyperparameters: Mapping[str, Any], seed: int, weights: dict[str, Any]
) -> None:
    """Evaluates a selected trial's weights on the test split, and records it."""
    config = apply_hyperparameters(session.config, hyperparameters)
    sums = evaluate_weights(config, session.dataset(config), weights, seed)
    loss, correct, count = map(float, (sums.loss, sums.correct, sums.count))
    session.records.set_test(trial, loss / count, correct / count)


class SessionHost:
    """A group's `loop.Host`: everything that happens to a trial goes into the session's stores."""

    def __init__(self, session: Session, group: Group):
        self._session, self._group = session, group

    def next_trial(self) -> Trial | None:
        """Returns the group's next trial, or None."""
        return self._session.queue.take(self._group.key, self._session.study)

    def start(self, trial: Trial, epoch_offset: int) -> None:
        """Records that a trial was admitted at the group's epoch `epoch_offset`."""
        session = self._session
        config = apply_hyperparameters(session.config, trial.hyperparameters)
        session.tally["fewer_epochs"] += session.config.train.epochs - config.train.epochs
        optimizer = config.optimizer
        always = {"learning_rate": optimizer.learning_rate, "weight_decay": optimizer.weight_decay}
        session.records.start_trial(
            trial.number,
            {**always, **trial.hyperparameters},
            trial.seed,
            trial.setting,
            trial.seed_index,
            session.tally["groups"],
            epoch_offset,
            minimize=session.table_metric == OBJECTIVE and not session.objective.maximize,
        )

    def record(self, trial: Trial, row: EpochRow, value: float) -> bool:
        """Records an epoch everywhere; returns whether the trial is to be pruned."""
        session = self._session
        if session.table_metric == OBJECTIVE:
            row = dataclasses.replace(row, objective=value)
        session.records.add_epoch(row)
        session.trackers.log_epoch(trial.number, row.epoch, {name: getattr(row, name) for name in _SCALARS})
        session.tally["epochs"] += 1
        self._note_best(trial, session.objective.score(value))
        pruned = value == value and session.study.report(trial, row.epoch, value)
        return pruned and not session.is_final(trial)

    def finish(self, slot: Slot, status: str, message: str, weights: Callable[[], dict]) -> None:
        """Ends a trial everywhere; its weights are kept if it is among the best."""
        session, trial = self._session, slot.trial
        ranks = status in ("complete", "pruned") and slot.best > float("-inf")  # as in `find_best`
        if ranks and session.weights.would_keep(trial.number, slot.best):
            session.weights.save(trial.number, weights(), self._metadata(slot), slot.best)
        else:
            session.weights.forget(trial.number)
        if status == "complete" and session.is_final(trial) and not session.tests_each_epoch:
            read_test(session, trial.number, trial.hyperparameters, trial.seed, weights())
        best = slot.best if session.objective.maximize else -slot.best
        session.study.tell(trial, status, best if status == "complete" else None)
        if status == "diverged":
            message = f"{message}; {_describe_told(slot)}"
            self._say(f"trial {trial.number} ({self._label(trial)}) diverged: {message}")
        session.records.finish_trial(trial.number, status, message)
        hyperparameters = {**trial.hyperparameters, "seed": trial.seed}
        row = session.records.trial(trial.number)
        results = {session.table_metric: best, **{name: getattr(row, name) for name in _RESULTS}}
        session.trackers.log_hparams(trial.number, hyperparameters, results)
        planned = apply_hyperparameters(session.config, trial.hyperparameters).train.epochs
        session.tally["fewer_epochs"] += planned - slot.epoch
        if status not in ("complete", "pruned"):
            self._drop_best(trial)

    def copy(self, trial: Trial, row: CopyRow) -> None:
        """Records that a trial, with its new hyperparameters, goes on from another's state."""
        self._session.records.add_copy(row)
        self._session.study.note_copy(trial, row.epoch, row.source)

    def boundary(self, run: GroupRun) -> None:
        """Shows progress, writes tables and checkpoints; all lanes are between two epochs."""
        session = self._session
        session.pace.age()
        self._show(run)
        session.pace.every(TABLES_SHARE, "tables", session.write_tables)
        if session.signals.received:
            session.save(self._group, run, block=True)
            raise Interrupted(session.signals.received, session.workdir.path)
        if self._checkpoint_is_due(run.epoch):
            save = functools.partial(session.save, self._group, run)
            session.pace.every(CHECKPOINT_SHARE, "checkpoint", save, session.seconds_of_writing)

    def stop_now(self) -> bool:
        """Whether to leave an epoch unfinished: only where the last boundary was saved."""
        return bool(self._session.signals.received) and self._session.pace.fresh("checkpoint")

    def _checkpoint_is_due(self, epoch: int) -> bool:
        asked = self._session.config.checkpoint
        epochs = epoch % asked.every_epochs == 0 if asked.every_epochs else asked.every_minutes > 0
        return epochs and self._session.pace.since("checkpoint") >= 60 * asked.every_minutes

    def _metadata(self, slot: Slot) -> dict:
        config = apply_hyperparameters(self._session.config, slot.trial.hyperparameters)
        dataset = self._session.dataset(config)
        model = model_arguments(config, dataset)
        return {"trial": vars(slot.trial), "epoch": slot.epoch, "model": model, "classes": dataset.classes}

    def _label(self, trial: Trial) -> str:
        return label_setting(trial.hyperparameters, self._session.space.names) or f"seed {trial.seed}"

    def _say(self, text: str) -> None:
        progress = self._session.progress
        if progress is None:
            log.warning("%s", text)
        else:
            progress.message(text)

    def _note_best(self, trial: Trial, score: float) -> None:
        tally = self._session.tally
        if score > (float("-inf") if tally["best_score"] is None else tally["best_score"]):
            tally["best_score"], tally["best_trial"] = score, trial.number

    def _drop_best(self, trial: Trial) -> None:
        session, tally = self._session, self._session.tally
        if tally["best_trial"] != trial.number:
            return
        tally["best_score"] = tally["best_trial"] = None
        best = find_best(session.records.trials(), session.table_metric)
        if best is not None:
            value = getattr(best, f"best_{session.table_metric}", None)
            value = getattr(best, f"final_{session.table_metric}") if value is None else value
            tally["best_score"], tally["best_trial"] = session.objective.score(value), best.trial

    def _show(self, run: GroupRun) -> None:
        tally, progress = self._session.tally, self._session.progress
        if progress is None:
            return
        session = self._session
        progress.set_total(session.num_trials * session.config.train.epochs - tally["fewer_epochs"])
        best, text = tally["best_trial"], ""
        if best is not None:
            score = tally["best_score"]
            value = score if session.objective.maximize else -score
            text = f"trial {best}, {session.objective.name.rpartition(':')[2]} {value:.4g}"
        progress.update(tally["epochs"], len(run.busy), run.images_per_second, text, _describe_epochs(run))


def _describe_told(slot: Slot) -> str:
    """Returns what the study knows of a trial that diverged; see `Study.tell`."""
    if math.isfinite(slot.value):
        return f"told Optuna: pruned at its last value {slot.value:.4g}"
    before = math.isfinite(slot.best)
    return "told Optuna: pruned at its last finite value" if before else "told Optuna: pruned without a value"


def _describe_epochs(run: GroupRun) -> str:
    """Returns how far the trials in the lanes are, from the last to the first of them."""
    done = [slot.epoch for slot in run.busy]
    if not done:
        return ""
    span = f"{min(done)}–{max(done)}" if min(done) < max(done) else f"{min(done)}"
    return f"epoch {span}/{run.config.train.epochs}"
