import numpy as np
import pytest

from hpjax.config import DataConfig
from hpjax.data import sources
from hpjax.data.sources import SOURCES, load_source
from hpjax.errors import DataError


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
    source = load(name="auto", dir="nowhere", image_size=16, max_train_examples=12, max_test_examples=6)
    assert source.name == "synthetic_scenes" and len(source.train) == 12 and len(source.test) == 6
    assert "SYNTHETIC" in source.notice and "nowhere/ and data/" in source.notice


@pytest.mark.parametrize("place", ["given", "data"])
def test_auto_takes_images_where_they_are(make_tree, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    make_tree(place, splits=("seg_train", "seg_test"), nested=True)
    source = load(name="auto", dir="given", image_size=8)
    assert source.name == "intel_scenes" and source.notice == ""


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
