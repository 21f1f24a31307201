"""A file that the system lets grow by so many bytes only, as a disk does that is nearly full."""

import contextlib
import resource

import pytest


@pytest.fixture
def full_after():
    """Returns a context in which no file may become longer than a given one and some bytes."""

    @contextlib.contextmanager
    def limit(path, room):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
