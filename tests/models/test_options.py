"""Options of a model: what the signature of its class says is what values are checked by."""

from typing import Literal

import pytest
from flax import nnx

from hpjax.errors import ConfigError
from hpjax.models.options import (
    check_options,
    declare_option,
    describe_class,
    dynamic_values,
    list_options,
)


class Net(nnx.Module):
    dynamic = ("drop", "heat")

    def __init__(
        self,
        num_classes,
        width: int = 8,
        *,
        depth=2,
        slope: float = 1,
        scale: float | None = None,
        cut: float = None,  # noqa: RUF013
        norm: Literal["batch", "group"] = "batch",
        bias=True,
        name="x",
        sizes=(1, 2),
        anything=None,
        init: "NotThere" = "he",  # noqa: F821
        rngs,
    ):
        pass

    def __call__(self, images, *, drop=0, heat: float, mask=None):
        return images + drop * heat


class Any(nnx.Module):
    def __init__(self, *, rngs, **options):
        pass


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("width", [3], [2.5, True, "3", None]),
        ("depth", [3], [2.5, True, "3", None]),
        ("norm", ["group"], ["layer", 3, None]),
        ("bias", [False], [0, "no"]),
        ("name", ["y"], [3, None]),
        ("sizes", [(3,), [3]], [3, "x"]),
        ("anything", [3, "x", None, (1, 2)], []),
    ],
)
def test_values_are_of_the_type_that_the_signature_gives(name, good, bad, plain):
    for value in good:
        assert name in check_options(plain, {name: value})
    for value in bad:
        with pytest.raises(
            ConfigError, match=f"model.options.{name}=.*as in Plain\\(num_classes, width: int = 8"
        ):
            check_options(plain, {name: value})


@pytest.fixture
def plain():
    """Returns the class with annotations that can all be looked up."""

    class Plain(nnx.Module):
        def __init__(
            self,
            num_classes,
            width: int = 8,
            *,
            depth=2,
            slope: float = 1,
            scale: float | None = None,
            norm: Literal["batch", "group"] = "batch",
            bias=True,
            name="x",
            sizes=(1, 2),
            anything=None,
            rngs,
        ):
            pass

    return Plain


def test_whole_numbers_become_numbers_where_those_are_meant(plain):
    checked = check_options(plain, {"slope": 3, "scale": 2, "sizes": [1, [2]]})
    assert checked == {"slope": 3.0, "scale": 2.0, "sizes": (1, (2,))}
    assert [type(checked[name]) for name in ("slope", "scale")] == [float, float]
    assert check_options(plain, {"scale": None}) == {"scale": None}


def test_an_annotation_that_cannot_be_looked_up_leaves_the_defaults():
    assert list_options(Net)["width"].hint is int and list_options(Net)["init"].hint is str
    with pytest.raises(ConfigError, match="did you mean width"):
        check_options(Net, {"widht": 3})


def test_a_class_that_takes_anything_gets_it():
    assert check_options(Any, {"a": 1, "b": "x"}) == {"a": 1, "b": "x"}
    with pytest.raises(ConfigError, match=r"an option of Any\(\*, rngs, \*\*options\)"):
        check_options(Any, {"rngs": 1})


def test_dynamic_ones_go_to_calls_alone():
    assert check_options(Net, {"heat": 3, "width": 4}) == {"width": 4}
    assert dynamic_values(Net, {"heat": 3, "width": 4}) == {"drop": 0.0, "heat": 3.0}
    with pytest.raises(ConfigError, match="a value for heat, which Net"):
        dynamic_values(Net, {})
    for value in ("hot", True, None):
        with pytest.raises(ConfigError, match="model.options.heat=.*a number"):
            dynamic_values(Net, {"heat": value})


def test_an_option_is_dynamic_where_every_class_says_so(plain):
    assert declare_option("model.heat", [Net]).dynamic and declare_option("model.heat", [Net]).type is float
    assert not declare_option("model.width", [Net]).dynamic
    both = declare_option("model.width", [Net, plain])
    assert both.type is int and both.check(4) == 4
    with pytest.raises(ConfigError, match=r"an option of Plain\("):
        declare_option("model.heat", [Net, plain]).check(1.0)


def test_a_signature_is_one_short_line(plain):
    assert describe_class(Any) == "Any(*, rngs, **options)"
    text = describe_class(plain)
    assert text.startswith(
        "Plain(num_classes, width: int = 8, *, depth=2, slope: float = 1, scale=None, norm='batch'"
    )
    assert len(describe_class(Net)) <= 400
