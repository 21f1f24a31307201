"""What the name of a folder or file says: which split it holds, or that it is clutter."""

import re
import unicodedata
from pathlib import PurePath

TRAIN, TEST, VALIDATION = "train", "test", "validation"
_ROLES = {
    TRAIN: ("train", "training", "trn", "trainval"),
    TEST: ("test", "testing", "tst"),
    VALIDATION: ("val", "valid", "validation", "validate", "validating", "vali", "dev", "eval", "evaluation"),
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}
# Words that say nothing about which split it is.
_FILLERS = (
    *("set", "sets", "ds", "split", "splits", "fold", "part", "subset", "seg", "cls", "classification"),
    *("class", "classes", "image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo"),
    *("photos", "jpg", "jpeg", "jpegs", "png", "pngs", "data", "dataset", "datasets", "folder", "dir"),
    *("directory", "file", "files", "sample", "samples", "example", "examples", "labeled", "labelled"),
    *("the", "my", "of", "for", "all", "full", "final", "raw", "small"),
)
_GLUED = re.compile(
    "(?:{fillers})*({roles})(?:{fillers})*".format(
        fillers="|".join(sorted(_FILLERS, key=len, reverse=True)),
        roles="|".join(sorted(_ROLE_OF, key=len, reverse=True)),
    )
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")

_CLUTTER = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "__pycache__", "@eadir", "#recycle", "#snapshot")
    + ("@recycle", "@recently-snapshot", "@tmp", "lost+found", "$recycle.bin", "recycler", "recycled")
    + ("system volume information", "found.000", "network trash folder", "temporary items", "icon\r")
)


def is_clutter(name: str) -> bool:
    """Returns whether a file or folder of this name was left by a file manager or a system, or is hidden."""
    return is_hidden(name) or name.casefold() in _CLUTTER


def is_hidden(name: str) -> bool:
    """Returns whether a name says that a file or folder isn't to be shown."""
    return name.startswith(".")


def split_role(name: str) -> tuple[str, tuple[str, ...]]:
    """Returns which split a folder's name speaks of, and the words of it that say something else.

    `Training_Set` is (`train`, ()), `birds-val` is (`validation`, (`birds`,)), `birds` is (``, ()).

    Args:
      name: of a folder, or of an archive without its suffix.
    """
    words = [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", name))]
    roles, others = [], []
    for word in words:
        if match := _GLUED.fullmatch(word):
            roles.append(_ROLE_OF[match[1]])
        elif not (word in _FILLERS or word.isdigit()):
            others.append(word)
    return (roles[0], tuple(others)) if len(roles) == 1 else ("", ())


def file_kind(name: str) -> str:
    """Returns how files like this one are counted: by suffix, in lower case."""
    suffix = PurePath(name).suffix.lower()
    if not suffix:
        return "without suffix"
    return suffix if re.fullmatch(r"\.\w{1,10}", suffix) else "other"
