"""The benchmark's side of its systems: processes that are prepared once and asked for epochs in turn."""

import dataclasses
import json
import os
import pathlib
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hpjax.cli.host_memory import kept_memory_environment
from systems.system import Epoch, Unavailable
from systems.workload import Workload

ROOT = pathlib.Path(__file__).parents[1]


def has_gpu() -> bool:
    """Returns whether the systems should find a GPU."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return platforms != "cpu" and any(pathlib.Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvidiactl"))


def child_environment(
    on_gpu: bool, keep_memory: bool = True, changes: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the environment of every system, PyTorch's too.

    On a CPU each gets the allocator and the settings that hpjax restarts itself for, unless `keep_memory` is
    False. On a GPU memory is taken as it is needed, as the systems share the device.

    Args:
      on_gpu: whether the systems train on one.
      keep_memory: whether they get that allocator.
      changes: variables that differ from this process's, such as `HPJAX_ALLOCATOR`.
    """
    paths = [str(ROOT), str(ROOT.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **(changes or {}), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if on_gpu:
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    else:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        if keep_memory:
            environment = kept_memory_environment(environment) or environment
    return environment


class Child:
    """One system in one process.

    Args:
      name: of the system.
      workload: what it trains.
      environment: of the process.
      cores: that it is kept to; empty: all.
      timeout: seconds that an answer may take.
    """

    def __init__(
        self,
        name: str,
        workload: Workload,
        environment: Mapping[str, str],
        cores: Sequence[int] = (),
        timeout: float = 600,
    ):
        self.detail: dict[str, Any] = {}
        self._timeout = timeout
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as the child
        command = [sys.executable, "-m", "systems.child", name, json.dumps(dataclasses.asdict(workload))]
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )

    def prepare(self) -> float:
        """Has the system built; returns how many seconds it took.

        Raises:
          Unavailable: It can't be, or died; says why.
        """
        self.ask()
        answer = self.answer()
        self.detail = answer["detail"]
        return answer["seconds"]

    def run_epoch(self) -> Epoch:
        """Has every trial trained for an epoch.

        Raises:
          Unavailable: It can't be, or died; says why.
        """
        self.ask()
        return Epoch(**self.answer())

    def set_timeout(self, seconds: float) -> None:
        """Changes how long an answer may take."""
        self._timeout = seconds

    def ask(self) -> None:
        """Sends the child on its way."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
        except BrokenPipeError as error:
            raise Unavailable(self._last_words()) from error

    def answer(self) -> dict[str, Any]:
        """Waits for the child's answer."""
        line = self._read_line()
        if not line:
            raise Unavailable(self._last_words())
        answer = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._errors.closed:
            return
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            file.close()  # type: ignore[union-attr]

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(self._timeout):
                raise Unavailable(f"no answer within {self._timeout:.0f} seconds")
        return self._process.stdout.readline()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
        return f"exit status {status}: {(raised or lines or ['no message'])[-1]}"


class Gang:
    """Trials shared out among processes that train at once, each sequentially.

    Args:
      workload: what all of them train.
      processes: how many.
      environment: of each of them.
      cores: to be shared out among them; empty: each may use all.
      timeout: seconds that an answer may take.
    """

    def __init__(
        self,
        workload: Workload,
        processes: int,
        environment: Mapping[str, str],
        cores: Sequence[int] = (),
        timeout: float = 600,
    ):
        self.detail: dict[str, Any] = {"processes": processes}
        self._children: list[Child] = []
        self._asked = 0
        for i in range(processes):
            own = cores[len(cores) * i // processes : len(cores) * (i + 1) // processes]
            self._children.append(Child("sequential", workload.part(i, processes), environment, own, timeout))

    def prepare(self) -> float:
        """Has the systems built."""
        start = time.perf_counter()
        self.detail["of_each"] = self._ask_all()[0]["detail"]
        return time.perf_counter() - start

    def run_epoch(self) -> Epoch:
        """Releases all processes at once; the seconds end with the slowest of them."""
        start = time.perf_counter()
        answers = self._ask_all()
        seconds = time.perf_counter() - start
        return Epoch(seconds, [loss for answer in answers for loss in answer["losses"]])

    def set_timeout(self, seconds: float) -> None:
        """Changes how long an answer of each process may take."""
        for child in self._children:
            child.set_timeout(seconds)

    def _ask_all(self) -> list[dict[str, Any]]:
        """Asks all at once, but the first two times one goes ahead, and the others find what it compiled."""
        ahead = self._children[: self._asked < 2]
        self._asked += 1
        answers = []
        for children in (ahead, self._children[len(ahead) :]):
            for child in children:
                child.ask()
            answers += [child.answer() for child in children]
        return answers

    def close(self) -> None:
        """Ends the processes."""
        for child in self._children:
            child.close()
