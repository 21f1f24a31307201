import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hpjax.data.intel_scenes import CLASSES as INTEL_CLASSES
from hpjax.data.synthetic import CLASSES, draw_scenes


def test_classes_are_those_of_the_photographs():
    assert CLASSES == INTEL_CLASSES


@pytest.mark.parametrize("size", [8, 33, 96, 120])
def test_any_size(size):
    images, labels = draw_scenes(14, size, seed=0)
    assert images.shape == (14, size, size, 3) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [3, 3, 2, 2, 2, 2] and labels.dtype == np.int32
    assert images.std((1, 2, 3)).min() > 3


def test_a_seed_always_draws_the_same_and_another_other_scenes():
    first, labels = draw_scenes(24, 16, seed=0)
    again, same_labels = draw_scenes(24, 16, seed=0)
    other, _ = draw_scenes(24, 16, seed=1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(first, other)
    assert len(np.unique(first.reshape(24, -1), axis=0)) == 24


def test_order_is_mixed():
    _, labels = draw_scenes(120, 8, seed=0)
    assert (np.diff(labels) != 0).mean() > 0.6


def test_colour_alone_tells_little():
    train, labels = draw_scenes(600, 32, seed=0)
    test, test_labels = draw_scenes(300, 32, seed=1)
    colour = lambda images: images.mean((1, 2)) / 25.5  # noqa: E731
    model = LogisticRegression(max_iter=300).fit(colour(train), labels)
    assert model.score(colour(test), test_labels) < 0.45
