"""The threads that XLA computes with on a CPU: jax starts them once, with its first device."""

import contextlib
import ctypes
import resource
from collections.abc import Iterator
from pathlib import Path

import jax

from hpjax.errors import DeviceError

# XLA's convolutions take their sums in slices, each from within the one before where threads wait for each
# other: a kilobyte of stack for about 80 values of the sum, so more than the usual 8 MB for 32 images of 150
# pixels. Seen with jaxlib 0.10.2 (https://github.com/tensorflow/tensorflow/issues/14807). What isn't used
# takes no memory.
STACK_BYTES = 512 << 20

_ATTRIBUTES_BYTES = 256  # of a `pthread_attr_t`, which has 56 or 64


def start_devices() -> None:
    """Has jax find its devices, and start a CPU's threads with stacks that training can't exhaust.

    Where jax has found them before, its threads stay as they are.

    Raises:
      DeviceError: There are none.
    """
    with _default_stack(STACK_BYTES):
        try:
            jax.devices()
        except (RuntimeError, AssertionError) as error:
            told = jax.config.jax_platforms  # type: ignore[attr-defined]
            raise DeviceError(f"JAX_PLATFORMS={told}: jax finds no such device here; {error}") from error


@contextlib.contextmanager
def _default_stack(size: int) -> Iterator[None]:
    """Gives threads that are started inside the block a stack of `size` bytes, if they don't ask for less."""
    library = _posix_threads() if _may_reserve() else None
    if library is None:
        yield
        return
    before, deep = (ctypes.create_string_buffer(_ATTRIBUTES_BYTES) for _ in range(2))
    library.pthread_getattr_default_np(before)
    library.pthread_getattr_default_np(deep)
    library.pthread_attr_setstacksize(deep, ctypes.c_size_t(size))
    library.pthread_setattr_default_np(deep)
    try:
        yield
    finally:
        library.pthread_setattr_default_np(before)


def _posix_threads() -> ctypes.CDLL | None:
    """Returns the C library where it has a default for all threads, as glibc has."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        if library.pthread_getattr_default_np and library.pthread_setattr_default_np:
            return library
    return None


def _may_reserve() -> bool:
    """Returns whether memory that is never used costs nothing, not even a promise."""
    with contextlib.suppress(OSError, ValueError):
        limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        return not limited and Path("/proc/sys/vm/overcommit_memory").read_text("utf-8").strip() != "2"
    return False
