"""Only files are opened as files, and JSON is taken only as deep and as large as it can have been written."""

import os

import pytest
from no_files import NO_FILES

from hpjax.errors import WorkdirError
from hpjax.store import files
from hpjax.store.files import DEEPEST, WrongKind, check_file, check_folder, open_file, parse_json, read_file


@pytest.mark.parametrize("kind", [*NO_FILES, "a folder"])
@pytest.mark.parametrize(
    "use",
    [
        check_file,
        read_file,
        open_file,
        lambda path: open_file(path, os.O_RDWR | os.O_CREAT),
        lambda path: open_file(path, os.O_WRONLY | os.O_APPEND),
    ],
    ids=["check", "read", "open", "create", "append"],
)
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, kind, use):
    path = tmp_path / "history.jsonl"
    NO_FILES.get(kind, os.mkdir)(path)
    with pytest.raises(WrongKind, match=f"history.jsonl is {kind}, not .*: remove it, or choose") as caught:
        use(path)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["history.jsonl"]  # no link's target was made


@pytest.mark.parametrize("kind", [*NO_FILES, "a file"])
def test_what_is_no_folder_is_named(tmp_path, kind):
    NO_FILES.get(kind, lambda path: path.touch())(tmp_path / "figures")
    with pytest.raises(WrongKind, match=f"figures is {kind}, not "):
        check_folder(tmp_path / "figures")


def test_files_folders_and_links_to_them_are_taken(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").symlink_to(tmp_path)
    assert [check_file(tmp_path / name) for name in ("file", "link", "missing")] == [True, True, False]
    assert [check_folder(tmp_path / name) for name in ("folder", "missing")] == [True, False]
    assert read_file(tmp_path / "link") == b"text"


def test_a_file_in_place_of_a_parent_and_a_null_are_one_line(tmp_path):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file" / "below", "a\0b", tmp_path / ("n" * 300)):
        with pytest.raises(WorkdirError, match="can't read") as caught:
            read_file(path)
        assert "\n" not in str(caught.value)


def test_a_file_larger_than_any_that_is_written_is_not_read(tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(1 << 40)  # a hole
    with pytest.raises(WorkdirError, match="1,099,511,627,776 bytes, at most"):
        read_file(tmp_path / "config.json")


@pytest.mark.parametrize("depth", [DEEPEST + 2, 990, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_json_that_is_nested_deeply_is_refused(depth, pair):
    text = pair[0] * depth + "1" + pair[1] * depth
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(text)


def test_json_as_deep_as_what_is_written_is_taken():
    value = {"a": 1}
    for _ in range(DEEPEST - 2):
        value = {"a": value, "b": [1]}
    assert parse_json(files.json.dumps(value)) == value
