"""Decoded images on disk, so that a second start only maps files into memory."""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from hpjax.data.deep import DeepPicture, Scale
from hpjax.data.images import CHUNK, Picture, Size, decode_chunks, image_shape, measure_scale
from hpjax.data.splits import Source, Split, SplitHash, join_digests
from hpjax.data.stamps import stamp_files
from hpjax.errors import DataError

_log = logging.getLogger(__name__)
_VERSION = 3  # of the layout and of the decoding
_META = "meta.json"
_TEMPORARY = ".tmp-"


def cache_dir() -> Path:
    """Returns the folder of decoded images: `$HPJAX_CACHE`, else `~/.cache/hpjax`."""
    return Path(os.path.expanduser(os.environ.get("HPJAX_CACHE") or "~/.cache/hpjax"))


Watcher = Callable[[int, int], None]

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watching_decoding(watcher: Watcher | None) -> Iterator[None]:
    """Has `watcher(done, total)` called again and again while images are decoded; None: nobody is told."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def decode_source(
    name: str,
    classes: tuple[str, ...],
    pictures: Mapping[str, Iterable[Picture]],
    size: Size,
    content_key: object,
    on_bad_image: str,
) -> Source:
    """Returns the decoded pictures, from the cache where it has them.

    Args:
      name: the source's name.
      classes: names, in the order of the labels.
      pictures: the encoded images of `train`, `test` and perhaps `validation`; gone through again where
        some have more than 8 bits.
      size: side of the squares in pixels, or height, width and channels.
      content_key: JSON-able; changes whenever pictures that lie in no files of their own may have changed,
        and where others were added, removed or renamed.
      on_bad_image: `fail`, or `skip` to leave bad pictures out and list them in `skipped`.

    Raises:
      DataError: A picture is bad and `on_bad_image` is `fail`, a class has no good picture, or no one scale
        fits those of more than 8 bits.
    """
    files = [_stamp_pictures(pictures[split]) for split in sorted(pictures)]
    parts = [_VERSION, name, classes, size, content_key, *files]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    entry = cache_dir() / f"images-{key[:32]}"
    source = _load(entry, name, verify=True)
    if source is None:
        source = _decode(entry, name, classes, pictures, size, on_bad_image)
    if source.skipped and on_bad_image != "skip":
        raise DataError(source.skipped[0])
    _check_every_class(source)
    return source


def _stamp_pictures(pictures: Iterable[Picture]) -> str:
    """Returns a stamp of the files that pictures lie in; of bytes, `content_key` tells changes."""
    if not isinstance(pictures, tuple | list):
        return ""  # read from an archive as they are asked for
    return stamp_files(p.content for p in pictures if isinstance(p.content, Path))


def _decode(entry: Path, name: str, classes, pictures, size: Size, on_bad_image: str) -> Source:
    try:
        return _decode_scaled(entry, name, classes, pictures, size, on_bad_image, None)
    except DeepPicture:
        scale = measure_scale(itertools.chain.from_iterable(pictures.values()))
    return _decode_scaled(entry, name, classes, pictures, size, on_bad_image, scale)


def _decode_scaled(
    entry: Path, name: str, classes, pictures, size: Size, on_bad_image: str, scale: Scale | None
) -> Source:
    try:
        with temporary_folder(entry) as folder:
            _write(folder, classes, pictures, size, on_bad_image, scale)
            _publish(folder, entry)
        source = _load(entry, name, verify=False)
    except OSError as error:
        _log.warning("decoded images can't be kept in %s (%s)", entry.parent, error.strerror or error)
        source = None
    return source or _decode_in_memory(name, classes, pictures, size, on_bad_image, scale)


def _telling(pictures: Mapping[str, Iterable[Picture]]) -> dict[str, Iterable[Picture]]:
    """Returns pictures that tell who watches how many were taken, where it is known how many there are."""
    watcher, total = _watcher.get(), sum(len(some) for some in pictures.values() if isinstance(some, Sized))
    if watcher is None or not all(isinstance(some, Sized) for some in pictures.values()):
        return dict(pictures)
    taken = itertools.count(1)

    def tell(some: Iterable[Picture]) -> Iterator[Picture]:
        for picture in some:
            yield picture
            if (number := next(taken)) % CHUNK == 0 or number == total:
                watcher(number, total)

    return {split: tell(some) for split, some in pictures.items()}


def _write(folder: Path, classes, pictures, size: Size, on_bad_image: str, scale: Scale | None) -> None:
    skipped = [] if on_bad_image == "skip" else None
    digests, checksums = [], {}
    pictures = _telling(pictures)
    for split in pictures:
        digest = SplitHash()
        with _ArrayFile(folder / f"{split}_images.npy", image_shape(size), np.uint8) as images:
            labels = [np.zeros(0, np.int32)]
            for some_images, some_labels in decode_chunks(pictures[split], size, skipped, scale):
                images.append(some_images)
                labels.append(some_labels)
                digest.update(some_images, some_labels)
        np.save(folder / f"{split}_labels.npy", np.concatenate(labels))
        digests.append(digest.hexdigest())
    for path in sorted(folder.glob("*.npy")):
        checksums[path.name] = _checksum(path)
    digest = join_digests(classes, digests)
    meta = {"classes": classes, "digest": digest, "skipped": skipped or [], "checksums": checksums}
    meta |= {"splits": list(pictures), "scale": scale and [scale.low, scale.high, scale.remark]}
    (folder / _META).write_text(json.dumps(meta))


def _decode_in_memory(
    name: str, classes, pictures, size: Size, on_bad_image: str, scale: Scale | None
) -> Source:
    skipped = [] if on_bad_image == "skip" else None
    splits, digests = {}, []
    pictures = _telling(pictures)
    for split in pictures:
        digest, chunks = SplitHash(), list(decode_chunks(pictures[split], size, skipped, scale))
        for chunk in chunks:
            digest.update(*chunk)
        images, labels = zip(*chunks, strict=True)
        splits[split] = Split(np.concatenate(images), np.concatenate(labels))
        digests.append(digest.hexdigest())
    return _create_source(name, classes, splits, join_digests(classes, digests), tuple(skipped or ()), scale)


def _create_source(
    name: str, classes, splits: Mapping[str, Split], digest: str, skipped: tuple, scale: Scale | None
) -> Source:
    return Source(
        name=name,
        classes=tuple(classes),
        train=splits["train"],
        test=splits["test"],
        validation=splits.get("validation"),
        digest=digest,
        skipped=skipped,
        remarks=(scale.remark,) if scale else (),
        scale=scale,
    )


def _load(entry: Path, name: str, verify: bool) -> Source | None:
    """Returns what lies in the cache, or None where that is nothing or damaged."""
    if not os.path.isdir(entry):
        return None
    try:
        if not all(map(os.path.isfile, entry.iterdir())):
            raise ValueError("not all of it are files")  # to read from a pipe waits for ever
        meta = json.loads((entry / _META).read_text())
        if verify and any(_checksum(entry / file) != crc for file, crc in meta["checksums"].items()):
            raise ValueError("a checksum differs")
        splits = {split: _load_split(entry, split) for split in meta["splits"]}
        scale = meta["scale"] and Scale(*meta["scale"])
        return _create_source(name, meta["classes"], splits, meta["digest"], tuple(meta["skipped"]), scale)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        _log.warning("damaged cache %s is made anew (%s)", entry, error)
        return None


def _load_split(entry: Path, split: str) -> Split:
    images = np.load(entry / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(entry / f"{split}_labels.npy", allow_pickle=False)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels):
        raise ValueError(f"{split} arrays don't fit together")
    return Split(np.asarray(images), labels)  # a plain array over the map: jax takes no subclass


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


@contextlib.contextmanager
def temporary_folder(entry: Path) -> Iterator[Path]:
    """Creates a folder beside an entry of the cache to be, and removes it at the end if it is still there."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(entry.parent)
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=entry.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path, seconds: float = 86_400) -> None:
    """Removes what killed processes left; a folder that young may still be in use."""
    for folder in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > seconds:
                shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, entry: Path) -> None:
    shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):  # another process was first: its entry is as good
        folder.rename(entry)


def _check_every_class(source: Source) -> None:
    splits = {"training": source.train, "test": source.test, "validation": source.validation}
    for name, split in splits.items():
        if split is None:
            continue
        counts = np.bincount(split.labels, minlength=len(source.classes))
        if (counts == 0).any():
            missing = source.classes[int(np.argmin(counts))]
            raise DataError(f"class {missing!r} of {source.name} has no readable {name} image")


class _ArrayFile:
    """A .npy file that grows; its length is written into the header at the end."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype):
        self._path, self._shape, self._dtype, self._length = path, shape, np.dtype(dtype), 0

    def __enter__(self):
        self._file = self._path.open("wb")
        self._write_header()
        return self

    def append(self, rows: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self._length += len(rows)

    def __exit__(self, *_):
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        """Numpy pads headers so that a longer first axis still fits."""
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._length, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
