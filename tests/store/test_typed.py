"""JSON's values become dataclasses only where every field has its type."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpjax.store.typed import is_dict_of, read_as


@dataclass(frozen=True)
class Inner:
    text: str
    flag: bool = False


@dataclass(frozen=True)
class Outer:
    inner: Inner
    count: int
    ratio: float = 0.5
    maybe: float | None = None
    names: list[str] = field(default_factory=list)
    rows: tuple[Mapping[str, Any], ...] = ()
    values: Mapping[str, float | str | None] = field(default_factory=dict)


GOOD = Outer(Inner("a", True), 3, 1.5, None, ["x"], (), {"a": 1.0, "b": "c", "d": None})


def _json(**changes):
    return {**json.loads(json.dumps(asdict(GOOD))), **changes}


def test_what_was_written_is_read_back():
    read = read_as(Outer, _json())
    assert (read.inner, read.count, read.values) == (GOOD.inner, GOOD.count, GOOD.values)
    assert read_as(Outer, {"inner": {"text": "a"}, "count": 1}) == Outer(Inner("a"), 1)
    assert read_as(Outer, _json(ratio=2, maybe=float("nan"))).ratio == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 1.0},
        {"count": True},
        {"count": "1"},
        {"count": 10**30},
        {"count": -(10**30)},
        {"ratio": "0.5"},
        {"ratio": True},
        {"ratio": 10**400},
        {"maybe": []},
        {"names": "x"},
        {"names": [1]},
        {"names": {"a": "b"}},
        {"rows": [1]},
        {"values": {"a": []}},
        {"values": []},
        {"inner": {"text": 1}},
        {"inner": {}},
        {"inner": None},
        {"inner": {"text": "a", "more": 1}},
        {"more": 1},
    ],
    ids=str,
)
def test_other_types_are_refused(changes):
    with pytest.raises(ValueError):
        read_as(Outer, _json(**changes))


@pytest.mark.parametrize("value", [None, 1, "a", [], [["count", 1]], {}])
def test_what_is_no_such_mapping_is_refused(value):
    with pytest.raises(ValueError):
        read_as(Outer, value)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*asdict(GOOD), "more"]), _ANY))
def test_whatever_is_there_is_taken_with_its_types_or_refused(changes):
    try:
        read = read_as(Outer, _json(**changes))
    except ValueError:
        return
    assert type(read.count) is int and isinstance(read.ratio, int | float)
    assert type(read.inner.text) is str and all(type(name) is str for name in read.names)


def test_mappings():
    assert is_dict_of(str, {"a": "b"}) and is_dict_of(dict[str, str], {"a": {"b": "c"}})
    assert (
        not is_dict_of(str, {"a": 1})
        and not is_dict_of(str, ["a"])
        and not is_dict_of(dict[str, str], {"a": 1})
    )
