import subprocess
import sys

import numpy as np
import pytest

from hpjax.config import DataConfig
from hpjax.data import load_dataset
from hpjax.errors import ConfigError, DataError


def load(seed=0, **data):
    return load_dataset(DataConfig(**data), seed)


def test_folder(make_tree):
    dataset = load(name="folder", dir=str(make_tree()), image_size=16)
    assert dataset.classes == ("cat", "dog") and dataset.name == "folder"
    assert dataset.train.images.shape == (8, 16, 16, 3) and dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32 and len(dataset.test) == 8
    assert dataset.validation is None and dataset.notice == "" and dataset.skipped == ()


def test_default_image_size_of_files_is_150(make_tree):
    assert load(name="folder", dir=str(make_tree(count=1))).test.images.shape == (2, 150, 150, 3)


def test_default_image_size_of_scenes_is_64():
    options = {"max_train_examples": 6, "max_test_examples": 6}
    assert load(name="synthetic_scenes", **options).test.images.shape == (6, 64, 64, 3)


def test_validation_split_follows_the_seed(make_tree):
    options = {"name": "folder", "dir": str(make_tree()), "image_size": 8, "validation_fraction": 0.25}
    first, again, other = load(0, **options), load(0, **options), load(1, **options)
    assert np.bincount(first.validation.labels).tolist() == [1, 1] and len(first.train) == 6
    np.testing.assert_array_equal(first.validation.images, again.validation.images)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_validation_split_needs_two_of_each_class(make_tree):
    root = make_tree(count=1)
    with pytest.raises(DataError, match="data.validation_fraction=0.5 needs at least 2.*'cat'"):
        load(name="folder", dir=str(root), image_size=8, validation_fraction=0.5)


def test_fewer_examples(make_tree):
    root = str(make_tree())
    options = {"name": "folder", "dir": root, "image_size": 8}
    dataset = load(**options, max_train_examples=4, max_test_examples=2)
    assert np.bincount(dataset.train.labels).tolist() == [2, 2]
    assert np.bincount(dataset.test.labels).tolist() == [1, 1]
    assert dataset.fingerprint != load(**options).fingerprint


def test_fingerprint_is_of_content_and_not_of_place(make_tree):
    first, copy, other = (str(make_tree(name, seed=s)) for name, s in (("a", 0), ("b", 0), ("c", 1)))
    prints = [load(name="folder", dir=root, image_size=8).fingerprint for root in (first, copy, other)]
    assert prints[0] == prints[1] != prints[2]


def test_skipped_images_are_reported(make_tree, caplog):
    root = make_tree()
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    dataset = load(name="folder", dir=str(root), image_size=8, on_bad_image="skip")
    assert len(dataset.skipped) == 1 and "1 bad images skipped" in caplog.text


@pytest.mark.parametrize(
    "data, key",
    [
        ({"name": "imagenet"}, "data.name='imagenet'.*synthetic_scenes.*tfds:NAME"),
        ({"name": "tfds:"}, "data.name='tfds:'"),
        ({"name": "folder"}, "data.dir=''"),
        ({"name": "digits", "on_bad_image": "ignore"}, "data.on_bad_image='ignore'.*fail or skip"),
    ],
)
def test_wrong_values_are_named(data, key):
    with pytest.raises(ConfigError, match=key):
        load(**data)


@pytest.mark.parametrize("name", ["folder", "digits", "synthetic_scenes", "auto"])
def test_too_small_a_size_is_named(name):
    with pytest.raises(DataError, match="data.image_size=4 is too small"):
        load(name=name, image_size=4)


def test_importing_it_imports_nothing_heavy():
    heavy = ["jax", "tensorflow", "tensorflow_datasets", "grain", "sklearn", "torch"]
    code = f"import sys, hpjax.data; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
