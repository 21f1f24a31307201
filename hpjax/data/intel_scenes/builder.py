"""The tensorflow-datasets builder; importing it imports tensorflow-datasets, but no TensorFlow."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from hpjax.data import intel_scenes
from hpjax.data.folder import scan_tree
from hpjax.data.images import Picture


class IntelScenes(tfds.core.GeneratorBasedBuilder):
    """Photographs of six kinds of scenes, 150x150 pixels, from a manually downloaded tree."""

    VERSION = tfds.core.Version(intel_scenes.VERSION)
    RELEASE_NOTES = {intel_scenes.VERSION: "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Unpack {intel_scenes.KAGGLE} of Kaggle, so that manual_dir holds seg_train/ and seg_test/."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=intel_scenes.CLASSES),
            "filename": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Intel image classification: natural scenes around the world.",
            homepage=f"https://www.kaggle.com/datasets/{intel_scenes.KAGGLE}",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager) -> dict:
        tree = scan_tree(Path(dl_manager.manual_dir))
        return {"train": self._generate_examples(tree.train), "test": self._generate_examples(tree.test)}

    def _generate_examples(self, pictures: tuple[Picture, ...]) -> Iterator:
        for picture in pictures:
            path = Path(picture.name)
            filename = f"{path.parent.name}/{path.name}"
            yield filename, {"image": path, "label": path.parent.name, "filename": filename}
