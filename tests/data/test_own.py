"""Arrays of one's own: what is taken, as what, and what is refused in one line."""

import numpy as np
import pytest

from hpjax.config import DataConfig
from hpjax.data.dataset import load_dataset
from hpjax.data.own import load_own
from hpjax.errors import ConfigError, UserCodeError
from hpjax.tasks import ANY, CLASSES, LABELS, NUMBERS

GIVEN = DataConfig(name="arrays")
X = np.arange(24.0).reshape(6, 4)
Y = np.array([0, 1, 0, 1, 0, 1])


def _load(x=X, y=Y, kind=CLASSES, **more):
    return load_own(GIVEN, kind, {"train": (x, y), "test": (x[:4], y[:4]), **more})


@pytest.mark.parametrize(
    ("x", "dtype", "shape"),
    [
        (X, np.float32, (4,)),
        (X.astype(np.float16), np.float32, (4,)),
        (X > 3, np.float32, (4,)),
        (X.astype(np.int64), np.int32, (4,)),
        (X.astype(np.uint8), np.int32, (4,)),
        (X[:, 0], np.float32, (1,)),
        (np.zeros((6, 9, 7), np.uint8), np.uint8, (9, 7, 1)),
        (np.zeros((6, 9, 7, 3), np.uint8), np.uint8, (9, 7, 3)),
        (np.zeros((6, 9, 7)), np.float32, (9, 7)),
    ],
)
def test_inputs_are_taken_as_what_they_are(x, dtype, shape):
    source = _load(x)
    assert source.train.images.dtype == dtype and source.train.images.shape == (6, *shape)


@pytest.mark.parametrize(
    ("y", "kind", "shape", "classes"),
    [
        (Y, CLASSES, (), ("0", "1")),
        (Y > 0, CLASSES, (), ("0", "1")),
        (np.where(Y, "b", "a"), CLASSES, (), ("a", "b")),
        (np.where(Y, "b", "a").astype(object), ANY, (), ("a", "b")),
        (Y, LABELS, (1,), ()),
        (np.stack([Y, 1 - Y, Y], 1), LABELS, (3,), ()),
        (Y, NUMBERS, (1,), ()),
        (X[:, :2], ANY, (2,), ()),
    ],
)
def test_targets_are_what_the_loss_takes(y, kind, shape, classes):
    source = _load(y=y, kind=kind)
    assert source.classes == classes and source.train.labels.shape == (6, *shape)
    assert source.train.labels.dtype == (np.int32 if classes else np.float32)


BAD = {
    "no mapping": (lambda: load_own(GIVEN, CLASSES, [X, Y]), "not list"),
    "another split": (lambda: _load(holdout=(X, Y)), "not 'holdout'"),
    "no test": (lambda: load_own(GIVEN, CLASSES, {"train": (X, Y)}), '"test" is missing'),
    "no pair": (lambda: _load(test=X), '"test": a pair'),
    "lengths": (lambda: _load(y=Y[:5]), r"int64\[5\] with float64\[6, 4\]"),
    "ragged": (lambda: _load(x=[[1], [1, 2]] * 3), "arrays as x of train"),
    "objects": (lambda: _load(x=np.array([{}] * 6)), r"not object\[6\]"),
    "not finite": (lambda: _load(x=np.where(X == 5, np.nan, X)), "finite numbers"),
    "beyond float32": (lambda: _load(x=X * 1e300), "finite numbers"),
    "beyond int32": (lambda: _load(x=np.full((6, 4), 2**40)), "32 bits"),
    "other test inputs": (lambda: _load(test=(X[:, :3], Y)), r"not float32\[6, 3\]"),
    "empty": (lambda: _load(x=X[:0], y=Y[:0]), r"not float64\[0, 4\]"),
    "gaps": (lambda: _load(y=2 * Y), "none is 1"),
    "negative": (lambda: _load(y=-Y), "classes from 0"),
    "one class": (lambda: _load(y=0 * Y), "at least 2 classes"),
    "unknown class": (lambda: _load(test=(X, Y + 1)), "every class among the training examples"),
    "unknown name": (lambda: _load(y=np.where(Y, "a", "b"), test=(X, np.array(["c"] * 6))), "a name isn't"),
    "classes as labels": (lambda: _load(y=Y + 1, kind=LABELS), "labels of 0 and 1"),
    "text as numbers": (lambda: _load(y=np.array(["a"] * 6), kind=NUMBERS), "not text"),
    "infinite numbers": (lambda: _load(y=Y / 0.0, kind=NUMBERS), "finite numbers of 32 bits as y"),
    "other columns": (lambda: _load(y=X, kind=NUMBERS, test=(X, X[:, :2])), "as many columns"),
    "nothing given": (lambda: load_own(GIVEN, CLASSES), r"run_sweep\(…, data=…\)"),
}


@pytest.mark.filterwarnings("ignore:(divide|invalid|overflow)")
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_data_is_refused_in_one_line(name):
    load, message = BAD[name]
    with pytest.raises(ConfigError, match=message) as error:
        load()
    assert "\n" not in str(error.value) and str(error.value).startswith("data='arrays' is not allowed")


def test_files_are_read_and_bad_ones_are_named(tmp_path):
    def load(name):
        return load_own(DataConfig(name=name), CLASSES)

    path = tmp_path / "a.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=X, y_test=Y)
    assert load(f"npz:{path}").digest == load_own(GIVEN, CLASSES, {"train": (X, Y), "test": (X, Y)}).digest
    np.savez(path, x_train=X, y_train=Y, x_test=X)
    with pytest.raises(ConfigError, match="an array y_test"):
        load(f"npz:{path}")
    np.savez(path, x_train=np.array([{}]), y_train=Y, x_test=X, y_test=Y)
    with pytest.raises(ConfigError, match="arrays without Python objects"):
        load(f"npz:{path}")
    for content in (b"", b"PK\3\4 damaged"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="arrays without Python objects"):
            load(f"npz:{path}")
    with pytest.raises(ConfigError, match="a file that exists"):
        load(f"npz:{tmp_path}")
    (tmp_path / "own.py").write_text("def f(): return 1 / 0\ndef g(): raise SystemExit\ndef h(): return 3\n")
    for name, message in {"f": "line 1: ZeroDivisionError", "g": "line 2: SystemExit"}.items():
        with pytest.raises(UserCodeError, match=message):
            load(f"{tmp_path}/own.py:{name}")
    with pytest.raises(ConfigError, match="not int"):
        load(f"{tmp_path}/own.py:h")


def test_examples_are_held_out_and_left_out_of_numbers_too():
    given = {"train": (X, X[:, 0]), "test": (X, X[:, 0]), "validation": (X, X[:, 0])}
    config = DataConfig(name="arrays", max_train_examples=4, validation_fraction=0.5)
    assert len(load_dataset(config, 0, NUMBERS, given).validation) == 6  # the user's own
    del given["validation"]
    dataset = load_dataset(config, 0, NUMBERS, given)
    assert (len(dataset.train), len(dataset.validation), dataset.num_outputs) == (2, 2, 1)


@pytest.mark.parametrize("name", ["digits", "synthetic_scenes", "folder"])
def test_images_of_any_shape_and_grey(name, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for label, value in (("a", 10), ("b", 200)):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("L", (30, 20), value).save(tmp_path / split / label / "1.png")
    place = (
        {"dir": str(tmp_path)} if name == "folder" else {"max_train_examples": 12, "max_test_examples": 12}
    )
    config = DataConfig(name=name, image_size=(24, 16), channels=1, **place)
    dataset = load_dataset(config, 0)
    assert dataset.input_shape == (24, 16, 1) and dataset.train.images.dtype == np.uint8
    if name == "folder":
        assert sorted({*dataset.train.images.ravel().tolist()}) == [10, 200]
    colours = load_dataset(DataConfig(name=name, image_size=(24, 16), **place), 0)
    assert colours.input_shape == (24, 16, 3)
