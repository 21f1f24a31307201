"""Plans for a GPU that isn't here: what the compiler can't do is one line."""

import jax
import pytest

from hpjax.config import parse_config
from hpjax.errors import HpjaxError, UsageError
from hpjax.sweep.planning import stays_in_step
from hpjax.sweep.planning_for import _needing_compiler


def test_a_compiler_that_is_not_there_or_fails_is_one_line():
    missing, told = "--for=h100 needs XLA's compiler for CUDA", "--for=a100: XLA's compiler for CUDA fails"
    with pytest.raises(UsageError, match=f"{missing}.*: pip install"), _needing_compiler("h100"):
        raise NotImplementedError("no plugin")
    with pytest.raises(HpjaxError, match=f"{told}: INTERNAL: none") as caught, _needing_compiler("a100"):
        raise jax.errors.JaxRuntimeError("INTERNAL: none\n" + "\tof a map" * 1000)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"sweep": {"seeds": 2}}, False),
        ({"sweep": {"pruner": "median"}}, False),
        ({"sweep": {"pruner": "median", "seeds": 3}, "lanes": {"data_order": "shared"}}, True),
    ],
)
def test_lanes_share_batches_where_all_run_to_their_end(given, expected):
    assert stays_in_step(parse_config(given)) is expected
