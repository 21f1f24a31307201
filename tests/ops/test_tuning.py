"""The choice of a lowering: forced, remembered, measured, by rule."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpjax.ops import conv, key, measurement, memory, tuning
from hpjax.ops.geometry import Geometry
from hpjax.ops.key import Key
from hpjax.ops.lowerings import OPS
from hpjax.ops.target import Target, compiling_for

X, W = (2, 6, 6, 3), (3, 3, 3, 4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HPJAX_CACHE", str(tmp_path))
    yield tmp_path
    tuning.enable(False)


def create_key(lanes=2, own=(False, True)):
    shapes = [(lanes, *s) if has else s for s, has in zip((X, W), own, strict=True)]
    a, b = (jnp.zeros(s) for s in shapes)
    return key.create_key("forward", a, b, own, (3, 3), Geometry())


def count_measurements(monkeypatch, answer):
    seen = []

    def measure(key, names, **_):
        seen.append(key)
        return {answer if answer in names else names[0]: 1.0}

    monkeypatch.setattr(measurement, "measure", measure)
    return seen


def test_measured_choice_is_remembered(monkeypatch, cache):
    seen = count_measurements(monkeypatch, "unrolled:im2col")
    tuning.enable(True)
    key = create_key()
    assert [tuning.choose(key), tuning.choose(key)] == ["unrolled:im2col"] * 2
    tuning.enable(False)
    assert tuning.choose(key) == "unrolled:im2col"
    assert len(seen) == 1
    assert [p.suffix for p in cache.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 99, "maker": [], "entries": {}}']
)
def test_corrupt_file_is_ignored_and_replaced(monkeypatch, content):
    count_measurements(monkeypatch, "unrolled:native")
    key = create_key()
    memory.cache_path().write_text(content)
    assert tuning.choose(key) == tuning.by_rule(key)
    tuning.tune(key)
    assert tuning.choose(key) == "unrolled:native"


@pytest.mark.parametrize(
    "entry",
    [
        {"choice": "no_such:thing", "milliseconds": {}},
        {"choice": 3, "milliseconds": {}},
        {"choice": "native", "milliseconds": {"native": "fast"}},
        {},
        None,
    ],
)
def test_bad_entry_is_ignored(entry):
    key = create_key()
    memory.remember("other", "native", {})
    content = json.loads(memory.cache_path().read_text())
    content["entries"][str(key)] = entry
    memory.cache_path().write_text(json.dumps(content))
    assert tuning.choose(key) == tuning.by_rule(key)


def test_entries_of_another_jaxlib_are_stale(monkeypatch):
    key = create_key()
    memory.remember(str(key), "unrolled:native", {})
    content = json.loads(memory.cache_path().read_text())
    content["maker"][0] = "0.0.1"
    memory.cache_path().write_text(json.dumps(content))
    assert tuning.choose(key) == tuning.by_rule(key)


def test_unwritable_cache_is_only_logged(monkeypatch, cache, caplog):
    (cache / "file").write_text("")
    monkeypatch.setenv("HPJAX_CACHE", str(cache / "file"))
    memory.remember("key", "native", {})
    assert "can't be kept" in caplog.text


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Ships a table with these entries for this device."""

    def write(entries):
        monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "shipped.json")
        tuning.SHIPPED.write_text(json.dumps({memory.device_name(): entries}))
        tuning.shipped.cache_clear()

    yield write
    tuning.shipped.cache_clear()


def test_shipped_choice_holds_until_one_is_measured_here(ship):
    key = create_key()
    ship({str(key): "unrolled:im2col"})
    assert tuning.choose(key) == "unrolled:im2col" != tuning.by_rule(key)
    memory.remember(str(key), "dense:wide", {})
    assert tuning.choose(key) == "dense:wide"


@pytest.mark.parametrize("name", ["no_such:thing", "block_diagonal:native"])
def test_shipped_choice_that_is_unknown_or_mixes_lanes_is_ignored(ship, name):
    ship({str(create_key()): name})
    assert tuning.choose(create_key()) == tuning.by_rule(create_key())


def test_every_shipped_choice_is_a_candidate():
    for entries in json.loads(tuning.SHIPPED.read_text()).values():
        for text, name in entries.items():
            fields = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
            geometry = {
                k: tuple(tuple(i) if isinstance(i, list) else i for i in v)
                for k, v in fields["geometry"].items()
            }
            key = Key(**{**fields, "geometry": Geometry(**geometry)})
            assert str(key) == text and name in key.candidates()


def test_override_nests_and_strips_lanes():
    with tuning.override({"forward": "unrolled:im2col"}):
        assert tuning.choose(create_key()) == "unrolled:im2col"
        assert tuning.choose(create_key(1, (False, False))) == "im2col"
        with tuning.override({str(create_key()): "dense:wide"}):
            assert tuning.choose(create_key()) == "dense:wide"
    assert tuning.choose(create_key()) == tuning.by_rule(create_key())


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("own", [(True, True), (False, True), (True, False)])
def test_rule_names_a_safe_candidate(backend, op, own):
    for lanes in (1, 4):
        key = Key(op, (2, 6, 6, 3), (3, 3, 3, 4), (3, 3), own, lanes, "float32", Geometry())
        with compiling_for(Target(backend, "any")):
            assert tuning.by_rule(key) in key.candidates()


@pytest.mark.parametrize("op", ["forward", "weight_gradient"])
def test_lanes_that_share_narrow_images_share_their_windows_on_a_cpu(op):
    shapes = (32, 150, 150, 3), (5, 5, 3, 10) if op == "forward" else (32, 148, 148, 10)
    key = Key(op, *shapes, (5, 5), (False, True), 4, "float32", Geometry())
    assert tuning.by_rule(key) == "batched:im2col_scan"


@pytest.mark.parametrize(
    ("size", "channels", "forward", "input_gradient", "weight_gradient"),
    [
        (1, 512, "taps", "taps", "taps"),  # 4 to 21 times as fast on a Zen 5
        (4, 256, "taps", "taps", "native"),
        (7, 512, "native", "taps", "native"),
        (16, 128, "native", "native", "native"),
        (1, 16, "wide_scan", "wide_scan", "wide_scan"),
    ],
)
def test_images_of_few_pixels_go_tap_by_tap_on_a_cpu(
    size, channels, forward, input_gradient, weight_gradient
):
    images, kernel = (32, size, size, channels), (3, 3, channels, channels)
    operands = {
        "forward": (images, kernel),
        "input_gradient": (images, kernel),
        "weight_gradient": (images,) * 2,
    }
    geometry = Geometry(padding=((1, 1), (1, 1)))
    keys = [Key(op, *operands[op], (3, 3), (False, False), 1, "float32", geometry) for op in OPS]
    assert [tuning.by_rule(key) for key in keys] == [forward, input_gradient, weight_gradient]


def test_a_kernel_of_one_pixel_has_its_gradient_in_one_product():
    shapes = (32, 16, 16, 64), (32, 8, 8, 128)
    key = Key("weight_gradient", *shapes, (1, 1), (False, False), 1, "float32", Geometry((2, 2)))
    assert tuning.by_rule(key) == "taps"


def test_enabled_tuning_measures_inside_a_trace(monkeypatch):
    few = ("unrolled:native", "mapped:wide_scan")
    monkeypatch.setattr(Key, "candidates", lambda key: few if key.lanes > 1 else ("native", "wide"))
    tuning.enable()

    def loss(w, x):
        return jnp.square(conv(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))).sum()

    w, x = jnp.ones((2, *W)), jnp.ones(X)
    got = jax.jit(jax.vmap(jax.grad(loss), (0, None)))(w, x)
    tuned = json.loads(memory.cache_path().read_text())["entries"]
    assert {json.loads(k)["op"] for k in tuned} == {"forward", "weight_gradient"}
    assert {json.loads(k)["lanes"] for k in tuned} == {1, 2}  # a program of single lanes may be chosen
    tuning.enable(False)
    np.testing.assert_allclose(got[0], jax.grad(loss)(w[0], x), rtol=1e-4)
