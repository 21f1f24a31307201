"""How many lanes fit, and which layout trains them fastest: by measurement of a few steps."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax

from hpjax.lanes.engine import Layout
from hpjax.lanes.memory_left import available_bytes
from hpjax.lanes.probe import MANY_STEPS, Candidate, Probe, parse_candidate, steps_per_call
from hpjax.lanes.program import Program
from hpjax.lanes.task import Task
from hpjax.ops import memory
from hpjax.train.hparams import Hparams

MEMORY_MARGIN = 0.85  # of the device's limit may be used
LEAST_GAIN = 1.03  # a wider program must train at least so much faster per lane
FUSED_MAX = 64  # lanes of one program when nothing else limits them
PATIENCE = 4  # first compile times: training that takes less isn't held up by compiling wider programs
SHORT_STEP = 2e-3  # seconds; below it a call a step may be bound by dispatch
CLOSE = 1.2  # layouts that took at most so many times the fastest's time are measured once more, in turns
CALL_SECONDS = 0.5  # of one call of many steps: how long an interruption may have to wait


@dataclass(frozen=True)
class Choice:
    """The layout that a group is trained with, and what it rests on."""

    layout: Layout
    num_lanes: int
    step_seconds: float  # one step of one shard; 0 when nothing was measured
    speedup: float  # over one lane at a time; 1 when sequential, 0 when unknown
    memory_bytes: int  # device memory of the program, 0 when unknown
    lane_step_seconds: dict[int, float]  # measured seconds per lane and step, by lanes per call; may be empty
    candidate: Candidate | None = None  # that the layout is made of; None when nothing was measured
    measured: dict[Candidate, float] = dataclasses.field(default_factory=dict)  # seconds per lane and step
    key: str = ""  # under which the measurement is remembered; empty: it isn't
    in_step: bool = True  # measured with batches that lanes share


def choose_layout(
    program: Program,
    task: Task,
    hparams: Hparams,
    wanted: int,
    count: int = 0,
    strategy: str = "auto",
    devices: int = 0,
    name: str = "",
    lane_steps: int = 0,
    in_step: bool = True,
) -> Choice:
    """Returns how to train a group.

    Args:
      program: the group's functions.
      task: its data.
      hparams: any trial's.
      wanted: how many trials could run side by side.
      count: lanes asked for; 0: as many as fit and pay.
      strategy: auto (measure), fused or sequential.
      devices: devices to spread over; 0: all.
      name: what distinguishes the program; a choice that was measured is remembered under it, so that the
        same sweep is trained the same way, to the bit, when it is run again. Empty: not remembered.
      lane_steps: training steps of all trials together. Where they take less time than compiling wider
        programs would, only one lane a call is tried. 0: unknown, many.
      in_step: whether lanes take the same batches most of the time; else each takes its own.
    """
    limit = count or min(wanted, FUSED_MAX * count_devices(devices))
    num_devices = min(count_devices(devices), limit)  # others would only fill up
    probe = Probe(program, task, hparams, own=not in_step, devices=num_devices)
    per_device = -(-limit // num_devices)
    if limit == 1 or strategy != "auto":
        fitting = limit if count else min(limit, _lanes_that_fit(probe, per_device) * num_devices)
        return _estimate(probe, fixed_choice("sequential" if limit == 1 else strategy, fitting, num_devices))
    spread = f" on each of {num_devices} devices" if num_devices > 1 else ""
    key = f"layout of {per_device} lanes{spread}{'' if in_step else ' out of step'}: {name}"
    briefly = f"{key}, {lane_steps} steps in all"
    seconds = (_recall(briefly, probe) or _recall(key, probe)) if name else None
    if seconds is None:
        seconds, complete = _measure(probe, per_device, lane_steps)
        if name:
            times = {c.name: 1e3 * s for c, s in seconds.items()}
            memory.remember(key if complete else briefly, _fastest(seconds).name, times)
    choice = _choice(probe, seconds, limit, num_devices, keep_count=bool(count))
    return dataclasses.replace(choice, key=key if name else "", in_step=in_step)


def count_devices(asked: int) -> int:
    """Returns how many devices are used where so many are asked for; 0: all."""
    return min(asked or len(jax.devices()), len(jax.devices()))


def fixed_choice(strategy: str, num_lanes: int, devices: int, most: int = 0) -> Choice:
    """Returns a layout that isn't measured: all lanes (or `most`) in one call per device, or one a call."""
    num_devices = min(count_devices(devices), num_lanes)
    per_shard = 1 if strategy == "sequential" else -(-num_lanes // num_devices)
    per_shard = min(per_shard, most or per_shard)
    layout = Layout(per_shard, steps_per_call(), num_devices)
    return Choice(layout, num_lanes, 0.0, 1.0 if per_shard == 1 else 0.0, 0, {})


def device_memory_limit() -> int:
    """Returns the bytes that arrays may take on the first device; on a CPU, what is available now."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return available_bytes()


def _estimate(probe: Probe, choice: Choice) -> Choice:
    """Returns the choice with its memory and time, for the plan."""
    lanes = choice.layout.lanes_per_shard
    needed = _memory(probe, lanes)
    if needed > device_memory_limit():  # as was asked for: training will tell
        return dataclasses.replace(choice, memory_bytes=needed)
    seconds = probe.seconds_if_it_fits(Candidate(lanes, 1, choice.layout.steps_per_call), repeats=1)
    if seconds == math.inf:
        return dataclasses.replace(choice, memory_bytes=needed)
    return dataclasses.replace(
        choice, step_seconds=seconds * lanes, memory_bytes=needed, lane_step_seconds={lanes: seconds}
    )


def _host_threads() -> int:
    """Returns how many calls are worth running at once: on a CPU, operations don't fill all cores alone."""
    return memory.usable_cores() if jax.default_backend() == "cpu" else 1


def _lanes_that_fit(probe: Probe, wanted: int) -> int:
    most = _most_within(_room(), probe.memory, wanted)
    needed = probe.memory(1) + (most - 1) * (probe.memory(2) - probe.memory(1))
    if needed * probe.evaluation_bound <= _room():
        return most
    return _most_within(_room(), lambda n: max(probe.memory(n), probe.evaluation_memory(n)), most)


def _most_within(room: float, memory_of: Callable[[int], int], wanted: int) -> int:
    one, two = memory_of(1), memory_of(2)
    per_lane = max(two - one, 1)
    return max(1, min(wanted, int((room - (one - per_lane)) // per_lane)))


def _memory(probe: Probe, lanes: int) -> int:
    """Returns what training and evaluation need at most; the latter is compiled only where it may not fit."""
    training = probe.memory(lanes)
    fits = training * probe.evaluation_bound <= _room()
    return training if fits else max(training, probe.evaluation_memory(lanes))


def _room() -> float:
    return MEMORY_MARGIN * device_memory_limit()


def _measure(probe: Probe, wanted: int, lane_steps: int) -> tuple[dict[Candidate, float], bool]:
    """Measures the layouts worth trying for up to `wanted` lanes.

    Returns:
      Seconds per lane and step, and whether all layouts were tried: few steps aren't worth a long search.
    """
    first, one = Candidate(1, 1, steps_per_call()), probe.memory(1)
    seconds = {first: probe.seconds(first)}

    def is_gain(candidate: Candidate) -> bool:
        best, taken = seconds[_fastest(seconds)], probe.seconds_if_it_fits(candidate)
        if taken < math.inf:
            seconds[candidate] = taken
        return taken * LEAST_GAIN <= best

    threads = min(wanted, _host_threads(), int(_room() // max(one, 1)))
    if threads > 1:
        is_gain(first._replace(threads=threads))
    if 0 < lane_steps * min(seconds.values()) < PATIENCE * probe.compile_seconds:
        return seconds, False
    most, lanes = _lanes_that_fit(probe, wanted), 2
    while lanes <= most:
        used = min(_fastest(seconds).threads, most // lanes)
        candidate = Candidate(lanes, used, first.steps)
        # Two lanes may lose to one for what lanes cost at all; four then show whether they gain.
        if not is_gain(candidate) and (lanes > 2 or candidate not in seconds):
            break
        lanes = most if lanes < most < 2 * lanes else 2 * lanes
    best = _fastest(seconds)
    if best.steps > 1 or seconds[best] * best.at_once < SHORT_STEP:
        is_gain(best._replace(steps=1 if best.steps > 1 else MANY_STEPS))
    _measure_in_turns(probe, seconds)
    return seconds, True


def _measure_in_turns(probe: Probe, seconds: dict[Candidate, float]) -> None:
    """Lowers the seconds of the fastest candidates to what they take when measured again, alternately.

    And those of a lane alone: it was measured first, when memory was still to be given, and is what the
    speed-up is told over.
    """
    limit = CLOSE * min(seconds.values())
    again = [c for c, s in seconds.items() if s <= limit or c.at_once == 1]
    for _ in range(2 if len(again) > 1 else 0):
        for candidate in again:
            seconds[candidate] = min(seconds[candidate], probe.seconds_if_it_fits(candidate, repeats=3))


def _fastest(seconds: dict[Candidate, float]) -> Candidate:
    """Returns the candidate with the fewest seconds; a wider program must be clearly faster."""
    ranked = sorted(seconds, key=lambda c: (c.at_once, c.steps))
    best = ranked[0]
    for candidate in ranked[1:]:
        if seconds[candidate] * LEAST_GAIN <= seconds[best]:
            best = candidate
    return best


def _recall(key: str, probe: Probe) -> dict[Candidate, float] | None:
    """Returns what was measured for the same program, if it still reads as that and its choice fits."""
    named = {parse_candidate(name): ms for name, ms in memory.measured(key).items()}
    found = {candidate: ms / 1e3 for candidate, ms in named.items() if candidate is not None and ms > 0}
    if not any(candidate.at_once == 1 for candidate in found):
        return None
    best = _fastest(found)
    needed = _memory(probe, best.lanes) * best.threads
    return found if needed <= _room() else None


def _choice(
    probe: Probe, seconds: dict[Candidate, float], limit: int, devices: int, keep_count: bool
) -> Choice:
    best = _fastest(seconds)
    alone = min(s for c, s in seconds.items() if c.at_once == 1)
    return Choice(
        create_layout(best, seconds[best], devices),
        limit if keep_count else min(limit, best.at_once * devices),
        seconds[best] * best.at_once,
        alone / seconds[best],
        probe.memory(best.lanes) * best.threads,
        {best.lanes: seconds[best]},
        best,
        seconds,
    )


def create_layout(candidate: Candidate, lane_step_seconds: float, devices: int) -> Layout:
    """Returns the layout of a candidate that was measured."""
    steps = candidate.steps
    if steps > 1:
        steps = _steps_within(CALL_SECONDS, lane_step_seconds * candidate.lanes)
    return Layout(candidate.lanes, steps, devices, candidate.threads)


def _steps_within(seconds: float, step_seconds: float) -> int:
    return max(2, math.ceil(seconds / step_seconds))
