"""What may have happened to the files of a workdir."""

import contextlib
import json
import os
import random
import shutil

from no_files import NO_FILES

from hpjax.store.ledger import seal_ledger

ABSENT = ("identity.txt", "lineage.csv", "mlflow.db", ".config.json.hpjax-tmp-1", "study.journal.lock")


def list_paths(workdir) -> list[str]:
    """Returns what lies in a workdir, and what may lie there, relative to it."""
    there = {str(path.relative_to(workdir)) for path in workdir.rglob("*")}
    return sorted(there.union(ABSENT))


KINDS = {
    **NO_FILES,
    "folder": lambda path: (path.mkdir(), (path / "inside").write_text("mine")),
    "empty folder": os.mkdir,
    "file": lambda path: path.write_text("mine"),
    "empty file": lambda path: path.touch(),
    "full device": lambda path: path.symlink_to("/dev/full"),
    "nothing": lambda path: None,
}


def replace_file(path, kind):
    """Puts something else in the place of a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    KINDS[kind](path)


DEEP = "@deep@"
HOSTILE = (
    *(-1, 0, 1, 10**9, 2**63, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("-inf"), True, False, None),
    *(
        "",
        "x",
        "x" * 10_000,
        "\x1b[31mred",
        "a\nb",
        "../../etc/passwd",
        "1",
        "%s",
        [],
        [[]],
        {},
        {"a": 1},
        DEEP,
    ),
)


def _mutate(value, rng: random.Random):
    """Changes, removes or adds a value somewhere in a JSON object."""
    places, waiting = [], [value]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = rng.choice(places)
    how = rng.random()
    if how < 0.1:
        del node[key]
    elif how < 0.2 and isinstance(node, dict):
        node[rng.choice(("more", "", "a.b", "\x1b"))] = rng.choice(HOSTILE)
    else:
        node[key] = rng.choice(HOSTILE)


def _write(file, value):
    text = json.dumps(value)
    file.write_text(text.replace(json.dumps(DEEP), "[" * 5000 + "]" * 5000))


def mutate_file(file, rng: random.Random):
    """Changes a JSON file, or one line of a log, and seals a ledger again, as a forger would."""
    if file.suffix in (".jsonl", ".journal"):
        lines = file.read_text().splitlines()
        number = rng.randrange(len(lines))
        value = json.loads(lines[number])
        _mutate(value, rng)
        lines[number] = json.dumps(value).replace(json.dumps(DEEP), "[" * 5000 + "]" * 5000)
        file.write_text("\n".join(lines) + "\n")
        return
    value = json.loads(file.read_text())
    _mutate(value, rng)
    _write(file, value)
    if file.name == "ledger.json":
        with contextlib.suppress(Exception):  # of one that can't be sealed any more
            seal_ledger(file, file.parents[1] / "arrays")
