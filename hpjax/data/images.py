"""From image files to uint8 RGB squares."""

import io
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from hpjax.errors import DataError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")
    + (".ppm", ".pgm", ".pbm", ".pnm")
)
MAX_PIXELS = 89_000_000  # more than that is refused: a small file may unfold to all of the memory
MIN_IMAGE_SIZE = 8
CHUNK = 512  # images decoded before they are handed on: bounds the memory


@dataclass(frozen=True)
class Picture:
    """One encoded image.

    Attributes:
      name: what messages call it, e.g. its path.
      label: index of its class.
      content: where its bytes are: a file, or the bytes themselves.
    """

    name: str
    label: int
    content: Path | bytes = field(repr=False)


def decode_image(picture: Picture, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Returns the picture as RGB, resized (antialiased, not cropped) to a square of `size` pixels.

    Grey, palette, CMYK and 16-bit pictures are converted; transparency shows white; EXIF rotation is applied.

    Raises:
      DataError: The picture can't be decoded; names it and says why.
    """
    content = picture.content
    try:
        _check_regular(content)
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            _check_pixels(image)
            rgb = _to_rgb(ImageOps.exif_transpose(image))
            return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR))
    except DataError as error:
        raise DataError(f"{picture.name}: {error}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise DataError(f"{picture.name}: not a readable image ({_reason(picture, error)})") from error


def decode_chunks(
    pictures: Iterable[Picture], size: int, skipped: list[str] | None = None, workers: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decodes pictures in threads, in order.

    Args:
      pictures: what to decode.
      size: side of the squares in pixels.
      skipped: where to note `name: reason` of bad pictures; None raises at the first one.
      workers: threads; None: as many as the machine offers.

    Yields:
      Images and labels of up to `CHUNK` pictures.

    Raises:
      DataError: A picture can't be decoded and `skipped` is None.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_pixels refuses these
        for chunk in _chunks(pictures):
            decoded = list(pool.map(lambda p: _try_decode(p, size, skipped), chunk))
            good = [(image, p.label) for image, p in zip(decoded, chunk, strict=True) if image is not None]
            images, labels = np.zeros((len(good), size, size, 3), np.uint8), np.zeros(len(good), np.int32)
            for i, (image, label) in enumerate(good):
                images[i], labels[i] = image, label
            yield images, labels


def check_image_size(size: int) -> None:
    """Raises DataError where `size` is no sensible side of an image."""
    if size < MIN_IMAGE_SIZE:
        raise DataError(f"data.image_size={size} is too small: expected at least {MIN_IMAGE_SIZE} pixels")


def _chunks(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    chunk = []
    for picture in pictures:
        chunk.append(picture)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _try_decode(picture: Picture, size: int, skipped: list[str] | None) -> np.ndarray | None:
    try:
        return decode_image(picture, size)
    except DataError as error:
        if skipped is None:
            raise
        skipped.append(str(error))
        return None


def _check_regular(content: Path | bytes) -> None:
    if isinstance(content, Path) and os.path.exists(content) and not os.path.isfile(content):
        raise DataError("not a readable image (it is no regular file)")  # reading a pipe waits for ever


def _check_pixels(image: Image.Image) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise DataError(f"{image.width}x{image.height} pixels are too many: expected at most {MAX_PIXELS:,}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _from_deep_grey(np.asarray(image, np.float64), image.mode).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(values: np.ndarray, mode: str) -> Image.Image:
    """Scales 16-bit grey, and floats in [0, 1], to 8 bits; values that fit 8 bits already stay."""
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    largest = values.max()
    if mode.startswith("I;16") or (mode == "I" and largest > 255):
        values = values / 257
    elif mode == "F" and largest <= 1:
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _reason(picture: Picture, error: Exception) -> str:
    content = picture.content
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    empty = (
        not content
        if isinstance(content, bytes)
        else os.path.isfile(content) and os.path.getsize(content) == 0
    )
    if empty:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is no image format known here"
    return " ".join(str(error).split()) or type(error).__name__
