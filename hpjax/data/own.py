"""Arrays of the user's own: from a function in a file, a file of NumPy, or a call in Python."""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpjax.config.checks import is_mapping
from hpjax.config.fields import DataConfig
from hpjax.config.paths import expand_path
from hpjax.config.user_files import blaming, is_own, load_from_file
from hpjax.data.splits import Source, Split
from hpjax.data.targets import Targets, read_targets
from hpjax.errors import ConfigError, text_of

GIVEN = "arrays"  # `data.name` of arrays that are given in a call
NPZ = "npz:"
SPLITS = ("train", "test", "validation")
FORM = '{"train": (x, y), "test": (x, y)} of arrays, and perhaps "validation"'
_CHUNK = 1 << 24  # bytes that are looked at a time: arrays may be larger than memory
_INT32 = np.iinfo(np.int32)


class Place(NamedTuple):
    """Where arrays come from, for messages: a field of the configuration or an argument, and its value."""

    key: str
    value: object

    def refuse(self, allowed: str) -> ConfigError:
        """Returns the error that says what is allowed."""
        return ConfigError(self.key, self.value, allowed)


def is_arrays(name: str) -> bool:
    """Returns whether a value of `data.name` stands for arrays of the user's own."""
    return name == GIVEN or name.startswith(NPZ) or is_own(name)


def load_own(data: DataConfig, kind: str, given: Any = None) -> Source:
    """Returns the arrays that `data.name` stands for.

    Args:
      data: the configuration.
      kind: of the targets, as in `hpjax.tasks`.
      given: what `run_sweep(…, data=…)` was given.

    Raises:
      ConfigError: They aren't there, or can't be learned; says what is expected.
      UserCodeError: The user's function fails.
    """
    place = Place("data" if data.name == GIVEN else "data.name", data.name)
    pairs = _list_pairs(place, _find(place, data.name, given))
    inputs = {split: _read_inputs(place, split, x) for split, (x, _) in pairs.items()}
    _check_alike(place, inputs)
    _check_size(data, inputs["train"])
    targets = read_targets(place, kind, {split: y for split, (_, y) in pairs.items()})
    splits = {split: Split(inputs[split], targets.splits[split]) for split in pairs}
    for split, (x, y) in pairs.items():
        if len(inputs[split]) != len(targets.splits[split]):
            raise place.refuse(f"as many targets as inputs in {split}, not {_show(y)} with {_show(x)}")
    return _create_source(data, splits, targets)


def _create_source(data: DataConfig, splits: dict[str, Split], targets: Targets) -> Source:
    validation, remarks = splits.get("validation"), ()
    if validation is not None and data.validation_fraction == 0:
        remarks = ("the validation arrays aren't used: data.validation_fraction=0 selects on no examples",)
        validation = None
    elif validation is not None:
        remarks = ("there are validation arrays: no examples are held out of the training arrays",)
    name = "npz" if data.name.startswith(NPZ) else data.name.rpartition("/")[2]
    return Source(
        name=name,
        classes=targets.classes,
        train=splits["train"],
        test=splits["test"],
        digest=_digest(targets.classes, splits),
        validation=validation,
        remarks=remarks,
    )


def _find(place: Place, name: str, given: Any) -> Any:
    if name == GIVEN:
        if given is None:
            raise place.refuse(f"run_sweep(…, data=…) in Python, with {FORM}")
        return given
    if name.startswith(NPZ):
        return _read_npz(place, Path(expand_path(name.removeprefix(NPZ))))
    path, function = load_from_file("data.name", name, "FILE.py:FUNCTION")
    if not callable(function):
        raise place.refuse(f"the name of a function in {path} after the colon")
    with blaming(f"data.name={name!r} failed", path):
        return function()


def _read_npz(place: Place, path: Path) -> dict[str, tuple]:
    if not os.path.isfile(path):  # to read from a pipe waits for ever
        raise place.refuse(f"a file that exists after the colon; {path} doesn't")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise place.refuse(f"a file of several arrays (numpy.savez); {path} is one array")
            there = [split for split in SPLITS if {f"x_{split}", f"y_{split}"} & {*file.files}]
            if missing := [n for s in there for n in (f"x_{s}", f"y_{s}") if n not in file.files]:
                raise place.refuse(f"an array {missing[0]} in {path}, which has {', '.join(file.files)}")
            return {split: (file[f"x_{split}"], file[f"y_{split}"]) for split in there}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise place.refuse(f"arrays without Python objects in {path}; {text_of(error, 200)}") from error


def _list_pairs(place: Place, found: Any) -> dict[str, tuple[Any, Any]]:
    if not is_mapping(found):
        raise place.refuse(f"{FORM}, not {_show(found)}")
    if unknown := [name for name in found if name not in SPLITS]:
        raise place.refuse(f"{FORM}, not {text_of(unknown[0], 100)!r}")
    for split in ("train", "test"):
        if split not in found:
            raise place.refuse(f'{FORM}; "{split}" is missing')
    for split, pair in found.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise place.refuse(f'"{split}": a pair (x, y) of arrays, not {_show(pair)}')
    return {split: tuple(found[split]) for split in SPLITS if split in found}


def _read_inputs(place: Place, split: str, x: Any) -> np.ndarray:
    """Returns inputs as a model is given them: bytes of images, float32, or int32 of whole numbers."""
    with _refusing(place, f"arrays as x of {split}"):
        array = np.asarray(x)  # a plain array over a map: jax takes no subclass
    if array.dtype.kind not in "buif" or array.ndim == 0 or 0 in array.shape:
        raise place.refuse(f"numbers or truth values [examples, …] as x of {split}, not {_show(array)}")
    array = array[:, None] if array.ndim == 1 else array
    if array.dtype == np.uint8 and array.ndim >= 3:
        return array[..., None] if array.ndim == 3 else array
    if array.dtype.kind in "ui":
        if any(chunk.min() < _INT32.min or chunk.max() > _INT32.max for chunk in _chunks(array)):
            raise place.refuse(f"whole numbers of 32 bits as x of {split}")
        return array.astype(np.int32, copy=False)
    array = array.astype(np.float32, copy=False)
    if not all(np.isfinite(chunk).all() for chunk in _chunks(array)):
        raise place.refuse(f"finite numbers (of 32 bits) as x of {split}: it has some that are not")
    return array


def _check_alike(place: Place, inputs: Mapping[str, np.ndarray]) -> None:
    train = inputs["train"]
    for split, array in inputs.items():
        if array.shape[1:] != train.shape[1:] or array.dtype != train.dtype:
            raise place.refuse(f"x of {split} like that of train, {_show(train)}, not {_show(array)}")


def _check_size(data: DataConfig, train: np.ndarray) -> None:
    shape = train.shape[1:]
    if data.image_size:
        allowed = f"0: arrays have a size of their own, here {list(shape)}"
        raise ConfigError("data.image_size", data.image_size, allowed)
    if data.channels and (len(shape) != 3 or shape[-1] != data.channels):
        raise ConfigError("data.channels", data.channels, f"0: arrays stay as they are, here {list(shape)}")
    if data.dir or data.train:
        key, value = ("data.dir", data.dir) if data.dir else ("data.train", data.train)
        raise ConfigError(key, value, f"empty with data.name={data.name}")


def _digest(classes: tuple[str, ...], splits: Mapping[str, Split]) -> str:
    """Returns the SHA-256, in hex, of class names, shapes, types and contents."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for name, split in sorted(splits.items()):
        for array in (split.images, split.labels):
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            for chunk in _chunks(array):
                digest.update(np.ascontiguousarray(chunk).data)
    return digest.hexdigest()


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, _CHUNK // max(1, array.nbytes // len(array)))
    return (array[start : start + rows] for start in range(0, len(array), rows))


@contextlib.contextmanager
def _refusing(place: Place, allowed: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of whatever pretends to be an array
        raise place.refuse(f"{allowed}; {text_of(error, 200)}") from error


def _show(value: Any) -> str:
    """Returns a value's type, of an array its shape too."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None or dtype is None else f"{dtype}{list(shape)}"
