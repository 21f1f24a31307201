import threading

import jax
import numpy as np
import pytest

from hpjax.config import DataConfig
from hpjax.data.batches import (
    epoch_order,
    num_steps,
    residency,
    stream_batches,
)
from hpjax.data.splits import Split
from hpjax.errors import ConfigError


def make_split(count=23) -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (count, 8, 8, 3), np.uint8), np.arange(count, dtype=np.int32))


@pytest.mark.parametrize("num, batch", [(23, 5), (20, 5), (3, 5), (7, 7), (1, 4)])
def test_an_epoch_takes_every_example_once(num, batch):
    order = np.asarray(epoch_order(jax.random.key(0), num, batch))
    assert order.shape == (num_steps(num, batch), batch) and order.dtype == np.int32
    flat = order.ravel()
    assert sorted(flat[:num].tolist()) == list(range(num))
    np.testing.assert_array_equal(flat[num:], np.resize(flat[:num], flat.size)[num:])


def test_orders_follow_the_key_and_not_the_compilation():
    compiled = jax.jit(epoch_order, static_argnums=(1, 2))
    first, again = compiled(jax.random.key(1), 23, 5), epoch_order(jax.random.key(1), 23, 5)
    other = compiled(jax.random.key(2), 23, 5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("mapped", [False, True])
def test_stream_gives_what_the_device_would_gather(tmp_path, mapped):
    split = make_split()
    order = epoch_order(jax.random.key(3), len(split), 4)
    expected = jax.device_put(split.images)[order]
    if mapped:
        np.save(tmp_path / "images.npy", split.images)
        split = Split(np.asarray(np.load(tmp_path / "images.npy", mmap_mode="r")), split.labels)
    batches = list(stream_batches(split, np.asarray(order)))
    assert len(batches) == len(order)
    for batch, images, rows in zip(batches, expected, np.asarray(order), strict=True):
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_array_equal(batch.labels, rows)


def test_stream_takes_an_order_per_lane():
    split = make_split()
    order = np.arange(16).reshape(2, 2, 4)
    batches = list(stream_batches(split, order))
    assert [b.images.shape for b in batches] == [(2, 4, 8, 8, 3)] * 2
    np.testing.assert_array_equal(batches[1].labels, order[1])


def test_an_abandoned_stream_leaves_no_thread():
    before = threading.active_count()
    for _ in range(5):
        next(stream_batches(make_split(), np.arange(23)[:, None]))
    assert threading.active_count() <= before + 8


@pytest.mark.parametrize(
    "wanted, num_bytes, limit, expected",
    [
        ("device", 10**12, 10, "device"),
        ("stream", 1, 10**12, "stream"),
        ("auto", 10, None, "device"),
        ("auto", 10, 0, "device"),
        ("auto", 10, 100, "device"),
        ("auto", 90, 100, "stream"),
    ],
)
def test_residency(wanted, num_bytes, limit, expected):
    assert residency(DataConfig(residency=wanted), num_bytes, limit) == expected


def test_unknown_residency():
    with pytest.raises(ConfigError, match="data.residency='disk'.*auto or device or stream"):
        residency(DataConfig(residency="disk"), 1, None)
