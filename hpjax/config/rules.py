"""What a field of the configuration means and may hold: the metadata that everything else is derived from."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_INT = 2**31 - 1
OWN = r".*\.py:.*"  # matches FILE.py:NAME
_PATH = r"\w+(\.\w+)*"  # of a module, e.g. layer1.0.conv1


class Check(NamedTuple):
    """A condition on values of the right type.

    Attributes:
      allowed: which values meet it, in words.
      holds: whether a value does.
    """

    allowed: str
    holds: Callable[[Any], bool]


class Form(NamedTuple):
    """Values that are allowed beside a field's choices.

    Attributes:
      name: what they look like, e.g. `FILE.py:CLASS`.
      pattern: a regular expression that matches all of such a value.
      doc: what they mean.
    """

    name: str
    pattern: str
    doc: str


@dataclass(frozen=True)
class Rule:
    """A field's metadata, of which everything else is derived: checks, help, hyperparameters.

    Attributes:
      doc: what the field is.
      check: what the whole value has to meet.
      choices: the allowed values, of a tuple's items, each with what it does; empty: no closed list.
      forms: further values beside the choices.
      tuples: a tuple that is allowed instead of one value.
      each: what every item of a tuple or mapping has to meet.
      options: of a mapping, a dataclass of such fields: the names that it may have.
      axis: the static hyperparameter that sets the field, as it stands in a space.
      dynamic: whether it is a hyperparameter of its own name, a lane's own number inside the program.
      path: whether it may name a file or folder: `~` and environment variables are replaced.
    """

    doc: str
    check: Check | None = None
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    forms: tuple[Form, ...] = ()
    tuples: Check | None = None
    each: Check | None = None
    options: type | None = None
    axis: str = ""
    dynamic: bool = False
    path: bool = False

    @property
    def allowed(self) -> str:
        """What may stand in the field, in words; empty where its type says all."""
        if self.choices:
            others = [form.name for form in self.forms] + ([self.tuples.allowed] if self.tuples else [])
            return _describe_choices(tuple(self.choices), others)
        checks = (self.check, self.each, self.tuples)
        return (" or " if self.tuples else ", ").join(check.allowed for check in checks if check)


class Field(NamedTuple):
    """A field of the configuration: its name, its default, which shows its type, and its rule."""

    name: str
    default: Any
    rule: Rule

    @property
    def axis(self) -> str:
        """The hyperparameter that sets it, as it stands in a space; empty: it can't be searched."""
        return self.rule.axis or (self.name if self.rule.dynamic else "")

    @property
    def type(self) -> type:
        """The type of its value, of its items where it is a tuple."""
        return type(self.default[0] if isinstance(self.default, tuple) and self.default else self.default)


def list_fields(kind: type, prefix: str = "") -> dict[str, Field]:
    """Returns the fields of a dataclass, and of those that it holds, by dotted key."""
    found: dict[str, Field] = {}
    for declared in dataclasses.fields(kind):
        key, default = prefix + declared.name, getattr(kind(), declared.name)
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            found |= list_fields(type(default), f"{key}.")
        else:
            found[key] = Field(declared.name, default, Rule(**declared.metadata))
    return found


def field(default: Any, doc: str, check: Check | None = None, **rule: Any) -> Any:
    """Returns a dataclass's field with a `Rule` as its metadata."""
    metadata = vars(Rule(doc, check, **rule))
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def is_int(value: Any) -> bool:
    """Returns whether a value is a whole number; a truth value isn't."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Returns whether a value is a number; a truth value isn't."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _describe_choices(choices: tuple[str, ...], others: Sequence[str]) -> str:
    if others:
        return f"one of {', '.join(choices)}, or {' or '.join(others)}"
    return " or ".join(choices) if len(choices) <= 3 else f"one of {', '.join(choices)}"


POSITIVE = Check("a number greater than 0", lambda x: x > 0)
NOT_NEGATIVE = Check("a number of at least 0", lambda x: x >= 0)
# What lies between this and 1 is 1 once it is a float32, as in a program.
FRACTION = Check("a number from 0 to 0.9999999", lambda x: 0 <= x <= 0.9999999)
HALF = Check("a number in (0, 0.5]", lambda x: 0 < x <= 0.5)
FACTOR = Check("a factor greater than 1", lambda x: x > 1)
COUNT = Check("a whole number of at least 1", lambda x: x >= 1)
COUNT_OR_0 = Check("a whole number of at least 0", lambda x: x >= 0)
SEED = Check(f"a whole number from 0 to {MAX_INT}", lambda x: 0 <= x <= MAX_INT)
SEEDS = Check(
    f"different whole numbers from 0 to {MAX_INT}",
    lambda x: all(is_int(seed) and 0 <= seed <= MAX_INT for seed in x) and len({*x}) == len(x),
)
BATCH = Check("a whole number of at least 2 (BN needs two images)", lambda x: x >= 2)
SIDE = Check("0 (the source's own) or 8 to 1024 pixels", lambda x: x == 0 or 8 <= x <= 1024)
SIDES = Check(
    "a pair (height, width) of them", lambda x: len(x) == 2 and all(is_int(s) and 8 <= s <= 1024 for s in x)
)
CHANNELS = Check("0, 1 or 3", lambda x: x in (0, 1, 3))
MEAN_AND_STD = Check(
    "a pair (mean, std) of numbers, std greater than 0",
    lambda x: len(x) == 2 and all(map(is_number, x)) and x[1] > 0,
)
WEIGHTS = Check(
    "a tuple of numbers greater than 0, one per class", lambda x: x and all(is_number(w) and w > 0 for w in x)
)
OPTIONS = Check(
    "names that an argument of a class can have", lambda x: all(name.isidentifier() for name in x)
)
MODULES = Check(
    "none, or names of modules with + in between",
    lambda x: all(re.fullmatch(_PATH, name.strip()) for name in x.split("+")),
)
MODULE_NAMES = Check(
    "a tuple of names", lambda x: x and all(isinstance(name, str) and re.fullmatch(_PATH, name) for name in x)
)
WIDTHS = Check(
    "three whole numbers from 1 to 63", lambda x: len(x) == 3 and all(is_int(w) and 1 <= w <= 63 for w in x)
)
AXIS = Check("at least one value", lambda axis: axis not in ((), {}))
SETTING = Check("a tuple of {hyperparameter: value}", lambda setting: isinstance(setting, Mapping))
