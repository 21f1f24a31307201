"""A user's file and what it imports from its folder: hashed without being run, and run as it was hashed."""

import os
import shutil

import pytest

from hpjax.config.own_code import MAIN, read_own_code
from hpjax.config.user_files import keep_own_code, load_from_file, read_code
from hpjax.errors import ConfigError, UserCodeError

MAIN_FILE = """
import json
import hpjax.errors
import helper_of_mine
import pieces_of_mine.first
from pieces_of_mine import second
from loose_of_mine.part import VALUE as LOOSE

VALUE = (helper_of_mine.VALUE, pieces_of_mine.first.VALUE, second.VALUE, LOOSE)

def late():
    import late_of_mine
    return late_of_mine.VALUE
"""
FILES = {
    "main.py": MAIN_FILE,
    "helper_of_mine.py": "VALUE = 1",
    "pieces_of_mine/__init__.py": "",
    "pieces_of_mine/first.py": "from . import deep\nfrom .deep import VALUE as A\nVALUE = A + deep.VALUE",
    "pieces_of_mine/deep.py": "VALUE = 10",
    "pieces_of_mine/second.py": "from pieces_of_mine.inner import VALUE as A\nVALUE = A - 7",
    "pieces_of_mine/inner/__init__.py": "from ..deep import VALUE",
    "loose_of_mine/part.py": "VALUE = 4",
    "late_of_mine.py": "VALUE = 5",
}
STRANGERS = {"unused.py": "1 / 0", "json.py": "1 / 0", "pieces_of_mine/unused.py": "1 / 0", "notes.txt": "a"}


@pytest.fixture
def folder(tmp_path):
    for name, text in {**FILES, **STRANGERS}.items():
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "own"


def _load(file, attribute="VALUE"):
    return load_from_file("model.name", f"{file}:{attribute}", "FILE.py:NAME")[1]


def test_what_is_imported_from_the_folder_is_hashed_and_nothing_else(folder):
    hashes = read_own_code(folder / "main.py").hashes
    assert hashes.keys() == {MAIN, *FILES} - {"main.py"}
    assert len(set(hashes.values())) == len(FILES)


def test_hashing_runs_nothing(folder):
    (folder / "main.py").write_text("import helper_of_mine\nraise SystemExit('run')")
    (folder / "helper_of_mine.py").write_text("raise SystemExit('run')")
    assert len(read_own_code(folder / "main.py").hashes) == 2


def test_it_imports_its_neighbours_wherever_it_lies(folder, tmp_path):
    assert _load(folder / "main.py") == (1, 20, 3, 4)
    assert _load(folder / "main.py", "late")() == 5
    moved = shutil.move(folder, tmp_path / "moved")
    assert _load(moved / "main.py") == (1, 20, 3, 4)


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_any_of_them_is_seen_and_run(folder, name):
    before = read_own_code(folder / "main.py").digest
    _load(folder / "main.py")
    file, times = folder / name, os.stat(folder / name)
    text = FILES[name]
    file.write_text(f"{text}\nVALUE = 77\nlate = lambda: 5\n" if name == "main.py" else f"{text}\nVALUE = 77")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read_own_code(folder / "main.py").digest != before
    loaded = _load(folder / "main.py"), _load(folder / "main.py", "late")()
    assert (name == "pieces_of_mine/__init__.py") == (loaded == ((1, 20, 3, 4), 5))


def test_pythons_cache_of_compiled_files_is_not_believed(folder):
    helper, times = folder / "helper_of_mine.py", os.stat(folder / "helper_of_mine.py")
    assert _load(folder / "main.py")[0] == 1
    helper.write_text("VALUE = 8")  # as long
    os.utime(helper, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _load(folder / "main.py")[0] == 8
    assert not list(folder.rglob("__pycache__"))


def test_content_counts_and_not_the_place_the_name_or_the_time(folder, tmp_path):
    (folder / "main.py").rename(folder / "renamed.py")
    first = read_own_code(folder / "renamed.py")
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "moved")
    (moved / "renamed.py").rename(moved / "main.py")
    for file in moved.rglob("*"):
        os.utime(file, (1, 1))
    assert read_own_code(moved / "main.py").digest == first.digest
    link = tmp_path / "link"
    link.symlink_to(moved, target_is_directory=True)
    assert read_own_code(link / "main.py").hashes == first.hashes


def test_two_loads_of_one_content_give_one_object(folder):
    (folder / "main.py").write_text("class Net: pass")
    first = _load(folder / "main.py", "Net")
    os.utime(folder / "main.py", (1, 1))
    assert _load(folder / "main.py", "Net") is first


def test_neighbours_of_equal_names_do_not_mix(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "helper_of_mine.py").write_text("VALUE = 9")
    for _ in range(2):
        assert _load(folder / "main.py")[0] == 1
        assert _load(other / "main.py")[0] == 9
        (folder / "main.py").write_text((folder / "main.py").read_text() + "\n")


def test_while_it_is_kept_an_edit_does_not_count(folder):
    with keep_own_code():
        code = read_code("model.name", f"{folder}/main.py:VALUE")
        (folder / "helper_of_mine.py").write_text("VALUE = 2")
        with keep_own_code():
            assert read_code("model.name", f"{folder}/main.py:VALUE") is code
            assert _load(folder / "main.py")[0] == 1
    assert _load(folder / "main.py")[0] == 2


def test_a_library_is_never_taken_for_a_neighbour(folder):
    (folder / "pytest.py").write_text("1 / 0")
    (folder / "main.py").write_text("import pytest\nVALUE = pytest.raises")
    assert _load(folder / "main.py") is pytest.raises


def test_what_fails_is_one_line_and_can_be_mended(folder):
    (folder / "helper_of_mine.py").write_text("1 / 0")
    with pytest.raises(
        UserCodeError, match=r"main.py can't be imported: line 4: ZeroDivisionError"
    ) as caught:
        _load(folder / "main.py")
    assert "\n" not in str(caught.value)
    (folder / "helper_of_mine.py").write_text("VALUE = 1")
    assert _load(folder / "main.py")[0] == 1


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling", "circle"])
def test_a_neighbour_that_is_no_file_is_not_read(folder, kind):
    helper = folder / "helper_of_mine.py"
    helper.unlink()
    if kind == "pipe":
        os.mkfifo(helper)
    elif kind == "folder":
        helper.mkdir()
    else:
        helper.symlink_to(helper if kind == "circle" else folder / "nowhere")
    assert "helper_of_mine.py" not in read_own_code(folder / "main.py").hashes
    with pytest.raises(UserCodeError, match="No module named 'helper_of_mine'"):
        _load(folder / "main.py")


@pytest.mark.parametrize(
    "name", ["gone.py:Net", "a\0.py:Net", "~nobody-here/a.py:Net", f"{'n' * 300}.py:Net"]
)
def test_a_file_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match="a Python file that exists before the colon"):
        read_code("model.name", name)
