"""How the process begins that compiles for a GPU; of a module that it can import by its name."""

import os
import sys


def begin(paths: list[str]) -> None:
    """Lets modules in these folders be imported, and hides real devices."""
    sys.path[:0] = paths
    os.environ["JAX_PLATFORMS"] = "cpu"
    # What is looked at is how well it is optimised.
    os.environ.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
