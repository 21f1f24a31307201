import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpjax.errors import ConfigError
from hpjax.search.flags import parse_space_flag
from hpjax.search.space import count_static, list_static, parse_space


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("weight_decay=0.01,1.0", ("weight_decay", (0.01, 1.0))),
        ("learning_rate=1e-5:1e-1:log", ("learning_rate", {"low": 1e-5, "high": 0.1, "log": True})),
        ("batch_size=8:64:8", ("batch_size", {"low": 8, "high": 64, "step": 8})),
        ("optimizer=sgd,adam", ("optimizer", ("sgd", "adam"))),
        ("model.width=8,16", ("model.width", (8, 16))),
        ("model.width=8:32:8", ("model.width", {"low": 8, "high": 32, "step": 8})),
        ("model.scale=0.5:2:log", ("model.scale", {"low": 0.5, "high": 2, "log": True})),
        ("model.norm=batch,None,'8'", ("model.norm", ("batch", None, "8"))),
        ("model.deep=true,False", ("model.deep", (True, False))),
        ("model.head=a:b,c", ("model.head", ("a:b", "c"))),
        ("epochs=1:100:log", ("epochs", {"low": 1, "high": 100, "log": True})),
        (
            "momentum=0.5:0.9 if optimizer=momentum,nesterov",
            ("momentum", {"low": 0.5, "high": 0.9, "when": {"optimizer": ("momentum", "nesterov")}}),
        ),
        (
            "eps=1e-8,1e-6  if  optimizer=[adam] and model.norm=None and model.deep=true",
            (
                "eps",
                {
                    "choices": (1e-8, 1e-6),
                    "when": {"optimizer": ("adam",), "model.norm": (None,), "model.deep": (True,)},
                },
            ),
        ),
    ],
)
def test_flags(flag, expected):
    assert parse_space_flag(flag) == expected


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"lerning_rate": (1.0,)}, "sweep.space.lerning_rate"),
        ({"learning_rate": ()}, "sweep.space.learning_rate"),
        ({"learning_rate": (1e-3, 1e-3)}, "sweep.space.learning_rate"),
        ({"learning_rate": (-1.0,)}, "sweep.space.learning_rate"),
        ({"learning_rate": {"low": 0.1, "high": 0.01}}, "sweep.space.learning_rate"),
        ({"weight_decay": {"low": 0.0, "high": 0.1, "log": True}}, "sweep.space.weight_decay"),
        ({"batch_size": {"low": 8, "high": 16, "step": 100}}, "sweep.space.batch_size.step"),
        ({"batch_size": {"low": 8, "hihg": 16}}, "sweep.space.batch_size.hihg"),
        ({"optimizer": {"low": 1, "high": 2}}, "sweep.space.optimizer"),
        (
            {"momentum": {"low": 0.1, "high": 0.5, "when": {"optimizer": ("sgd",)}}},
            "sweep.space.momentum.when",
        ),
        ({"learning_rate": 0.1}, "sweep.space.learning_rate"),
        ({"model.a b": (1,)}, "sweep.space.model.a b"),
        ({"model.width": ((1, 2), (3, 4))}, "sweep.space.model.width"),
        ({"model.width": {"low": "a", "high": "b"}}, "sweep.space.model.width"),
        ({"model.width": {"low": True, "high": 2}}, "sweep.space.model.width"),
        ({"model.width": {"low": 1, "high": 2, "step": 3}}, "sweep.space.model.width.step"),
        ({"model.width": (1, float("nan"))}, "sweep.space.model.width"),
    ],
)
def test_what_is_not_allowed_is_named(spec, key):
    with pytest.raises(ConfigError) as error:
        parse_space(spec)
    assert error.value.key == key


def test_a_range_of_an_option_is_of_whole_numbers_where_all_of_it_is():
    axes = parse_space(
        {
            "model.a": {"low": 1, "high": 64, "log": True},
            "model.b": {"low": 1, "high": 2.5},
            "model.c": {"low": 0, "high": 1, "step": 0.25},
        }
    ).axes
    assert [axis.whole for axis in axes] == [True, False, False]
    assert [type(axis.low) for axis in axes] == [int, float, float]
    assert axes[2].values == (0.0, 0.25, 0.5, 0.75, 1.0)


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=4, unique=True), st.integers(2, 6), st.integers(1, 5)
)
def test_a_grid_holds_every_setting_once(rates, low, count):
    space = parse_space(
        {"learning_rate": tuple(rates), "batch_size": {"low": low, "high": low + count * 2, "step": 2}}
    )
    grid = space.grid()
    assert len(grid) == len(rates) * (count + 1)
    assert len({tuple(sorted(s.items())) for s in grid}) == len(grid)


def test_a_grid_over_a_range_needs_a_step():
    with pytest.raises(ConfigError, match="a step"):
        parse_space({"learning_rate": {"low": 0.1, "high": 0.5}}).grid()


@pytest.mark.parametrize(
    ("spec", "count", "listed"),
    [
        ({"learning_rate": (0.1, 0.2)}, 1, [{}]),
        ({"learning_rate": (0.1, 0.2), "batch_size": (4, 8)}, 2, [{"batch_size": 4}, {"batch_size": 8}]),
        ({"batch_size": {"low": 4, "high": 8}}, 5, None),
        ({"batch_size": (4, 8, 16), "schedule": ("cosine", "linear")}, 6, None),
        ({"batch_size": {"choices": (4, 8), "when": {"b1": 0.5}}, "b1": (0.5, 0.9)}, 2, None),
    ],
)
def test_static_hyperparameters_are_listed_where_they_are_few(spec, count, listed):
    space = parse_space(spec)
    assert count_static(space) == count
    assert list_static(space, most=5) == listed


def test_conditions_thin_out_the_grid():
    space = parse_space(
        {"momentum": {"choices": (0.5, 0.9), "when": {"optimizer": "sgd"}}, "optimizer": ("sgd", "adam")}
    )
    assert space.grid() == [
        {"optimizer": "sgd", "momentum": 0.5},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam"},
    ]


SPECS = {
    "weight_decay": ((0.01, 1.0), ["0.01,1.0"]),
    "batch_size": ((8, 16), ["8,16"]),
    "optimizer": (("sgd", "adam"), ["sgd,adam", "'sgd','adam'", '"sgd", "adam"']),
    "learning_rate": ({"low": 1e-5, "high": 0.1, "log": True}, ["1e-5:1e-1:log"]),
    "epochs": ({"low": 1, "high": 9, "step": 2}, ["1:9:2"]),
}


@given(
    st.sampled_from([(name, text) for name in SPECS for text in SPECS[name][1]]),
    st.sampled_from(["{}", "[{}]", "({})", "{{{}}}", "[({})]", "{},", "[{},]", "( {} , )", " {} "]),
    st.sampled_from(["", " ", "  "]),
)
def test_blanks_brackets_and_a_comma_at_the_end_change_nothing(spec, form, blank):
    name, text = spec
    spaced = text.replace(",", f"{blank},{blank}").replace(":", f"{blank}:{blank}")
    assert parse_space_flag(f"{blank}{name}{blank}={form.format(spaced)}") == (name, SPECS[name][0])


@given(st.text(alphabet="[](){},.:'\"0123456789e- ablog", max_size=12), st.sampled_from([*SPECS]))
def test_any_specification_is_an_axis_or_one_line(text, name):
    try:
        name, spec = parse_space_flag(f"{name}={text}")
        assert parse_space({name: spec}).axes
    except ConfigError as error:
        assert error.allowed


@pytest.mark.parametrize("more", [{}, {"log": True}, {"step": 0.1}, {"when": {"optimizer": "adam"}}])
def test_a_range_of_one_value_is_a_choice(more):
    space = parse_space({"learning_rate": {"low": 0.1, "high": 0.1, **more}, "optimizer": ("adam",)})
    assert space.axes[-1 if "when" in more else 0].values == (0.1,)
    assert [setting["learning_rate"] for setting in space.grid()] == [0.1]


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "optimizer",
        "optimizer=",
        "=adam",
        "batch_size=8:64",
        "optimiser=adam",
        "optimizer=adam and ",
        "optimizer=adam and optimizer=sgd",
    ],
)
def test_a_condition_of_another_form_is_refused(condition):
    with pytest.raises(ConfigError, match="--space='momentum=0.5,0.9 if .*' is not allowed"):
        parse_space_flag(f"momentum=0.5,0.9 if {condition}")


def test_a_condition_on_none_needs_the_hyperparameter():
    norm = {"choices": (None, "batch"), "when": {"model.deep": True}}
    width = {"choices": (1, 2), "when": {"model.norm": None}}
    space = parse_space({"model.deep": (True, False), "model.norm": norm, "model.width": width})
    assert space.grid() == [
        {"model.deep": True, "model.norm": None, "model.width": 1},
        {"model.deep": True, "model.norm": None, "model.width": 2},
        {"model.deep": True, "model.norm": "batch"},
        {"model.deep": False},
    ]


def test_a_condition_may_name_values_that_the_space_leaves_out():
    when = {"optimizer": ("sgd", "momentum", "nesterov")}
    space = parse_space({"momentum": {"choices": (0.5,), "when": when}, "optimizer": ("adam", "momentum")})
    assert space.grid() == [{"optimizer": "adam"}, {"optimizer": "momentum", "momentum": 0.5}]


@pytest.mark.parametrize("values", [("sgd", "nothing"), ("momentum", 3), ()])
def test_a_condition_that_never_holds_or_names_no_value_is_refused(values):
    spec = {"momentum": {"choices": (0.5,), "when": {"optimizer": values}}, "optimizer": ("adam", "sgd")}
    with pytest.raises(ConfigError) as caught:
        parse_space(spec)
    assert caught.value.key == "sweep.space.momentum.when.optimizer"
