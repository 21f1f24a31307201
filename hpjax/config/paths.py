"""Paths as people write them: with `~` and environment variables."""

import os


def expand_path(text: str) -> str:
    """Returns a path with `~`, `~user`, `$NAME` and `${NAME}` replaced; what isn't known stays as it is."""
    if not text.isprintable():  # no path of a user's own; the system's look-up of users would raise
        return text
    return os.path.expanduser(os.path.expandvars(text))
