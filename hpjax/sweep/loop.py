"""An epoch of one group after the other: admit, train, record, decide, copy.

Everything that outlives a kill is in `GroupRun.ledger()` and the engine's snapshot; everything else is
recomputed from them.
"""

import dataclasses
import math
import time

import jax
import numpy as np

from hpjax.config.fields import Config
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.lanes.correction import Correction
from hpjax.lanes.engine import EpochResult
from hpjax.lanes.group import trial_hparams
from hpjax.lanes.shuffle import Shuffle, choose_shuffle
from hpjax.search.objective import Objective
from hpjax.search.pbt import Copy, Member, PlanCopies
from hpjax.search.trial import Trial
from hpjax.store.ranking import Ranking
from hpjax.store.rows import OBJECTIVE, CopyRow, EpochRow, to_columns
from hpjax.sweep.protocol import Events, Slot, Status
from hpjax.sweep.workers import Lanes
from hpjax.train.loss import LossRule
from hpjax.train.scores import measure

_OWN = frozenset(field.name for field in dataclasses.fields(EpochRow))


class GroupRun:
    """Lanes and the trials in them.

    Args:
      config: any trial's of the group.
      engine: its lanes.
      correction: compares training with its plan; see `hpjax.lanes.correction`.
      objective: what counts.
      ranking: which epoch ranks a trial, and so gives its weights.
      splits: which splits are evaluated each epoch.
      events: the sweep around it.
      plan_copies: for population based training, see `hpjax.search.pbt`.
    """

    def __init__(
        self,
        config: Config,
        engine: Lanes,
        correction: Correction,
        objective: Objective,
        ranking: Ranking,
        splits: tuple[str, ...],
        events: Events,
        plan_copies: PlanCopies | None = None,
    ):
        self.config, self.engine, self.correction = config, engine, correction
        self.objective, self.ranking, self.splits, self.events = objective, ranking, splits, events
        self.slots: list[Slot | None] = [None] * engine.num_lanes
        self.epoch = 0
        self.lane_epochs = self.busy_lane_epochs = 0
        self.images_per_second = 0.0
        self._lane_step_seconds = math.inf  # of the last epoch's training; infinite where it says nothing
        self._plan_copies = plan_copies

    def run_epoch(self) -> tuple[EpochResult, float]:
        """Trains and evaluates every lane once; nothing else changes, so a thread may do it.

        Returns:
          What came out, and the seconds that it took besides compiling.

        Raises:
          Stopped: The sweep is to stop, and needn't wait for the epoch.
        """
        start = time.perf_counter()
        result = self.engine.run_epoch([slot and self._shuffle(slot) for slot in self.slots], self.splits)
        return result, max(time.perf_counter() - start - result.compile_seconds, 1e-9)

    def end_epoch(self, result: EpochResult, seconds: float) -> None:
        """Records what `run_epoch` returned, decides about trials, and fills lanes whose trial ended."""
        self._lane_step_seconds = self._measure(result)
        self.epoch += 1
        self.lane_epochs += len(self.slots)
        self.busy_lane_epochs += len(self.busy)
        self._record(result, seconds)
        self.correct_layout()
        self.copy()
        self.refill()

    def _shuffle(self, slot: Slot) -> Shuffle:
        """Returns the pass over the training examples that a trial takes next.

        Members of a population differ in their seed, and still share the order of examples.
        """
        return choose_shuffle(self.config, slot.trial.seed_index, slot.epoch, self.epoch)

    @property
    def busy(self) -> list[Slot]:
        """The slots in use."""
        return [slot for slot in self.slots if slot is not None]

    def correct_layout(self) -> None:
        """Goes on in another layout where training is slower than that was measured to be."""
        layout = self.correction.next_layout(self.epoch, self._lane_step_seconds, self.engine.layout)
        if layout is not None:
            self.engine.change_layout(layout)

    def _measure(self, result: EpochResult) -> float:
        """Returns the seconds per lane and step of an epoch; infinite where lanes were idle."""
        if len(self.busy) < len(self.slots) or result.own != self.correction.own:
            return math.inf
        lane_steps = self.engine.lanes_per_device * self.engine.task.steps_per_epoch
        return result.train_seconds / lane_steps

    def copy(self) -> None:
        """Population based training: has the worst trials go on from the state of the best."""
        if self._plan_copies is None:
            return
        lanes = {slot.trial.number: lane for lane, slot in enumerate(self.slots) if slot}
        members = [Member(s.trial, s.epoch, self.objective.score(s.value)) for s in self.busy]
        copies = self._plan_copies(members, self.epoch)
        if not copies:
            return
        sources = list(range(len(self.slots)))
        for copy in copies:
            sources[lanes[copy.trial]] = lanes[copy.source]
        self.engine.copy_lanes(sources)
        for copy in copies:
            self._explore(lanes[copy.trial], copy)

    def _explore(self, lane: int, copy: Copy) -> None:
        slot = self.slots[lane]
        assert slot is not None
        slot.trial = dataclasses.replace(slot.trial, hyperparameters=copy.hyperparameters)
        self.engine.set_hparams(lane, self.hparams(slot.trial))
        self.events.copy(slot.trial, CopyRow(copy.trial, slot.epoch, copy.source, copy.hyperparameters))

    def refill(self) -> None:
        """Admits trials to idle lanes, and shrinks the program when few are left."""
        for lane, slot in enumerate(self.slots):
            if slot is None and (trial := self.events.next_trial()) is not None:
                self._admit(lane, trial)
        self._shrink()

    def take_in(self) -> None:
        """Admits trials to lanes that the engine has got besides those that it had."""
        self.slots += [None] * (self.engine.num_lanes - len(self.slots))
        self.refill()

    def _admit(self, lane: int, trial: Trial) -> None:
        if (kept := self.events.take_up(trial)) is not None:
            self.slots[lane], arrays = kept
            self.engine.put(lane, arrays)
            return
        self.engine.admit(lane, self.hparams(trial))
        self.slots[lane] = Slot(trial)
        self.events.start(trial, self.epoch if self.config.lanes.data_order == "shared" else 0)

    def status(self) -> Status:
        """Returns where the group stands."""
        done = [slot.epoch for slot in self.busy] or [0]
        speed, epochs = self.images_per_second, self.config.train.epochs
        return Status(self.epoch, len(self.busy), min(done), max(done), epochs, speed)

    def hparams(self, trial: Trial):
        """Returns a trial's dynamic hyperparameters."""
        return trial_hparams(apply_hyperparameters(self.config, trial.hyperparameters), trial.seed)

    def ledger(self) -> dict:
        """Returns what `resume` needs besides the lanes, as JSON."""
        slots = [dataclasses.asdict(slot) if slot else None for slot in self.slots]
        return {
            "epoch": self.epoch,
            "slots": slots,
            "lane_epochs": self.lane_epochs,
            "busy_lane_epochs": self.busy_lane_epochs,
            "layout": vars(self.engine.layout),
            "correction": self.correction.to_dict(),
        }

    def resume(self, ledger: dict) -> None:
        """Goes on from `ledger`, with lanes that were restored."""
        self.epoch = ledger["epoch"]
        self.lane_epochs, self.busy_lane_epochs = ledger["lane_epochs"], ledger["busy_lane_epochs"]
        self.slots = [Slot(**{**s, "trial": Trial(**s["trial"])}) if s else None for s in ledger["slots"]]

    def _record(self, result: EpochResult, seconds: float) -> None:
        busy = len(self.busy)
        self.images_per_second = busy * len(self.engine.task.train) / seconds
        scores = np.full(len(self.slots), -np.inf)
        pruned, unmeasured = {}, set()
        for lane, slot in enumerate(self.slots):
            if slot is None or result.diverged_step[lane] >= 0:
                continue
            slot.epoch += 1
            columns = measure_lane(self.engine.program.recipe.loss, result, lane)
            row = _epoch_row(slot, columns, seconds, busy, len(self.engine.task.train))
            value = self.objective.measure(_columns(row))
            if value is None:
                unmeasured.add(lane)
            slot.value = math.nan if value is None else value
            score = self.objective.score(slot.value)
            slot.best = max(slot.best, score)
            slot.score = self.ranking.pick(score, slot.best)
            scores[lane] = self.ranking.weights_score(slot.epoch, score)
            pruned[lane] = self.events.record(slot.trial, row, slot.value, slot.score)
        self.engine.keep_best(scores)
        self._free(result, pruned, unmeasured)

    def _free(self, result: EpochResult, pruned: dict[int, bool], unmeasured: set[int]) -> None:
        for lane, slot in enumerate(self.slots):
            if slot is None:
                continue
            ends = int(result.diverged_step[lane]), pruned.get(lane, False), lane in unmeasured
            status, message = self._status(slot, *ends)
            if status == "running":
                continue
            if status == "diverged":
                slot.score = -math.inf
            if status == "complete" and self.events.wants_state():
                self.events.keep_state(slot, self.engine.take_out(lane))
            wanted = self.events.wants_weights(slot.trial, slot.score)
            self.events.finish(slot, status, message, self.engine.weights(lane) if wanted else None)
            self.slots[lane] = None

    def _status(self, slot: Slot, diverged_step: int, pruned: bool, unmeasured: bool) -> tuple[str, str]:
        ends = slot.epoch >= self.config.train.epochs
        if diverged_step >= 0:
            return "diverged", f"loss or gradient not finite at step {diverged_step}"
        if unmeasured and ends:
            return "diverged", f"{self.objective.name} has no value after the last epoch"
        if math.isnan(slot.value) and not unmeasured:
            return "diverged", f"{self.objective.name} not finite after epoch {slot.epoch}"
        if ends:
            return "complete", ""
        return ("pruned", f"after epoch {slot.epoch}") if pruned else ("running", "")

    def _shrink(self) -> None:
        kept = self.engine.shrink([lane for lane, slot in enumerate(self.slots) if slot is not None])
        if kept is not None:
            self.slots = [self.slots[lane] for lane in kept]


def _epoch_row(
    slot: Slot, columns: dict[str, float | None], seconds: float, busy: int, images: int
) -> EpochRow:
    own = {name: value for name, value in columns.items() if name in _OWN}
    return EpochRow(
        trial=slot.trial.number,
        epoch=slot.epoch,
        epoch_seconds=seconds,
        lanes=busy,
        images_per_second=images * busy / seconds,
        **own,  # type: ignore[arg-type]
        more={name: value for name, value in columns.items() if name not in own},
    )


def measure_lane(rule: LossRule, result: EpochResult, lane: int) -> dict[str, float | None]:
    """Returns the columns of an epoch that say what a lane learned, by name."""
    columns = {}
    for split, sums in {"train": result.train, **result.evaluated}.items():
        measured = measure(rule, jax.tree.map(lambda x: x[lane], sums))
        columns |= {f"{split}_{name}": value for name, value in measured.items()}
    return columns


def _columns(row: EpochRow) -> dict:
    # What the objective is made of.
    return {name: value for name, value in to_columns(row).items() if name != OBJECTIVE}
