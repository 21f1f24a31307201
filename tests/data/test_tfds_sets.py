import dataclasses
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from hpjax.config import DataConfig
from hpjax.data import load_dataset, prepare
from hpjax.data.sources import load_source
from hpjax.errors import DataError


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Grey pictures of two classes without a test split."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = ("train",)

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(50, 50, 1)),
            "kind": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in self.SPLITS}

    def _generate_examples(self):
        for i in range(20):
            encoded = io.BytesIO()  # tensorflow-datasets encodes arrays with TensorFlow only
            Image.new("L", (50, 50), 200 * (i % 2) + i).save(encoded, "PNG")
            encoded.seek(0)
            yield i, {"picture": encoded, "kind": i % 2}


class TinyDeepPictures(TinyPictures):
    """Pictures of 16 bits."""

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(50, 50, 1), dtype=np.uint16, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self):
        for i in range(20):
            encoded = io.BytesIO()
            Image.fromarray(np.full((50, 50), 100 * i, np.uint16)).save(encoded, "PNG")
            encoded.seek(0)
            yield i, {"image": encoded, "label": i % 2}


class TinyPicturesTested(TinyPictures):
    """The same with a validation split."""

    SPLITS = ("train", "validation")


class TinyPicturesWhole(TinyPictures):
    """The same with both."""

    SPLITS = ("test", "train", "validation")


class TinyNumbers(tfds.core.GeneratorBasedBuilder):
    """No pictures."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"number": np.int32})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"number": 1}


def prepare_set(name: str, data_dir, file_format="array_record") -> DataConfig:
    tfds.builder(name, data_dir=str(data_dir), file_format=file_format).download_and_prepare()
    return DataConfig(name=f"tfds:{name}", dir=str(data_dir))


def test_set_without_test_split(tmp_path):
    source = load_source(prepare_set("tiny_pictures", tmp_path))
    assert source.classes == ("dark", "light") and source.name == "tfds:tiny_pictures"
    assert source.train.images.shape == (16, 50, 50, 3) and len(source.test) == 4
    pixels = np.concatenate([source.train.images, source.test.images])[:, 0, 0, 0]
    labels = np.concatenate([source.train.labels, source.test.labels])
    assert sorted(pixels.tolist()) == sorted(200 * (i % 2) + i for i in range(20))
    np.testing.assert_array_equal(labels, pixels % 2)
    assert source.remarks == (
        "tiny_pictures has no test split: every fifth training example is tested on instead",
    )


def test_validation_split_stands_in_for_a_test_split(tmp_path):
    source = load_source(prepare_set("tiny_pictures_tested", tmp_path))
    assert len(source.train) == len(source.test) == 20 and source.validation is None
    assert "its validation split is tested on instead" in source.remarks[0]


def test_a_validation_split_beside_a_test_split_selects_or_is_said_to_be_unused(tmp_path):
    config = prepare_set("tiny_pictures_whole", tmp_path)
    without = load_source(config)
    assert without.validation is None and "validation split isn't used" in without.remarks[0]
    config = dataclasses.replace(config, validation_fraction=0.1)
    source, dataset = load_source(config), load_dataset(config, 0)
    assert "none is held out of the training images" in source.remarks[0]
    assert len(source.train) == len(source.test) == len(source.validation or ()) == 20
    assert len(dataset.train) == len(dataset.validation or ()) == 20


def test_deep_images_of_a_set_get_one_scale(tmp_path):
    source = load_source(prepare_set("tiny_deep_pictures", tmp_path))
    pixels = np.concatenate([source.train.images, source.test.images])[:, 0, 0, 0]
    assert sorted(pixels.tolist()) == [round(100 * i * 255 / 1900) for i in range(20)]
    assert "20 images of more than 8 bits: 0 to 1900 become 0 to 255" in source.remarks[-1]


def test_second_start_uses_the_cache(tmp_path, cache):
    config = prepare_set("tiny_pictures", tmp_path)
    assert load_source(config).digest == load_source(config).digest
    assert len(list(cache.iterdir())) == 1


def test_unprepared_set_is_not_fetched(tmp_path):
    with pytest.raises(DataError, match="tiny_pictures is not prepared.*prepare --name=tfds:tiny_pictures"):
        load_source(DataConfig(name="tfds:tiny_pictures", dir=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_unknown_set():
    with pytest.raises(DataError, match="tfds:no_such_set is not known"):
        load_source(DataConfig(name="tfds:no_such_set"))


def test_set_without_images(tmp_path):
    with pytest.raises(DataError, match="tiny_numbers has number: expected one image and one class label"):
        load_source(prepare_set("tiny_numbers", tmp_path))


def test_prepare_command(tmp_path, capfd):
    arguments = ["prepare", "--name=tfds:tiny_pictures", f"--data_dir={tmp_path}"]
    assert prepare.run(arguments) == 2
    assert "give --download to fetch it" in capfd.readouterr().err
    assert prepare.run([*arguments, "--download"]) == 0
    assert len(load_source(DataConfig(name="tfds:tiny_pictures", dir=str(tmp_path))).train) == 16
