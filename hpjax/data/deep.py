"""Pictures of more than 8 bits, which one scale makes comparable across a data set."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from hpjax.errors import DataError

WHOLE, FLOAT, COLOUR = "whole numbers", "floats", "colours of 16 bits"


class DeepPicture(Exception):
    """A picture of more than 8 bits was met before the data set's scale was known."""


class Extent(NamedTuple):
    """What a deep picture's values are; of colours, the upper 8 bits alone."""

    name: str
    kind: str
    smallest: float
    largest: float
    all_finite: bool


@dataclass(frozen=True)
class Scale:
    """Which values of a data set's deep pictures become black and white.

    Attributes:
      low: what becomes 0.
      high: what becomes 255.
      remark: what was found and done, in words.
    """

    low: float
    high: float
    remark: str

    def apply(self, values: np.ndarray) -> Image.Image:
        """Returns the values as a grey picture; black where they are no finite numbers."""
        finite = np.where(np.isfinite(values), values, self.low)
        scaled = (finite - self.low) * 255 / (self.high - self.low)
        return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def depth_kind(image: Image.Image) -> str:
    """Returns which kind of deep picture this is; empty where 8 bits hold it."""
    if image.mode == "F":
        return FLOAT
    if image.mode == "I" or image.mode.startswith("I;"):
        return WHOLE
    # Pillow has no mode for these: it reads the upper 8 bits of each channel.
    return COLOUR if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())) else ""


def read_values(image: Image.Image) -> np.ndarray:
    """Returns the values of a grey deep picture, turned as it is to be shown."""
    unsigned = image.mode == "I" and _is_unsigned(image)
    values = np.asarray(ImageOps.exif_transpose(image))
    if unsigned:  # Pillow reads these 32 bits as signed ones
        values = values.view(np.uint32)
    return values.astype(np.float64)


def find_extent(name: str, image: Image.Image) -> Extent | None:
    """Returns what the values of the picture `name` are; None where 8 bits hold them."""
    kind = depth_kind(image)
    if not kind:
        return None
    values = _read_colours(image) if kind == COLOUR else read_values(image)
    finite = values[np.isfinite(values)]
    smallest, largest = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    return Extent(name, kind, float(smallest), float(largest), finite.size == values.size)


def _read_colours(image: Image.Image) -> np.ndarray:
    values = np.asarray(image, np.float64)
    return values[..., :-1] if image.mode in ("LA", "RGBA") else values  # opacity is no colour


def create_scale(extents: Iterable[Extent]) -> Scale:
    """Returns the one scale of a data set, from the largest and smallest values in it.

    Raises:
      DataError: No one scale does: floats beside whole numbers, or colours that use few of their 16 bits.
    """
    extents = list(extents)
    grey = [extent for extent in extents if extent.kind != COLOUR]
    colours = [extent for extent in extents if extent.kind == COLOUR]
    _check_kinds(grey)
    _check_colours(colours)
    low, high = _find_ends(grey)
    remarks = []
    if grey:
        remarks.append(
            f"{len(grey)} images of more than 8 bits: {low:g} to {high:g} become 0 to 255, the same in all"
        )
    if not all(extent.all_finite for extent in grey):
        remarks.append("what is no finite number in them is black")
    if colours:
        remarks.append(f"{len(colours)} images are {COLOUR}: the upper 8 are read")
    return Scale(low, high, "; ".join(remarks))


def _check_kinds(extents: list[Extent]) -> None:
    first = {extent.kind: extent.name for extent in reversed(extents)}
    if len(first) > 1:
        raise DataError(
            f"{first[WHOLE]} is of {WHOLE} of more than 8 bits and {first[FLOAT]} of {FLOAT}: expected one "
            "of these in a data set, as one scale has to fit all"
        )


def _check_colours(extents: list[Extent]) -> None:
    largest = max((extent.largest for extent in extents), default=255)
    if largest < 128:
        raise DataError(
            f"{extents[0].name} is of {COLOUR} and no such image exceeds {256 * int(largest) + 255}: "
            "expected values up to 65535, or images of 8 bits, as the lower 8 bits are not read"
        )


def _find_ends(extents: list[Extent]) -> tuple[float, float]:
    low = min((extent.smallest for extent in extents), default=0.0)
    high = max((extent.largest for extent in extents), default=0.0)
    low = min(low, 0.0)
    if low == 0 and extents and extents[0].kind == WHOLE:
        high = max(high, 255.0)  # what fits 8 bits stays as it is
    return low, high if high > low else low + 1.0


def _is_unsigned(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", None)
    bits_per_sample, sample_format = 258, 339
    return tags is not None and tags.get(bits_per_sample) == (32,) and tags.get(sample_format, (1,)) == (1,)
