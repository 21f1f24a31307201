"""One system in a process of its own, which the benchmark asks for one epoch at a time.

    python -m systems.child NAME WORKLOAD_AS_JSON

Commands come as lines on standard input, answers go as lines of JSON to standard output.
"""

import json
import os
import sys
import time
from typing import Any

from systems.system import System, Unavailable, create_system
from systems.workload import Workload


def main() -> None:
    """Serves until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    name, workload = sys.argv[1], Workload(**json.loads(sys.argv[2]))
    system, epoch = None, 0
    for _ in sys.stdin:
        if system is None:
            system, answer = _prepare(name, workload)
        else:
            answer = _run(system, epoch)
            epoch += 1
        print(json.dumps(answer), file=answers)


def _prepare(name: str, workload: Workload) -> tuple[System | None, dict[str, Any]]:
    """Builds the system; its first epoch, which compiles, is asked for apart."""
    start = time.perf_counter()
    try:
        system = create_system(name, workload)
    except Unavailable as error:
        return None, {"unavailable": str(error)}
    return system, {"seconds": time.perf_counter() - start, "detail": system.detail}


def _run(system: System, epoch: int) -> dict[str, Any]:
    try:
        return system.run_epoch(epoch)._asdict()
    except Unavailable as error:
        return {"unavailable": str(error)}


if __name__ == "__main__":
    main()
