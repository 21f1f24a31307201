"""What a sweep's groups would need of a GPU that isn't here: the table of `--plan --for`."""

import contextlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

import jax

from hpjax.compiled.gpus import GPUS, Gpu
from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.errors import HpjaxError, UsageError, text_of
from hpjax.lanes.elsewhere import Needs, compile_for, usable_bytes
from hpjax.search.plan import describe_size, describe_static, format_rows
from hpjax.search.queue import most_unfinished
from hpjax.sweep.planning import MOST_LANES, introduce, list_first, stays_in_step
from hpjax.sweep.preflight import check_groups
from hpjax.sweep.session import Session

TRIED = (1, 8, 16, 32, 64)  # lanes, where the config doesn't say
HEAD = ("group", "lanes", "memory", "fits", "kernels a step", "moved a lane-step", "a lane-step at least")


@dataclass(frozen=True)
class ForeignPlan:
    """What each group would need of a GPU, at different numbers of lanes.

    Attributes:
      gpu: what was compiled for.
      groups: by the swept hyperparameters that shape the program, in words.
    """

    gpu: Gpu
    groups: dict[str, list[Needs]]

    def __str__(self) -> str:
        rows = [HEAD, *(_row(name, needs) for name, each in self.groups.items() for needs in each)]
        usable, all_ = describe_size(usable_bytes(self.gpu)), describe_size(self.gpu.memory_bytes)
        head = f"compiled for {self.gpu.kind}, not timed: no GPU was used"
        tail = (
            f"{usable} of its {all_} may be used; cuDNN's workspaces come on top of the memory named. Times"
            " are what bandwidth, arithmetic and launches take at least, without evaluation."
        )
        return "\n".join([head, *format_rows(rows), tail])


def plan_groups_for(session: Session, name: str) -> ForeignPlan:
    """Returns what the groups that are known before anything is trained would need of the GPU `name`.

    Raises:
      UsageError: XLA's compiler for CUDA isn't installed.
      HpjaxError: It fails.
    """
    gpu, config = GPUS[name], session.spec.config
    check_groups(config, session.datasets.load)
    groups: dict[str, list[Needs]] = {}
    with _needing_compiler(name):
        for first, trials in list_first(session):
            own = apply_hyperparameters(config, first.hyperparameters)
            dataset = session.datasets.load(own)
            if not groups:
                introduce(session, dataset)
            static = {k: v for k, v in first.hyperparameters.items() if k not in session.spec.space.dynamic}
            groups[describe_static(static)] = [
                compile_for(
                    gpu, own, dataset, session.spec.tests_each_epoch, lanes, in_step=stays_in_step(own)
                )
                for lanes in _list_lanes(session, trials)
            ]
    return ForeignPlan(gpu, groups)


def _list_lanes(session: Session, trials: int) -> list[int]:
    """Returns the numbers of lanes that are compiled: those asked for, or some up to what could run."""
    config = session.spec.config
    if config.lanes.strategy == "sequential":
        return [1]
    most = config.lanes.count or min(trials, MOST_LANES, most_unfinished(config) or trials)
    return [most] if config.lanes.count else sorted({*(n for n in TRIED if n < most), most})


@contextlib.contextmanager
def _needing_compiler(name: str) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        version = importlib.metadata.version("jaxlib")
        raise UsageError(
            f"--for={name} needs XLA's compiler for CUDA, of jaxlib's version: pip install --no-deps"
            f" jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise HpjaxError(f"--for={name}: XLA's compiler for CUDA fails: {text_of(error, 300)}") from error


def _row(name: str, needs: Needs) -> tuple[str, ...]:
    return (
        name,
        str(needs.lanes),
        describe_size(needs.memory_bytes),
        "yes" if needs.fits else "no",
        f"{needs.kernels:,}",
        describe_size(needs.moved_bytes // needs.lanes),
        f"{1e6 * needs.lane_step_seconds:,.0f} µs",
    )
