"""What is wrong is said before anything is trained, and before a workdir is touched."""

import contextlib
import textwrap

import pytest

from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.errors import ConfigError, HpjaxError, ModelError, UserCodeError
from hpjax.sweep import run_sweep
from hpjax.sweep.preflight import check_config, check_groups

DATA = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 24, "max_test_examples": 12}
MODEL = textwrap.dedent(
    """
    import jax.numpy as jnp
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, *, num_classes, rngs):
            self.out = nnx.Linear(3, num_classes, rngs=rngs)

        def __call__(self, images):
            return self.out(images.mean((1, 2)))
    """
)


def _config(**sections):
    merged = {"data": DATA, "model": {"kernel_widths": (3, 3, 3)}, "train": {"batch_size": 4, "epochs": 1}}
    return parse_config({**merged, **sections})


def _load(config):
    return load_dataset(config.data, config.seed)


def _own(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


SPACE = {"learning_rate": (0.1, 0.2), "batch_size": {"low": 4, "high": 12, "step": 4}}
SEARCH = {"space": {"learning_rate": {"low": 0.1, "high": 1.0}}, "sampler": "random", "trials": 3}
WRONG = [
    ({"space": {"kernel_width": {"low": 3, "high": 64}}}, "three whole numbers from 1 to 63"),
    ({"space": {"learning_rat": (0.1,)}}, "did you mean learning_rate"),
    ({"space": {"image_size": {"low": 0, "high": 64}}}, "without 1: 0 .* or 8 to 1024 pixels"),
    ({"space": {"batch_size": {"low": 4, "high": 12, "step": 0.5}}}, "a whole number greater than 0"),
    (
        {"space": {"learning_rate": {"low": 0.1, "high": 1}}},
        "a step, or choices, in a grid; or sweep.sampler=random and sweep.trials=N",
    ),
    ({"space": {"learning_rate": {"low": 0.1, "high": 1, "step": 1e-9}}}, "at most 1,000,000 in a grid"),
    ({"space": {"learning_rate": {"low": 0.1, "high": 1, "step": 5e-324}}}, "at most 1,000,000 in a grid"),
    ({"space": {"epochs": {"low": 1, "high": 2**31 - 1}}}, "at most 1,000,000 in a grid"),
    ({"space": {"learning_rate": {"choices": (0.1,), "low": 1}}}, "choices or a range, not both"),
    (
        {"space": {"momentum": {"choices": (0.1,), "when": {"optimizer": "sgd"}}, "optimizer": ("adam",)}},
        r"when\.optimizer='sgd' is not allowed: expected one of adam",
    ),
    ({"space": SPACE, "enqueue": ({"weight_decay": 0.1},)}, "one of learning_rate, batch_size"),
    ({"space": SPACE, "enqueue": ({"learning_rate": 0.3},)}, "one of 0.1, 0.2"),
    ({"space": SPACE, "enqueue": ({"batch_size": 6},)}, "4 to 12 in steps of 4"),
    ({"space": SPACE, "enqueue": ({"batch_size": 16},)}, "4 to 12 in steps of 4"),
    ({"space": SPACE, "enqueue": ({"batch_size": "a"},)}, r"batch_size='a' .* a whole number"),
    ({"enqueue": ({"batch_size": 4},)}, "of sweep.space: none"),
    ({**SEARCH, "pruner": "median", "pruner_options": {"bogus": 1}}, "n_startup_trials"),
    (
        {**SEARCH, "pruner": "median", "pruner_options": {"min_resource": 1, "reduction_factor": 4}},
        "pruner_options.min_resource=1 .* sweep.pruner is median; the config's options may be another's",
    ),
    ({**SEARCH, "pruner": "median", "pruner_options": {"n_startup_trials": "a"}}, "options of median"),
    ({**SEARCH, "pruner": "patient", "pruner_options": {"wrapped_pruner": "median"}}, "min_delta"),
    ({**SEARCH, "pruner": "threshold"}, "lower or upper"),
    (
        {**SEARCH, "pruner": "successive_halving", "pruner_options": {"min_early_stopping_rate": 10**9}},
        "from 0 to 30",
    ),
    ({"metric": "none.py:f"}, "none.py"),
    ({"metric": "a" * 300 + ".py:f"}, "a Python file that exists"),
]


@pytest.mark.parametrize(("sweep", "expected"), WRONG)
def test_a_wrong_search_leaves_no_workdir(sweep, expected, tmp_path):
    with pytest.raises(ConfigError, match=expected) as caught:
        run_sweep(_config(sweep=sweep), tmp_path / "sweep")
    assert caught.value.key.startswith("sweep.") and "\n" not in str(caught.value)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("name", ["none.py:Net", "~nobody/x.py:Net", "a" * 300 + ".py:Net"])
def test_a_file_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match="a Python file that exists before the colon"):
        check_config(_config(model={"name": name}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n1 / 0\n", "line 2: ZeroDivisionError"),
        ("def (", "line 1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("raise BaseExceptionGroup('a', [KeyError()])", "line 1: ExceptionGroup: a"),
    ],
)
@pytest.mark.parametrize("section", ["model", "sweep"])
def test_a_file_that_fails_is_named_with_its_line(text, expected, section, tmp_path):
    name = f"{_own(tmp_path, text)}:x"
    given = {"model": {"name": name}} if section == "model" else {"sweep": {"metric": name}}
    with pytest.raises(UserCodeError, match=f"mine.py can't be imported: {expected}"):
        check_config(_config(**given))


SELECTS = "def metric(epoch):\n    return {}\n"


@pytest.mark.parametrize(
    "body", ["-epoch['validation_loss']", "epoch['validation_accuracy']", "abs(epoch['validation_loss'])"]
)
def test_a_metric_that_needs_a_validation_split_says_so(body, tmp_path):
    name = f"{_own(tmp_path, SELECTS.format(body))}:metric"
    with pytest.raises(ConfigError, match=r"data\.validation_fraction greater than 0") as caught:
        run_sweep(_config(sweep={"metric": name}), tmp_path / "wd")
    assert caught.value.key == "sweep.metric" and not (tmp_path / "wd").exists()
    check_config(_config(sweep={"metric": name}, data={**DATA, "validation_fraction": 0.2}))
    check_config(_config(sweep={**SEARCH, "metric": name}))


@pytest.mark.parametrize(
    ("body", "error", "expected"),
    [
        ("epoch['test_accuracy']", ConfigError, "doesn't need the test set"),
        ("epoch['nothing']", UserCodeError, "line 2: KeyError"),
    ],
)
def test_a_metric_that_would_fail_after_an_epoch_is_refused_at_once(body, error, expected, tmp_path):
    name = f"{_own(tmp_path, SELECTS.format(body))}:metric"
    with pytest.raises(error, match=expected):
        check_config(_config(sweep={**SEARCH, "metric": name}))


def test_a_metric_may_have_no_value_for_some_epochs(tmp_path):
    body = "None if epoch['epoch'] < 3 else -epoch['train_loss']"
    check_config(_config(sweep={"metric": f"{_own(tmp_path, SELECTS.format(body))}:metric"}))


def test_more_devices_than_there_are_are_refused():
    import jax

    with pytest.raises(ConfigError, match=f"at most {len(jax.devices())}") as caught:
        check_config(_config(lanes={"devices": 999}))
    assert caught.value.key == "lanes.devices"


def test_options_without_a_pruner_are_said_to_have_no_effect(caplog):
    check_config(_config(sweep={"pruner_options": {"min_resource": 1}}))
    assert "sweep.pruner_options have no effect: sweep.pruner is none" in caplog.text


def test_models_of_the_space_are_looked_for():
    with pytest.raises(ConfigError, match="none.py doesn't"):
        check_config(_config(sweep={"space": {"model": ("custom_cnn", "none.py:Net")}}))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"kernel_width": (3, 31)}, "data.image_size=30 .* at least"),
        ({"image_size": (30, 10)}, "data.image_size=10 .* at least"),
        ({"kernel_width": (3, 5), "image_size": (30, 20)}, "data.image_size=20 .* at least"),
        (
            {
                "optimizer": ("sgd", "adam"),
                "freeze": {"choices": ("conv1", "zzz"), "when": {"optimizer": ("adam",)}},
            },
            "model.freeze='zzz'",
        ),
    ],
)
def test_what_the_last_group_would_refuse_is_refused_at_once(space, expected):
    config = _config(sweep={"space": space})
    check_config(config)
    with pytest.raises(ConfigError, match=expected):
        check_groups(config, _load)


def test_a_batch_of_a_later_group_larger_than_the_data_is_said_at_once(caplog):
    check_groups(_config(sweep={"space": {"batch_size": {"low": 4, "high": 100, "step": 4}}}), _load)
    assert "train.batch_size=100 is more than the 24 training images" in caplog.text
    caplog.clear()
    check_groups(_config(sweep={"space": {"batch_size": (4, 24)}}), _load)
    assert not [record for record in caplog.records if "batch_size" in record.message]


def test_even_kernels_are_allowed():
    space = {"kernel_width": (2, 4), "padding": ("reference", "same")}
    check_groups(_config(sweep={"space": space}), _load)


def test_settings_that_a_condition_excludes_are_not_checked():
    space = {"image_size": (30, 64), "kernel_width": {"choices": (3, 9), "when": {"image_size": 64}}}
    check_groups(_config(sweep={"space": space}), _load)


@pytest.mark.landing
def test_weights_that_do_not_fit_a_later_model_are_refused(tmp_path):
    from safetensors.numpy import save_file

    from hpjax.models.registry import create_model
    from hpjax.models.torch_weights import to_torch
    from hpjax.train.state import init_rngs

    model = create_model(
        "custom_cnn", num_classes=6, image_size=30, kernel_widths=(3, 3, 3), rngs=init_rngs(0)
    )
    save_file(to_torch(model), tmp_path / "weights.safetensors")
    pretrained = {"kernel_widths": (3, 3, 3), "pretrained": str(tmp_path / "weights.safetensors")}
    check_groups(_config(model=pretrained), _load)
    with pytest.raises(ModelError, match="conv1"):
        check_groups(_config(model=pretrained, sweep={"space": {"kernel_width": (3, 5)}}), _load)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("nnx.Linear(3, num_classes", "nnx.Linear(3, 5", r"expected logits of \(2, 6\)"),
        ("nnx.Linear(3, num_classes", "nnx.Linear(4, num_classes", "mine.py' failed|:Net' failed: line 10"),
        ("self.out = nnx", "self.out = nxn", "failed: line 7: NameError"),
        ("images.mean((1, 2))", "images.mean((1, 2)) + None", "failed: line 10: TypeError"),
        ("images)", "images, *, other)", "failed: TypeError"),
        ("self.out(images.mean((1, 2)))", "None", "expected logits"),
        (
            "self, images):",
            "self, images, mask=None):\n        assert mask is None",
            "line 10: AssertionError",
        ),
    ],
)
def test_an_own_model_that_fails_is_named_with_its_line(old, new, expected, tmp_path):
    path = _own(tmp_path, MODEL.replace(old, new, 1))
    with pytest.raises(UserCodeError, match=expected) as caught:
        check_groups(_config(model={"name": f"{path}:Net"}), _load)
    assert "\n" not in " ".join(str(caught.value).split())


def test_an_own_model_that_works_passes(tmp_path):
    config = _config(model={"name": f"{_own(tmp_path, MODEL)}:Net"})
    check_config(config)
    check_groups(config, _load)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return epoch['nothing']", "line 2: KeyError"),
        ("return 'high'", "ValueError"),
        ("1 / 0", "line 2: Zero"),
    ],
)
def test_a_metric_that_fails_is_named_with_its_line(body, expected, tmp_path):
    from hpjax.search.objective import create_objective

    path = _own(tmp_path, f"def metric(epoch):\n    {body}\n")
    objective = create_objective(f"{path}:metric", has_validation=False)
    with pytest.raises(UserCodeError, match=expected):
        objective.value({"test_loss": 1.0})


def test_seeds_stay_within_32_bits():
    with pytest.raises(ConfigError, match="no seed exceeds"):
        parse_config({"seed": 2**31 - 1, "sweep": {"seeds": 2**31 - 1, "final_seeds": 2}})


def test_values_are_shown_within_a_line():
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    loop: dict = {}
    loop["a"] = loop
    for value in (10**5000, list(range(1000)), {"a": 10**400}, deep, loop, dict, object()):
        with pytest.raises(HpjaxError) as caught:
            parse_config({"sweep": {"trials": 1, "enqueue": value}})
        assert len(str(caught.value)) < 400


def _net(tmp_path, init="", call="", **more):
    text = MODEL.replace("rngs=rngs)\n", f"rngs=rngs)\n        {init}\n", 1)
    text = text.replace("        return", f"        {call}\n        return", 1)
    for old, new in more.items():
        text = text.replace(old, new)
    return _config(model={"name": f"{_own(tmp_path, text)}:Net"})


@pytest.mark.parametrize(
    ("init", "call"),
    [
        ("", "assert images.shape[0] == 2"),  # holds for the two images that are tried first
        ("", "images = images.reshape(2, -1, *images.shape[1:])[0]"),
        ("", "images = images[:2] if images.shape[0] > 100 else images"),
        ("self.scale = nnx.Param(jnp.ones((), jnp.complex64))", "images = images * self.scale[...]"),
        ("self.scale = nnx.Param(jnp.ones((), jnp.int32))", "images = images * self.scale[...]"),
        ("self.last = nnx.BatchStat(jnp.zeros(2))", "self.last[...] = images.mean((1, 2, 3))"),
    ],
)
def test_a_model_that_fails_at_the_shapes_of_the_sweep_alone_is_refused(init, call, tmp_path):
    with pytest.raises(UserCodeError, match="Net' (failed|gives)"):
        check_groups(_net(tmp_path, init, call), _load)


def test_a_model_without_parameters_is_refused(tmp_path):
    text = MODEL.replace("self.out = nnx.Linear(3, num_classes, rngs=rngs)", "self.classes = num_classes")
    text = text.replace("self.out(images.mean((1, 2)))", "jnp.zeros((images.shape[0], self.classes))")
    with pytest.raises(UserCodeError, match="no nnx.Param: nothing to train"):
        check_groups(_config(model={"name": f"{_own(tmp_path, text)}:Net"}), _load)


def test_where_a_range_ends_is_said_in_a_line_of_ours(caplog, recwarn):
    space = {"learning_rate": {"low": 0.1, "high": 1.0, "step": 0.4}}
    check_config(_config(sweep={"space": space}))
    assert caplog.messages == ["sweep.space.learning_rate ends at 0.9: its step of 0.4 doesn't lead to 1"]
    assert not recwarn.list


def test_a_model_is_tried_at_every_batch_size(tmp_path):
    call = "assert images.shape[0] in (2, 4, 250)"
    path = _own(tmp_path, MODEL.replace("        return", f"        {call}\n        return", 1))
    for sizes, fits in (((4,), True), ((4, 5), False)):
        config = _config(model={"name": f"{path}:Net"}, sweep={"space": {"batch_size": sizes}})
        with contextlib.nullcontext() if fits else pytest.raises(UserCodeError, match="AssertionError"):
            check_groups(config, _load)


@pytest.mark.parametrize("epoch", [1, 5])
def test_a_metric_that_looks_its_epoch_up_is_no_error(epoch, tmp_path):
    body = f"None if epoch['epoch'] < {epoch} else [0, 1, 2, 3, 4, 5][epoch['epoch']]"
    check_config(_config(sweep={"metric": f"{_own(tmp_path, SELECTS.format(body))}:metric"}))


@pytest.mark.parametrize("attribute", ["jnp.ones(3)", "nnx.List([jnp.ones(3)])", "jnp.arange(3)"])
def test_an_array_as_a_plain_attribute_is_refused_with_the_cure(attribute, tmp_path):
    config = _net(tmp_path, f"self.scale = {attribute}", "images = images * jnp.asarray(self.scale[0])")
    with pytest.raises(UserCodeError, match="failed: line 8: an array is a plain attribute: .*nnx.Variable"):
        check_groups(config, _load)


@pytest.mark.parametrize("attribute", ["jnp.ones(())", "jnp.float32(2)", "nnx.List([jnp.float32(2)])"])
def test_so_is_a_single_number(attribute, tmp_path):
    config = _net(tmp_path, f"self.scale = {attribute}", "images = images * jnp.asarray(self.scale).sum()")
    with pytest.raises(UserCodeError, match=r"scale.*: an array is a plain attribute: .*nnx.Variable"):
        check_groups(config, _load)


@pytest.mark.parametrize(
    "attribute", ["np.ones(3, np.float32)", "lambda x: x", "{'a': 1}", "nnx.Variable(jnp.ones(3))"]
)
def test_other_attributes_are_fine(attribute, tmp_path):
    check_groups(_net(tmp_path, f"import numpy as np; self.scale = {attribute}"), _load)
