"""What counts as memory that ran out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpjax.errors import HpjaxError
from hpjax.lanes.exhaustion import is_out_of_memory


def _allocate() -> None:
    jnp.zeros(2**50, jnp.uint8).block_until_ready()


def test_a_failed_allocation_of_the_device_and_what_it_caused():
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as caught:
        _allocate()
    assert is_out_of_memory(caught.value)
    try:
        raise HpjaxError("the user's model fails") from caught.value
    except HpjaxError as error:
        assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("something else")) and not is_out_of_memory(None)


@pytest.mark.parametrize("time", range(4))
def test_a_failed_allocation_of_a_call_that_was_under_way(time):
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as caught:
        jax.block_until_ready(jnp.zeros(2**50, jnp.uint8) + 1)
    assert is_out_of_memory(caught.value)


def test_a_failed_allocation_of_the_host():
    with pytest.raises(MemoryError) as caught:
        np.ones(2**60, np.uint8)
    assert is_out_of_memory(caught.value)
