"""Memory that ran out, on the host or on a device."""

import jax

from hpjax.errors import CheckpointError, UserCodeError, WorkdirError

_RAISED = (jax.errors.JaxRuntimeError, ValueError)  # both by jax, for the same failure at different places
_SAID = ("RESOURCE_EXHAUSTED", "Out of memory allocating")  # the latter alone where a call was under way
# A full disk is RESOURCE_EXHAUSTED to TensorStore; a user's code may raise anything.
_NOT_OF_MEMORY = (WorkdirError, CheckpointError, UserCodeError)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Returns whether an exception, or what caused it, is a failed allocation."""
    while error is not None and not isinstance(error, _NOT_OF_MEMORY):
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, _RAISED) and any(said in str(error) for said in _SAID):
            return True
        error = error.__cause__ or error.__context__
    return False
