"""hpjax's command line, which also says on standard error when its first training step is done.

python -m systems.first_step --config=FILE …
"""

import functools
import sys
from typing import Any

from hpjax.cli.host_memory import restart_with_kept_memory
from hpjax.main import main

DONE = "first step done"


def announce_first_step() -> None:
    """Has the first call of the first epoch wait for its result, and say so; what is tried doesn't count."""
    import jax

    from hpjax.lanes.program import Program
    from hpjax.sweep.loop import GroupRun

    train, run_epoch = Program.train, GroupRun.run_epoch

    @functools.wraps(train)
    def first(*arguments: Any, **more: Any) -> Any:
        Program.train = train
        result = jax.block_until_ready(train(*arguments, **more))
        print(DONE, file=sys.stderr, flush=True)
        return result

    def begin(self: GroupRun) -> Any:
        Program.train, GroupRun.run_epoch = first, run_epoch
        return run_epoch(self)

    GroupRun.run_epoch = begin


if __name__ == "__main__":
    restart_with_kept_memory()
    announce_first_step()
    sys.exit(main())
