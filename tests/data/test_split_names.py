"""A split is known by its name however it is spelled, and clutter by whoever leaves it."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpjax.data.names import TEST, TRAIN, VALIDATION, file_kind, is_clutter, split_role

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
WORDS = {
    TRAIN: ("train", "training"),
    TEST: ("test", "testing"),
    VALIDATION: ("val", "valid", "validation"),
}
CASES = (str.lower, str.upper, str.title)
FILLERS = ("set", "images", "data", "split", "seg", "folder", "2017", "imgs", "the", "1")
JOINTS = ("_", "-", " ", ".", "__")


@st.composite
def spellings(draw) -> tuple[str, str]:
    """A role, and a name that a folder of it may have."""
    role = draw(st.sampled_from(tuple(WORDS)))
    before, after = (draw(st.lists(st.sampled_from(FILLERS), max_size=2)) for _ in range(2))
    words = [*before, draw(st.sampled_from(WORDS[role])), *after]
    name = draw(st.sampled_from(JOINTS)).join(words)
    return role, draw(st.sampled_from(CASES))(name)


@settings(max_examples=300, deadline=None)
@given(spellings())
def test_a_split_is_known_however_it_is_spelled(drawn):
    role, name = drawn
    assert split_role(name) == (role, ()), name


@pytest.mark.parametrize("role", WORDS)
@pytest.mark.parametrize("form", ["{}set", "{}images", "{}_set", "{}_images", "seg_{}", "{}2017", "images{}"])
def test_words_may_be_glued(role, form):
    for word in WORDS[role]:
        for case in CASES:
            assert split_role(case(form.format(word))) == (role, ())
        assert split_role(form.format(word.title())) == (role, ())  # imagesTrain


@pytest.mark.parametrize(
    "name",
    [
        "cat",
        "strain",
        "latest",
        "contest",
        "trainer",
        "trains",
        "evaluator",
        "invalid",
        "train_and_test",
        "",
        "7",
    ],
)
def test_other_names_are_no_splits(name):
    assert split_role(name)[0] == ""


def test_what_else_a_name_says_is_kept():
    assert split_role("birds_train") == (TRAIN, ("birds",))
    assert split_role("Birds-Val-64x64") == (VALIDATION, ("birds", "x"))


CLUTTER = ("@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "Thumbs.db")
CLUTTER += ("desktop.ini", ".ipynb_checkpoints", ".DS_Store", "._a.png", ".git", "#recycle", "__pycache__")


@pytest.mark.parametrize("name", CLUTTER)
def test_clutter_is_known_in_any_case(name):
    assert is_clutter(name) and is_clutter(name.upper()) and is_clutter(name.lower())


@pytest.mark.parametrize("name", ["cat", "eaDir", "recycle", "a.png", "lost", "macosx", "$5", "@home"])
def test_other_names_are_no_clutter(name):
    assert not is_clutter(name)


@given(st.text(max_size=40))
def test_a_kind_is_short_and_printable(name):
    kind = file_kind(name.replace("/", ""))
    assert len(kind) < 20 and kind.isprintable()


@pytest.mark.parametrize(("row", "role"), [("training", TRAIN), ("test", TEST), ("validation", VALIDATION)])
def test_the_names_in_the_documentation_are_known(row, role):
    [line] = re.findall(rf"^\| {row} \|.*$", DOCS.read_text("utf-8"), re.MULTILINE)
    names = re.findall(r"`([^`]+)`", line)
    assert len(names) > 4 and {split_role(name) for name in names} == {(role, ())}


def test_the_clutter_in_the_documentation_is_known():
    [line] = re.findall(r"^Not looked at:.*$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert all(map(is_clutter, re.findall(r"`([^`]+)`", line)))
