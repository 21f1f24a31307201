"""hpjax itself: all lanes in one program, one after the other, in host threads, or as it chooses."""

import dataclasses
import os
import time
from typing import Any

import jax

from hpjax.config import parse_config
from hpjax.data.dataset import Dataset
from hpjax.data.splits import Split
from hpjax.lanes import capacity, group
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.program import Program
from hpjax.lanes.shuffle import Shuffle
from hpjax.lanes.task import Task
from hpjax.ops import tuning
from hpjax.train.hparams import create_hparams
from systems.system import Epoch
from systems.workload import CLASSES, Workload

OUT_OF_STEP = "auto_out_of_step"  # each lane at another pass over the examples, so that none share a batch


def create(workload: Workload, name: str) -> "Lanes":
    """Returns the trials as lanes, laid out as `name` says."""
    tuning.enable(workload.tune)
    program, task = create_program(workload), create_task(workload)
    layout, detail = create_layout(name, workload, program, task)
    return Lanes(workload, program, task, layout, detail, in_step=name != OUT_OF_STEP)


class Lanes:
    """An engine with one trial in each lane."""

    def __init__(
        self,
        workload: Workload,
        program: Program,
        task: Task,
        layout: Layout,
        detail: dict[str, Any],
        in_step: bool = True,
    ):
        self.detail, self._in_step = detail, in_step
        hparams = trial_hparams(workload)
        self._engine = Engine(program, task, hparams[0], workload.lanes, layout)
        for lane, trial in enumerate(hparams):
            self._engine.admit(lane, trial)

    def run_epoch(self, epoch: int) -> Epoch:
        """Trains all lanes; the result is on the host when this returns."""
        start = time.perf_counter()
        lanes = range(self._engine.num_lanes)
        shuffles = [Shuffle(0, epoch if self._in_step else epoch + 100 * lane) for lane in lanes]
        result = self._engine.run_epoch(shuffles, ())
        seconds = time.perf_counter() - start
        return Epoch(seconds, (result.train.loss / result.train.count).tolist())


def create_program(workload: Workload) -> Program:
    """Returns the workload's compiled functions."""
    config = parse_config({"model": {"name": workload.model}, "train": {"precision": workload.precision}})
    split = Split(*workload.load_examples())
    classes = tuple(map(str, range(CLASSES)))
    return group.create_program(config, Dataset("benchmark", classes, split, None, split, fingerprint=""))


def create_task(workload: Workload) -> Task:
    """Returns the workload's examples, cut into full batches."""
    return Task(Split(*workload.load_examples()), {}, workload.batch_size, keep_remainder=False)


def trial_hparams(workload: Workload) -> list:
    """Returns the trials' dynamic hyperparameters."""
    return [create_hparams(**trial._asdict()) for trial in workload.trials]


def create_layout(
    name: str, workload: Workload, program: Program, task: Task
) -> tuple[Layout, dict[str, Any]]:
    """Returns how the lanes are trained, and what that rests on."""
    if name in ("auto", OUT_OF_STEP):
        hparams, in_step = trial_hparams(workload)[0], name == "auto"
        choice = capacity.choose_layout(
            program, task, hparams, workload.lanes, count=workload.lanes, in_step=in_step
        )
        measured = {str(lanes): s for lanes, s in choice.lane_step_seconds.items()}
        return choice.layout, {**vars(choice.layout), "lane_step_seconds": measured}
    lanes = workload.lanes if name == "fused" else 1
    threads = len(os.sched_getaffinity(0)) if name == "threads" else 1
    seconds = _try_steps_per_call(workload, program, task, Layout(lanes, threads=threads))
    layout = Layout(lanes, min(seconds, key=seconds.__getitem__), threads=threads)
    return layout, {**vars(layout), "tried_seconds": {str(steps): s for steps, s in seconds.items()}}


def _try_steps_per_call(workload: Workload, program: Program, task: Task, layout: Layout) -> dict[int, float]:
    """Returns an epoch's seconds by steps per call, of one step and, where that may pay, of all of them."""
    seconds = {1: _try_layout(workload, program, task, layout)}
    calls = workload.steps * -(-workload.lanes // layout.lanes_per_shard)
    if jax.default_backend() != "cpu" or seconds[1] / calls < capacity.SHORT_STEP:
        many = dataclasses.replace(layout, steps_per_call=capacity.MANY_STEPS)
        seconds[capacity.MANY_STEPS] = _try_layout(workload, program, task, many)
    return seconds


def _try_layout(workload: Workload, program: Program, task: Task, layout: Layout) -> float:
    lanes = Lanes(workload, program, task, layout, {})
    lanes.run_epoch(0)
    return lanes.run_epoch(1).seconds
