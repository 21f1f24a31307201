"""The search that is killed, on a machine whose clocks stand still: nothing that is spaced by time comes."""

import time

NOW = {name: getattr(time, name)() for name in ("time", "monotonic", "perf_counter")}
for _name, _value in NOW.items():  # before anything of the sweep's binds them
    setattr(time, _name, lambda value=_value: value)

from search_sweep import get_config as get_search  # noqa: E402


def get_config():
    return get_search()
