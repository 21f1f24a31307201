"""The files of the user's that shape a sweep's results: it goes on, and answers, with the same ones alone.

Images are compared by `Datasets`; here it is code and pretrained weights. What counts is content: a file may
have moved, or be named in another way.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpjax.config.fields import FIELDS, Config
from hpjax.config.own_code import MAIN
from hpjax.config.parsing import to_dict
from hpjax.config.user_files import is_own, read_code
from hpjax.errors import WorkdirError
from hpjax.models.pretrained import find_weights, hash_weights
from hpjax.search.space import parse_space
from hpjax.store.changes import CODE, WEIGHTS
from hpjax.store.checkpoints import read_newest_ledger
from hpjax.store.files import read_json
from hpjax.store.typed import is_dict_of
from hpjax.store.workdir import POPULATION, SUMMARY_NAME, is_finished

Files = dict[str, dict[str, str]]  # by where the config names them: SHA-256 by name
CURE = "restore what it was begun with, or name a new --workdir"


class Inputs(NamedTuple):
    """What shaped the results in a workdir.

    Attributes:
      fingerprints: of data sets, by name and size.
      files: hashes of code and weights.
    """

    fingerprints: dict[str, str]
    files: Files


def hash_files(config: Config) -> Files:
    """Returns the hashes of the code and the weights that a configuration names; runs none of it.

    Raises:
      HpjaxError: One of them isn't there or can't be read, or the space is wrong.
    """
    files = {place: dict(read_code(key, name).hashes) for place, key, name in _list_code(config)}
    if config.model.pretrained:
        files[WEIGHTS] = {MAIN: hash_weights(config.model.pretrained)}
    return files


def check_changed(workdir: Path, now: Files, config: Config) -> None:
    """Checks, before anything of it is run, the files that the sweep in a workdir was begun with, if any.

    Whether it is that sweep's config at all isn't known yet: what it doesn't name is left out.

    Raises:
      WorkdirError: As `check_files` does.
    """
    if begun := find_inputs(workdir):
        common = {place: hashes for place, hashes in now.items() if place in begun.files}
        check_files(workdir, begun.files, common, config)


def check_files(workdir: Path, begun: Files, now: Files, config: Config) -> None:
    """Checks that a sweep's code and weights are those that it was begun with.

    Args:
      workdir: named in the message.
      begun: what `hash_files` returned when the sweep began.
      now: what it returns now.
      config: names the files.

    Raises:
      WorkdirError: A file differs, or isn't imported any more; names it.
    """
    for place, today in now.items():
        then = begun.get(place, {})
        for name in sorted(then.keys() | today.keys()):
            if then.get(name) != today.get(name):
                raise WorkdirError(
                    f"{workdir} was begun with another content of {_locate(config, place, name)} "
                    f"({place}): {CURE}"
                )


def find_inputs(workdir: Path) -> Inputs | None:
    """Returns what shaped the results that are in a workdir; None where nothing says so. Changes nothing."""
    if is_finished(workdir):
        return parse_inputs(read_json(workdir / SUMMARY_NAME).get("inputs"))
    return parse_inputs(read_newest_ledger(workdir / POPULATION))


def parse_inputs(values: Any) -> Inputs | None:
    """Returns the inputs that a ledger or a summary holds; None where it holds none."""
    if not isinstance(values, Mapping) or not values.keys() >= {*Inputs._fields}:
        return None
    found = Inputs(values["fingerprints"], values["files"])
    if not is_dict_of(str, found.fingerprints) or not is_dict_of(dict[str, str], found.files):
        return None
    return found


def _list_code(config: Config) -> Iterator[tuple[str, str, str]]:
    """Yields where each `FILE.py:NAME` stands, the field that it is for, and itself."""
    plain = to_dict(config)
    axes = {axis.name: axis.choices or () for axis in parse_space(config.sweep.space).axes}
    for key in CODE:
        section, field = key.split(".")
        if is_own(name := plain[section][field]):
            yield key, key, name
        axis = FIELDS[key].axis
        for number, choice in enumerate(axes.get(axis, ())):
            if is_own(choice):
                yield f"sweep.space.{axis}[{number}]", key, choice


def _locate(config: Config, place: str, name: str) -> Path:
    """Returns where a file lies, or would lie, whose hash differs."""
    if place == WEIGHTS:
        return find_weights(config.model.pretrained)
    key, value = next((key, value) for where, key, value in _list_code(config) if where == place)
    path = read_code(key, value).path
    return path.parent / name if name else path
