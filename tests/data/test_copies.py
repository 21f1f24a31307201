"""Images that two splits share, and how many there are of each class."""

import numpy as np

from hpjax.data.copies import count_classes, count_copies
from hpjax.data.splits import Split


def _split(images) -> Split:
    return Split(np.asarray(images, np.uint8), np.zeros(len(images), np.int32))


def test_copies_are_counted_to_the_last_pixel():
    rng = np.random.default_rng(0)
    train, held, test = (rng.integers(0, 256, (n, 9, 9, 3)) for n in (20, 5, 10))
    test[2], test[5], test[6] = train[3], held[1], train[3]
    test[7] = train[8]
    test[7, 0, 0, 0] ^= 1  # the middle rows are equal, the images aren't
    assert count_copies(_split(test), [_split(train), _split(held)]) == 3
    assert count_copies(_split(test), [_split(train)]) == 2
    assert count_copies(_split(test[:2]), [_split(train)]) == 0


def test_images_with_the_same_middle_are_told_apart():
    train, test = np.zeros((4, 6, 6, 3)), np.zeros((3, 6, 6, 3))
    train[:, 0], test[:, 0] = 1, 2
    test[1, 0] = 1
    assert count_copies(_split(test), [_split(train)]) == 1


def test_classes_without_images_are_counted_too():
    split = Split(np.zeros((5, 2, 2, 3), np.uint8), np.array([0, 2, 2, 0, 2], np.int32))
    assert count_classes(split, 4) == [2, 0, 3, 0]
