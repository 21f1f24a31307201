"""From image files to uint8 images of one size."""

import contextlib
import functools
import io
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from hpjax.data.deep import (
    COLOUR,
    DeepPicture,
    Extent,
    Scale,
    create_scale,
    depth_kind,
    find_extent,
    read_values,
)
from hpjax.errors import DataError

# No other decoder is ever run on a file: some call other programs, some read pages, plots or videos.
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"),
    *("MPO", "QOI", "PCX", "SGI", "TGA"),
)
_WITHOUT_MARK = "TGA"  # nothing in such a file says that it is one: its name has to
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


def known_formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that the installed Pillow reads."""
    return tuple(name for name in FORMATS if name in _suffixes_of())


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Returns the suffixes of image files, in lower case, with their dots."""
    return frozenset(suffix for suffixes in _suffixes_of().values() for suffix in suffixes)


def has_image_suffix(path: str | os.PathLike) -> bool:
    """Returns whether a file's name says that it is an image."""
    return os.path.splitext(path)[1].lower() in image_suffixes()


def is_image(path: str | os.PathLike) -> bool:
    """Returns whether a file is taken for an image: by its suffix, or by how its content begins."""
    if has_image_suffix(path):
        return True
    try:
        status = os.stat(path)
        # Opening a pipe waits for ever, and so do some of a system's files, all of which say they are empty.
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which decoding checks
            _open(path).close()
        return True
    except Exception:  # Pillow's decoders raise nearly anything
        return False


Size = int | tuple[int, int, int]  # side of a square in colours; or height, width and channels


def image_shape(size: Size) -> tuple[int, int, int]:
    """Returns height, width and channels."""
    return size if isinstance(size, tuple) else (size, size, 3)


def decode_image(
    picture: Picture, size: Size, scale: Scale | None = None
) -> UInt8[np.ndarray, "height width channels"]:
    """Returns the picture as RGB or grey, resized (antialiased, not cropped) to `size`.

    Grey, palette, CMYK and deep pictures are converted; transparency shows white; EXIF rotation is applied.

    Args:
      picture: the encoded image.
      size: side of the square in pixels, or height, width and channels.
      scale: of deep pictures; see `measure_scale`.

    Raises:
      DataError: The picture can't be decoded; names it and says why.
      DeepPicture: It has more than 8 bits, and no scale is given.
    """
    with _naming(picture), _open_picture(picture) as image:
        kind = depth_kind(image)
        if kind and scale is None:
            raise DeepPicture(picture.name)
        if kind and scale and kind != COLOUR:
            rgb = scale.apply(read_values(image)).convert("RGB")
        else:
            rgb = _to_rgb(ImageOps.exif_transpose(image))
        height, width, channels = image_shape(size)
        image = rgb if channels == 3 else rgb.convert("L")
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(image_shape(size))


def reshape_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Returns an image in colours of another size, or grey."""
    height, width, channels = image_shape(size)
    picture = Image.fromarray(image) if channels == 3 else Image.fromarray(image).convert("L")
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(image_shape(size))


def measure_scale(pictures: Iterable[Picture], workers: int | None = None) -> Scale:
    """Returns the one scale for all deep pictures of a data set; what can't be read isn't looked at.

    Raises:
      DataError: No one scale does.
    """
    with _decoders(workers) as pool:
        extents = [extent for chunk in _chunks(pictures) for extent in pool.map(_try_extent, chunk) if extent]
    return create_scale(extents)


def decode_chunks(
    pictures: Iterable[Picture],
    size: Size,
    skipped: list[str] | None = None,
    scale: Scale | None = None,
    workers: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decodes pictures in threads, in order.

    Args:
      pictures: what to decode.
      size: side of the squares in pixels, or height, width and channels.
      skipped: where to note `name: reason` of bad pictures; None raises at the first one.
      scale: of deep pictures; None raises at the first one.
      workers: threads; None: as many as the machine offers.

    Yields:
      Images and labels of up to `CHUNK` pictures.

    Raises:
      DataError: A picture can't be decoded and `skipped` is None.
      DeepPicture: One has more than 8 bits, and no scale is given.
    """
    with _decoders(workers) as pool:
        for chunk in _chunks(pictures):
            decoded = list(pool.map(lambda p: _try_decode(p, size, skipped, scale), chunk))
            good = [(image, p.label) for image, p in zip(decoded, chunk, strict=True) if image is not None]
            images, labels = (
                np.zeros((len(good), *image_shape(size)), np.uint8),
                np.zeros(len(good), np.int32),
            )
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


@functools.cache
def _suffixes_of() -> dict[str, tuple[str, ...]]:
    """Returns the suffixes of each format that is allowed and installed."""
    suffixes = Image.registered_extensions()
    installed = [name for name in FORMATS if name in Image.OPEN]
    return {name: tuple(s for s, owner in suffixes.items() if owner == name) for name in installed}


def _open(content: str | os.PathLike | bytes, name: str | os.PathLike = "") -> Image.Image:
    suffixes = _suffixes_of()
    suffix = os.path.splitext(name)[1].lower()
    formats = [f for f in suffixes if f != _WITHOUT_MARK or suffix in suffixes[f]]
    return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=formats)


@contextlib.contextmanager
def _decoders(workers: int | None) -> Iterator[ThreadPoolExecutor]:
    _suffixes_of()  # Pillow's table of formats isn't filled by several threads at once
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_pixels refuses these
        yield pool


@contextlib.contextmanager
def _open_picture(picture: Picture) -> Iterator[Image.Image]:
    _check_regular(picture.content)
    with _open(picture.content, picture.name) as image:
        _check_pixels(image)
        yield image


@contextlib.contextmanager
def _naming(picture: Picture) -> Iterator[None]:
    try:
        yield
    except DeepPicture:
        raise
    except DataError as error:
        raise DataError(f"{picture.name}: {error}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise DataError(f"{picture.name}: not a readable image ({_reason(picture, error)})") from error


def _try_decode(
    picture: Picture, size: Size, skipped: list[str] | None, scale: Scale | None
) -> np.ndarray | None:
    try:
        return decode_image(picture, size, scale)
    except DataError as error:
        if skipped is None:
            raise
        skipped.append(str(error))
        return None


def _try_extent(picture: Picture) -> Extent | None:
    try:
        with _naming(picture), _open_picture(picture) as image:
            return find_extent(picture.name, image)
    except DataError:  # decoding says what is wrong with it
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
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


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
