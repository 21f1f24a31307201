"""The device that programs are traced for: the one that is here, or another that they are compiled for."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax


class Target(NamedTuple):
    """A device by what the choice of a lowering depends on."""

    backend: str  # as `jax.default_backend()` names it
    kind: str  # as the device's `device_kind`


# Part of the keys of jax's caches: what was traced for one device isn't taken for another.
_CHOSEN: Any = jax.make_user_context(None)


@contextlib.contextmanager
def compiling_for(target: Target) -> Iterator[None]:
    """Makes what is traced inside the block suit another device than this process has."""
    with _CHOSEN(target):
        yield


def is_elsewhere() -> bool:
    """Returns whether what is traced is compiled for a device that this process hasn't."""
    return _CHOSEN.value is not None


def backend() -> str:
    """Returns the name of the backend that is traced for."""
    return _CHOSEN.value.backend if _CHOSEN.value else jax.default_backend()


def device_kind() -> str:
    """Returns the kind of the device that is traced for."""
    return _CHOSEN.value.kind if _CHOSEN.value else jax.devices()[0].device_kind
