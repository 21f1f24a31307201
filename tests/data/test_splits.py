import numpy as np
import pytest

from hpjax.data.splits import Split, SplitHash, content_digest, hold_out, subsample


def make_split(counts) -> Split:
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    return Split(images, labels)


@pytest.mark.parametrize(
    "counts, limit, expected",
    [
        ((10, 10, 10), 6, [2, 2, 2]),
        ((10, 10, 10), 7, [3, 2, 2]),
        ((1, 10, 10), 9, [1, 4, 4]),
        ((2, 3, 20), 20, [2, 3, 15]),
        ((4, 4), 0, [4, 4]),
        ((4, 4), 99, [4, 4]),
        ((4, 4, 4), 2, [1, 1, 0]),
    ],
)
def test_subsample_balances_classes(counts, limit, expected):
    part = subsample(make_split(counts), limit)
    assert np.bincount(part.labels, minlength=len(counts)).tolist() == expected


def test_subsample_takes_whole_examples_and_always_the_same():
    split = make_split((30, 30))
    first, second = subsample(split, 10), subsample(split, 10)
    np.testing.assert_array_equal(first.images, second.images)
    index = first.images[:, 0, 0, 0]
    np.testing.assert_array_equal(split.labels[index], first.labels)
    assert len(set(index.tolist())) == 10


def test_hold_out_is_stratified_disjoint_and_follows_the_seed():
    split = make_split((20, 40))
    rest, held = hold_out(split, 0.25, seed=3)
    assert np.bincount(held.labels).tolist() == [5, 10]
    both = np.concatenate([rest.images[:, 0, 0, 0], held.images[:, 0, 0, 0]])
    assert sorted(both.tolist()) == list(range(60))
    np.testing.assert_array_equal(hold_out(split, 0.25, seed=3)[1].images, held.images)
    assert not np.array_equal(hold_out(split, 0.25, seed=4)[1].images, held.images)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_hold_out_leaves_each_side_something_of_each_class(fraction):
    for side in hold_out(make_split((2, 5)), fraction, seed=0):
        assert np.bincount(side.labels, minlength=2).min() >= 1


def test_digest_sees_every_change():
    split = make_split((3, 3))
    pixels, labels = split.images.copy(), split.labels.copy()
    pixels[0, 0, 0, 0] += 1
    labels[0] = 1
    digests = [
        content_digest(("a", "b"), split, split),
        content_digest(("a", "c"), split, split),
        content_digest(("a", "b"), Split(pixels, split.labels), split),
        content_digest(("a", "b"), split, Split(split.images, labels)),
        content_digest(("a", "b"), split, split.take(np.arange(5))),
    ]
    assert len(set(digests)) == len(digests)


def test_split_hash_does_not_depend_on_the_cut():
    split = make_split((5, 5))
    whole, cut = SplitHash(), SplitHash()
    whole.update(split.images, split.labels)
    for part in (slice(0, 3), slice(3, 3), slice(3, 10)):
        cut.update(split.images[part], split.labels[part])
    assert whole.hexdigest() == cut.hexdigest()
