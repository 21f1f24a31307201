"""Images in, class probabilities out: what a trained model is used as, wherever it was loaded from."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from hpjax.data.deep import DeepPicture, Scale
from hpjax.data.images import Picture, decode_chunks
from hpjax.errors import DataError, ModelError
from hpjax.trained.inputs import describe_wrong_values, name_images

BATCH_SIZE = 64
CHANNELS = (1, 3)  # that images are read with: grey, or colours

Forward = Callable[[Float[np.ndarray, "batch height width channels"]], Float[Any, "batch classes"]]
Images = str | os.PathLike | Sequence[str | os.PathLike] | np.ndarray | jax.Array


class Predicted(NamedTuple):
    """Some pictures of several, and what they show.

    Attributes:
      positions: which of the pictures these are.
      probabilities: of each class.
    """

    positions: Int[np.ndarray, " images"]
    probabilities: Float[np.ndarray, "images classes"]


@dataclass(frozen=True)
class Classifier:
    """A trained model with the preprocessing that it was trained with.

    Attributes:
      name: what messages call it.
      classes: names, in the order of the logits.
      shape: height, width and channels that images are brought to.
      scale: of images of more than 8 bits; None where it was trained on none.
      forward: logits of images in [0, 1], of any number of them.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    scale: Scale | None
    forward: Forward

    def predict(self, images: Images, batch_size: int = BATCH_SIZE) -> Float[np.ndarray, "images classes"]:
        """Returns each image's class probabilities, in the order of `classes`.

        Args:
          images: paths of image files, which are read as those that it was trained on; or an array
            `[images, height, width, channels]` of that shape: uint8, or floats in [0, 1].
          batch_size: how many are computed at a time.

        Raises:
          DataError: A file is no readable image, or no file has as many channels.
          ModelError: The array is of another shape or type.
        """
        if isinstance(images, str | os.PathLike):
            images = [images]
        if not hasattr(images, "shape"):
            pictures = [Picture(str(path), i, Path(path)) for i, path in enumerate(images)]
            found = [part.probabilities for part in self.predict_pictures(pictures, batch_size)]
            return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *found])
        return self._predict_array(self._check_array(np.asarray(images)), batch_size)

    def predict_pictures(
        self, pictures: Sequence[Picture], batch_size: int = BATCH_SIZE, skipped: list[str] | None = None
    ) -> Iterator[Predicted]:
        """Reads pictures and yields what they show, some at a time, in order.

        Args:
          pictures: their labels don't matter.
          batch_size: how many are computed at a time.
          skipped: where to note `name: reason` of bad pictures, which are then left out.

        Raises:
          DataError: A picture can't be read and `skipped` is None, or has more than 8 bits; or no file has as
            many channels.
        """
        if self.shape[-1] not in CHANNELS:
            raise DataError(
                f"{self.name} was trained on images of {self.shape[-1]} channels, which no file has: "
                "expected an array"
            )
        numbered = (Picture(picture.name, i, picture.content) for i, picture in enumerate(pictures))
        try:
            for images, positions in decode_chunks(numbered, self.shape, skipped, self.scale):
                if len(images):
                    yield Predicted(positions, self._predict_array(images, batch_size))
        except DeepPicture as error:
            raise DataError(
                f"{error} has more than 8 bits a pixel, and {self.name} was trained on images of 8 alone: "
                "expected one of 8"
            ) from None

    def _predict_array(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        logits = [np.zeros((0, len(self.classes)), np.float32)]
        size = min(batch_size, len(images))  # one size of batch: it is compiled once
        for start in range(0, len(images), max(size, 1)):
            batch = np.asarray(images[start : start + size])
            scaled = batch.astype(np.float32) / 255 if batch.dtype == np.uint8 else batch.astype(np.float32)
            filling = np.repeat(scaled[-1:], size - len(scaled), axis=0)
            logits.append(np.asarray(self.forward(np.concatenate([scaled, filling])))[: len(scaled)])
        return softmax(np.concatenate(logits).astype(np.float64), axis=1).astype(np.float32)

    def _check_array(self, images: np.ndarray) -> np.ndarray:
        floating = np.issubdtype(images.dtype, np.floating)
        if images.ndim != 4 or images.shape[1:] != self.shape or not (floating or images.dtype == np.uint8):
            raise ModelError(
                f"{self.name} can't take an array {images.dtype}{list(images.shape)}: expected paths of "
                f"images, or {name_images(self.shape)} of uint8 or floats in [0, 1]"
            )
        if floating and images.size and (told := describe_wrong_values(images)):
            raise ModelError(f"{self.name} can't take {told}: expected floats in [0, 1]")
        return images
