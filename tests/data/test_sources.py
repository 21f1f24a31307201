import numpy as np
import pytest
from PIL import Image

from hpjax.config import DataConfig, parse_config
from hpjax.data import load_dataset, sources
from hpjax.data.intel_scenes import CLASSES
from hpjax.data.sources import SOURCES, load_source
from hpjax.errors import ConfigError, DataError, HpjaxError


def load(**data):
    return load_source(DataConfig(**data))


def test_digits():
    source = load(name="digits")
    assert source.train.images.shape[1:] == (48, 48, 3) and len(source.classes) == 10
    assert len(source.train) + len(source.test) == 1797
    assert 0.15 < len(source.test) / 1797 < 0.25
    assert np.bincount(source.test.labels).min() >= 30
    assert source.train.images.max() == 255 and source.train.images.min() == 0
    assert source.digest == load(name="digits").digest != load(name="digits", image_size=16).digest


def test_auto_stands_in_loudly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "raw").mkdir(parents=True)  # nobody named it
    source = load(name="auto", image_size=16, max_train_examples=12, max_test_examples=6)
    assert source.name == "synthetic_scenes" and len(source.train) == 12 and len(source.test) == 6
    assert "SYNTHETIC" in source.notice and "none were found in data/" in source.notice


@pytest.mark.parametrize(("place", "given"), [("given", {"dir": "given"}), ("data", {})])
def test_auto_takes_images_where_they_are(make_tree, tmp_path, monkeypatch, place, given):
    monkeypatch.chdir(tmp_path)
    make_tree(place, splits=("seg_train", "seg_test"), classes=CLASSES, nested=True)
    source = load(name="auto", **given, image_size=8)
    assert source.name == "intel_scenes" and source.notice == ""


def test_auto_calls_no_other_classes_intel_scenes(make_tree):
    source = load(name="auto", dir=str(make_tree()), image_size=8)
    assert source.name == "folder" and source.classes == ("cat", "dog") and source.notice == ""


NAMED = [(name, key) for name in ("auto", "folder") for key in ("dir", "train", "test")]


@pytest.mark.parametrize(("name", "key"), [*NAMED, ("intel_scenes", "dir")])
@pytest.mark.parametrize("kind", ["missing", "empty", "file", "images", "no images", "$unset"])
@pytest.mark.parametrize("others", ["data", "elsewhere"])
def test_a_folder_that_was_named_and_does_not_do_is_an_error(
    make_tree, tmp_path, monkeypatch, name, key, kind, others
):
    """Never a fallback to other images, or to drawn ones."""
    monkeypatch.chdir(tmp_path)
    make_tree(others, splits=("seg_train", "seg_test"))
    named = "$NO_SUCH_VARIABLE/x" if kind == "$unset" else "named"
    if kind == "file":
        (tmp_path / "named").write_text("no archive")
    elif kind not in ("missing", "$unset"):
        (tmp_path / "named").mkdir()
    if kind == "images":
        Image.new("L", (9, 9)).save(tmp_path / "named" / "1.png")
    elif kind == "no images":
        (tmp_path / "named" / "train" / "cat").mkdir(parents=True)
        (tmp_path / "named" / "train" / "cat" / "a.txt").touch()
    given = {"train": f"{others}/seg_train", "test": named} if key == "test" else {key: named}
    with pytest.raises(HpjaxError, match=r"named|NO_SUCH_VARIABLE") as caught:
        load_dataset(parse_config({"data": {"name": name, **given, "image_size": 8}}).data, 0)
    assert "expected" in str(caught.value) and "\n" not in str(caught.value)
    assert f"data.{key}=" in str(caught.value) or name == "intel_scenes"


def test_a_folder_that_is_not_read_is_said():
    for name in ("digits", "synthetic_scenes"):
        source = load(name=name, dir="images", image_size=8, max_train_examples=12, max_test_examples=6)
        assert [f"data.name={name} has images of its own" in r for r in source.remarks] == [True]


def test_splits_are_named_outright(make_tree):
    root = make_tree(splits=("learn", "judge"), classes=("cat", "dog", "eel"))
    source = load(name="folder", train=f"{root}/learn", test=f"{root}/judge", image_size=8)
    both = load(name="auto", train=f"{root}/judge", test=f"{root}/learn", image_size=8)
    assert source.classes == ("cat", "dog", "eel") and source.remarks == () == both.remarks
    np.testing.assert_array_equal(source.train.images, both.test.images)
    np.testing.assert_array_equal(source.test.images, both.train.images)


def test_one_folder_is_not_both_splits(make_tree):
    root = make_tree()
    with pytest.raises(ConfigError, match=r"data\.test=.* another folder than data\.train"):
        load(name="folder", train=f"{root}/train", test=f"{root}/test/../train")


def test_a_folder_of_splits_is_no_folder_of_classes(make_tree):
    root = make_tree()
    with pytest.raises(
        DataError, match=r"data\.train=.* holds test/, train/: expected a folder of images per class"
    ):
        load(name="folder", train=str(root))


def test_intel_scenes_says_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match=f"no Intel images in {tmp_path}.*hpjax.data.prepare --download"):
        load(name="intel_scenes", dir=str(tmp_path))


def test_synthetic_scenes_counts(monkeypatch):
    monkeypatch.setattr(sources, "SYNTHETIC_EXAMPLES", (18, 6))
    source = load(name="synthetic_scenes", image_size=8)
    assert (len(source.train), len(source.test)) == (18, 6)
    assert len(load(name="synthetic_scenes", image_size=8, max_train_examples=30).train) == 30


def test_every_source_has_its_docstring():
    assert all(load_any.__doc__ for load_any in SOURCES.values())


def test_real_photographs(small_intel):
    source = load(name="folder", dir=str(small_intel), image_size=32)
    assert np.bincount(source.train.labels).tolist() == [24] * 6
    assert np.bincount(source.test.labels).tolist() == [12] * 6
    assert 80 < source.train.images.mean() < 160
