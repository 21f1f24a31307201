"""What happens to trials, written down: every event of a group's loop goes into the sweep's stores."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.config.user_files import is_own, read_code
from hpjax.lanes.group import model_arguments
from hpjax.lanes.rules import create_input_rule
from hpjax.report.curves import label_setting
from hpjax.search.trial import Trial
from hpjax.store.rows import OBJECTIVE, CopyRow, EpochRow
from hpjax.sweep.datasets import Datasets
from hpjax.sweep.leader import Leader
from hpjax.sweep.ledgers import Tally, read_slot
from hpjax.sweep.protocol import Order, Slot, Status
from hpjax.sweep.session import Group, RunState, Session, Stores
from hpjax.sweep.spec import Spec
from hpjax.tasks import kind_of

log = logging.getLogger("hpjax")

TABLES_SHARE = 0.02  # of the wall time may go into rewriting tables
PAGE_SHARE = 0.01  # of the wall time may go into writing the page again
FIRST_PAGE = 20.0  # seconds: what it takes to load the libraries of a page is then no matter
CHECKPOINT_SHARE = 0.03  # of the wall time may go into saving, what a thread does on a CPU included

_SCALARS = (
    "train_loss",
    "train_accuracy",
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


class TrialEvents:
    """A group's `loop.Events`: writes down what happens to its trials.

    Args:
      spec: what is run.
      stores: where it is written.
      tally: where it is counted.
      leader: who ranks first so far.
      datasets: what is learned.
      group: whose trials they are.
      upkeep: what is done between two epochs, and what the user is told.
    """

    def __init__(
        self,
        spec: Spec,
        stores: Stores,
        tally: Tally,
        leader: Leader,
        datasets: Datasets,
        group: Group,
        upkeep: "Upkeep",
    ):
        self._spec, self._stores, self._tally, self._leader = spec, stores, tally, leader
        self._datasets, self._group, self._upkeep = datasets, group, upkeep

    def next_trial(self) -> Trial | None:
        """Returns the group's next trial, or None."""
        return self._stores.queue.take(self._group.key)

    def start(self, trial: Trial, epoch_offset: int) -> None:
        """Records that a trial was admitted at the group's epoch `epoch_offset`."""
        spec = self._spec
        config = apply_hyperparameters(spec.config, trial.hyperparameters)
        self._tally.fewer_epochs += spec.config.train.epochs - config.train.epochs
        optimizer = config.optimizer
        always = {"learning_rate": optimizer.learning_rate, "weight_decay": optimizer.weight_decay}
        self._stores.records.start_trial(
            trial.number,
            {**always, **trial.hyperparameters},
            trial.seed,
            trial.setting,
            trial.seed_index,
            self._group.number,
            epoch_offset,
            minimize=spec.ranking.metric == OBJECTIVE and not spec.objective.maximize,
        )

    def take_up(self, trial: Trial) -> tuple[Slot, dict[str, np.ndarray]] | None:
        """Returns where a trial stands that was complete before the sweep was extended; None for others."""
        records, number = self._stores.records, trial.number
        if not records.has_begun(number):
            return None
        arrays, about = self._stores.states.load(number, records.trial(number).epochs)
        slot = read_slot(about.get("slot"), trial)
        records.start_again(number, self._group.number)
        return slot, arrays  # pyright: ignore[reportReturnType]

    def wants_state(self) -> bool:
        """Returns whether complete trials' states are kept."""
        return self._stores.states.keeps

    def keep_state(self, slot: Slot, arrays: dict[str, np.ndarray]) -> None:
        """Keeps what a complete trial would go on from."""
        self._stores.states.save(slot.trial.number, arrays, {"slot": dataclasses.asdict(slot)})

    def record(self, trial: Trial, row: EpochRow, value: float, score: float) -> bool:
        """Records an epoch everywhere; returns whether the trial is to be pruned."""
        if self._spec.ranking.metric == OBJECTIVE:
            row = dataclasses.replace(row, objective=value)
        self._stores.records.add_epoch(row)
        scalars = {name: getattr(row, name) for name in _SCALARS} | dict(row.more)
        self._stores.trackers.log_epoch(trial.number, row.epoch, scalars)
        self._tally.epochs += 1
        self._leader.update(trial.number, score)
        self._note_leader()
        return self._stores.study.report(trial, row.epoch, value)

    def wants_weights(self, trial: Trial, score: float) -> bool:
        """Returns whether a trial's weights would be kept."""
        return self._stores.weights.wants(trial.number, trial.setting, score)

    def finish(self, slot: Slot, status: str, message: str, weights: dict | None) -> None:
        """Ends a trial everywhere."""
        spec, stores, trial = self._spec, self._stores, slot.trial
        stores.weights.finish(trial.number, trial.setting, slot.score, weights, self._metadata(slot))
        value = slot.score if spec.objective.maximize else -slot.score
        stores.study.tell(trial, status, value if status == "complete" else None)
        if status == "diverged":
            message = f"{message}; {_describe_told(slot)}"
            self._upkeep.say(f"trial {trial.number} ({self._label(trial)}) diverged: {message}")
        stores.records.finish_trial(trial.number, status, message)
        row = stores.records.trial(trial.number)
        results = {name: getattr(row, name) for name in (spec.ranking.column, *_RESULTS)} | dict(row.more)
        stores.trackers.log_hparams(trial.number, {**trial.hyperparameters, "seed": trial.seed}, results)
        planned = apply_hyperparameters(spec.config, trial.hyperparameters).train.epochs
        self._tally.fewer_epochs += planned - slot.epoch
        self._leader.finish(trial.number, slot.score)
        self._note_leader()

    def copy(self, trial: Trial, row: CopyRow) -> None:
        """Records that a trial, with its new hyperparameters, goes on from another's state."""
        self._stores.records.add_copy(row)
        self._stores.study.note_copy(trial, row.epoch, row.source)

    def _metadata(self, slot: Slot) -> dict[str, Any]:
        config = apply_hyperparameters(self._spec.config, slot.trial.hyperparameters)
        dataset = self._datasets.load(config)
        about = {"trial": vars(slot.trial), "epoch": slot.epoch, "select": self._spec.ranking.select}
        name = config.model.name
        code = dict(read_code("model.name", name).hashes) if is_own(name) else {}
        scale = dataset.scale and [dataset.scale.low, dataset.scale.high]  # of images of more than 8 bits
        images = {"classes": dataset.classes, "scale": scale}
        rule, arguments = create_input_rule(config, dataset), model_arguments(config, dataset)
        # Of what isn't images' classes, as they are; a model on its own wouldn't say.
        more = {"inputs": rule._asdict()} if rule.mean else {}
        more |= {} if dataset.classes else {"answers": kind_of(config.task.loss)}
        dtype = dataset.train.images.dtype
        more |= {"arrays": dtype.name} if dtype != np.uint8 else {}
        return {**about, "model": arguments, "code": code, **images, **more}

    def _label(self, trial: Trial) -> str:
        return label_setting(trial.hyperparameters, self._spec.space.names) or f"seed {trial.seed}"

    def _note_leader(self) -> None:
        self._tally.best_trial, self._tally.best_score = self._leader.best() or (None, None)


def _describe_told(slot: Slot) -> str:
    """Returns what the study knows of a trial that diverged; see `Study.tell`."""
    if math.isfinite(slot.value):
        return f"told Optuna: pruned at its last value {slot.value:.4g}"
    before = math.isfinite(slot.best)
    return "told Optuna: pruned at its last finite value" if before else "told Optuna: pruned without a value"


class Upkeep:
    """What a sweep does between two epochs besides training: progress, tables, checkpoints, signals."""

    def __init__(self, session: Session):
        self._session = session

    def boundary(self, status: Status) -> Order:
        """Shows progress and writes tables if it is time; returns whether lanes are to be saved."""
        session = self._session
        session.pace.age()
        self._show(status)
        if session.pace.affords("tables", TABLES_SHARE):
            session.pace.begin("tables")
            session.write_tables()
            session.pace.end("tables")
            self._write_page()
        if session.signals.received:
            return Order.STOP
        return Order.SAVE if self._checkpoint_is_due(status.epoch) else Order.GO_ON

    def _write_page(self) -> None:
        pace = self._session.pace
        if pace.since("page") >= FIRST_PAGE and pace.affords("page", PAGE_SHARE):
            pace.begin("page")
            self._session.write_page()
            pace.end("page")

    def save(self, runs: Sequence[RunState], block: bool) -> None:
        """Saves all runs under way."""
        self._session.save(runs, block)
        self._session.pace.end("checkpoint")

    def say(self, text: str) -> None:
        """Shows the user a line."""
        if self._session.progress is None:
            log.warning("%s", text)
        else:
            self._session.progress.message(text)

    def stop_now(self) -> bool:
        """Whether to leave an epoch unfinished: only where the last boundary was saved."""
        return bool(self._session.signals.received) and self._session.pace.fresh("checkpoint")

    def _checkpoint_is_due(self, epoch: int) -> bool:
        asked, pace = self._session.spec.config.checkpoint, self._session.pace
        epochs = epoch % asked.every_epochs == 0 if asked.every_epochs else asked.every_minutes > 0
        if not epochs or pace.since("checkpoint") < 60 * asked.every_minutes:
            return False
        # On a CPU, writing in the background keeps cores from training.
        aside = self._session.stores.checkpoints.seconds if jax.default_backend() == "cpu" else 0.0
        return pace.affords("checkpoint", CHECKPOINT_SHARE, aside)

    def _show(self, status: Status) -> None:
        session, progress = self._session, self._session.progress
        if progress is None:
            return
        tally, spec = session.tally, session.spec
        progress.set_total(session.num_trials * spec.config.train.epochs - tally.fewer_epochs)
        leader, text = session.leader.best(), ""
        if leader is not None:
            trial, score = leader
            value = score if spec.objective.maximize else -score
            text = f"trial {trial}, {spec.ranked_by} {value:.4g}"
        progress.update(tally.epochs, status.busy, status.images_per_second, text, _describe_epochs(status))


def _describe_epochs(status: Status) -> str:
    """Returns how far the trials in the lanes are, from the last to the first of them."""
    if not status.busy:
        return ""
    span = f"{status.least}–{status.most}" if status.least < status.most else f"{status.least}"
    return f"epoch {span}/{status.epochs}"
