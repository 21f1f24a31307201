"""The tensorflow-datasets builder; importing it imports tensorflow-datasets, but no TensorFlow."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from hpjax.data import intel_scenes
from hpjax.data.folder import Tree, scan_tree
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
        splits = {"train": tree.train, "test": tree.test}
        return {name: self._generate_examples(tree, pictures) for name, pictures in splits.items()}

    def _generate_examples(self, tree: Tree, pictures: tuple[Picture, ...]) -> Iterator:
        for picture in pictures:
            path, label = Path(picture.name), tree.classes[picture.label]
            inside = path.relative_to(tree.root).parts
            # From the class on: an image in a folder of its own in there is no other class's.
            filename = "/".join(inside[inside.index(label) :])
            yield filename, {"image": path, "label": label, "filename": filename}
