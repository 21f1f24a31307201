"""What is to be answered, as a loss takes it: classes, labels of 0 and 1, or numbers."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from hpjax.errors import ConfigError, text_of
from hpjax.tasks import ANY, CLASSES, LABELS, LOSSES

_MOST_CLASSES = 100_000


class Targets(NamedTuple):
    """Targets of each split.

    Attributes:
      splits: int32 [examples] of classes; else float32 [examples, labels or numbers].
      classes: names, in the order of their numbers; empty where there are none.
    """

    splits: dict[str, np.ndarray]
    classes: tuple[str, ...] = ()


class Refusing(Protocol):
    """Where targets come from: says what is allowed there."""

    def refuse(self, allowed: str) -> ConfigError:
        """Returns the error."""
        ...


def read_targets(place: Refusing, kind: str, given: Mapping[str, Any]) -> Targets:
    """Returns the targets of each split as the loss takes them.

    Args:
      place: where they come from.
      kind: as in `hpjax.tasks`; `any` takes whole numbers and text for classes, and else numbers.
      given: arrays by split.

    Raises:
      ConfigError: They aren't of that kind.
    """
    arrays = {split: _read(place, split, y) for split, y in given.items()}
    if kind == ANY:
        classes = all(array.ndim == 1 and array.dtype.kind in "buiU" for array in arrays.values())
        kind = CLASSES if classes else ""
    if kind == CLASSES:
        return _read_classes(place, arrays)
    check = _check_labels if kind == LABELS else _check_numbers
    for split, array in arrays.items():
        check(place, split, array)
    widths = {split: array.shape[1] if array.ndim == 2 else 1 for split, array in arrays.items()}
    if len({*widths.values()}) > 1:
        raise place.refuse(f"as many columns of y in each split, not {widths}")
    columns = {s: a.astype(np.float32).reshape(len(a), widths[s]) for s, a in arrays.items()}
    if not all(np.isfinite(array).all() for array in columns.values()):
        raise place.refuse("finite numbers of 32 bits as y")
    return Targets(columns)


def _read(place: Refusing, split: str, y: Any) -> np.ndarray:
    try:
        array = np.asarray(y)
    except Exception as error:  # of whatever pretends to be an array
        raise place.refuse(f"an array as y of {split}; {text_of(error, 200)}") from error
    if array.dtype == object and all(isinstance(item, str) for item in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "buifU" or array.ndim not in (1, 2) or 0 in array.shape:
        raise place.refuse(f"numbers or names [examples] as y of {split}, not {_show(array)}")
    return array


def _read_classes(place: Refusing, arrays: Mapping[str, np.ndarray]) -> Targets:
    for split, array in arrays.items():
        if array.ndim != 1 or array.dtype.kind not in "buiU":
            others = ", ".join(name for name in LOSSES if name != "cross_entropy")
            raise place.refuse(
                f"whole numbers or names [examples] as y of {split}, not {_show(array)}, with "
                f"task.loss=cross_entropy ({others} take others)"
            )
    if any(array.dtype.kind == "U" for array in arrays.values()):
        names = sorted({*map(str, np.unique(arrays["train"]))})
        numbers = {name: number for number, name in enumerate(names)}
        found = {split: [numbers.get(str(name), -1) for name in y] for split, y in arrays.items()}
        numbered = {split: np.array(y, np.int32) for split, y in found.items()}
    else:
        count = 1 + max(int(y.max()) for y in arrays.values())
        if count > _MOST_CLASSES or any(y.min() < 0 for y in arrays.values()):
            raise place.refuse(f"classes from 0 to {_MOST_CLASSES - 1} as y")
        names = [str(number) for number in range(count)]
        numbered = {split: y.astype(np.int32) for split, y in arrays.items()}
    there = np.unique(numbered["train"])
    if missing := [n for split in numbered.values() for n in np.unique(split) if n not in there]:
        what = "a name" if missing[0] < 0 else f"class {names[missing[0]]}"
        raise place.refuse(f"every class among the training examples: {what} isn't")
    if len(there) != len(names):
        lacking = next(number for number in range(len(names)) if number not in there)
        raise place.refuse(f"classes numbered from 0 without gaps: none is {lacking}; names need no numbers")
    if len(names) < 2:
        raise place.refuse(f"at least 2 classes: all are {names[0]}")
    return Targets(numbered, tuple(names))


def _check_labels(place: Refusing, split: str, array: np.ndarray) -> None:
    if array.dtype.kind == "U" or not np.isin(array, (0, 1)).all():
        raise place.refuse(f"labels of 0 and 1 as y of {split}, not other {_show(array)}, with binary")


def _check_numbers(place: Refusing, split: str, array: np.ndarray) -> None:
    if array.dtype.kind == "U":
        raise place.refuse(f"numbers as y of {split}, not text")


def _show(array: np.ndarray) -> str:
    return f"{'text' if array.dtype.kind == 'U' else array.dtype}{list(array.shape)}"
