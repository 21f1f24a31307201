"""Output that is gone, full, closed or in a poor encoding ends nothing; the exit status says it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpjax.cli.command import run_command
from hpjax.cli.streams import ENCODING_ERRORS, LastingStream
from hpjax.errors import HpjaxError

ROOT = Path(__file__).parents[2]
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
LONG = "import hpjax.cli.command as c; "
PRINTS = "print('x' * 200_000); open(%r, 'w').write('done')"


def _run(body, redirect, tmp_path):
    """Runs a command's body in a shell with a redirection; returns its status, what is left, and the mark."""
    mark = tmp_path / "mark"
    code = LONG + f"import sys\ndef body():\n    {body % str(mark)}\nsys.exit(c.run_command(body))"
    command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirect}', sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr, mark.exists()


@pytest.mark.parametrize(
    ("redirect", "status", "said"),
    [
        ("| true", 141, ""),
        ("| head -c 1 > /dev/null", 141, ""),
        ("2>&1 | true", 141, ""),
        pytest.param("> /dev/full", 2, "hpjax: error: can't write to stdout: No space left", marks=FULL),
        pytest.param("> /dev/full 2>&1", 2, "", marks=FULL),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("< /dev/null >&- 2>&- <&-", 0, ""),
        ("> /dev/null 2> /dev/null", 0, ""),
        ("1< /dev/null", 2, "hpjax: error: can't write to stdout: Bad file descriptor"),
    ],
)
def test_a_command_runs_to_its_end_whatever_happens_to_its_output(redirect, status, said, tmp_path):
    found, text, ended = _run(PRINTS, redirect, tmp_path)
    assert ended and found == status
    assert text.startswith(said) if said else not text
    assert "Traceback" not in text and "Exception ignored" not in text


ERRS = "from hpjax.errors import HpjaxError; open(%r, 'w').close(); raise HpjaxError('no')"


@pytest.mark.parametrize("redirect", ["2>&-", "2> /dev/full", "2>&1 | true", "2>&1 >/dev/full", ">&- 2>&-"])
def test_an_error_keeps_its_status_where_nobody_hears_it(redirect, tmp_path):
    status, text, ended = _run(ERRS, redirect, tmp_path)
    assert (status, ended) == (2, True) and "Traceback" not in text


def test_a_file_of_ours_never_becomes_a_standard_stream(tmp_path):
    body = "f = open(%r, 'wb'); import os; os.write(2, b'noise'); os.write(1, b'noise'); f.close()"
    status, _, _ = _run(body, "<&- >&- 2>&-", tmp_path)
    assert status == 0 and (tmp_path / "mark").read_bytes() == b""


class _Broken(io.StringIO):
    def write(self, text=""):
        raise BrokenPipeError(32, "Broken pipe")

    flush = write


@given(st.lists(st.text(max_size=5), max_size=5))
def test_a_broken_stream_takes_everything(texts):
    stream = LastingStream(_Broken())
    assert [stream.write(text) for text in texts] == [len(text) for text in texts]
    stream.flush()
    assert isinstance(stream.error, BrokenPipeError)


def test_a_closed_stream_is_no_terminal_and_takes_everything():
    closed = io.StringIO()
    closed.close()
    stream = LastingStream(closed)
    assert not stream.isatty() and stream.write("a") == 1 and stream.error is not None


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp437", "cp1252", "koi8-r", "gb2312", "utf-8"]))
def test_any_encoding_takes_any_text(text, encoding):
    assert isinstance(text.encode(encoding, ENCODING_ERRORS), bytes)


def test_what_an_encoding_lacks_has_a_plain_form():
    assert "0.9 ± 0.05 … ≤ 3 – ’ü".encode("ascii", ENCODING_ERRORS) == b"0.9 +- 0.05 ... <= 3 - '\\xfc"
    assert "±…".encode("latin-1", ENCODING_ERRORS) == b"\xb1..."


def test_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    assert run_command(lambda: print("a")) == 0
    assert (sys.stdout, sys.stderr) == before and os.fstat(1)
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)
    assert (sys.stdout, sys.stderr) == before


def test_a_command_may_return_a_status(capsys):
    assert run_command(lambda: 3) == 3
    assert run_command(lambda: _raise(HpjaxError("a\x1b[2Jb\nc\u202ed"))) == 2
    assert capsys.readouterr().err == "hpjax: error: a\\x1b[2Jb c\\u202ed\n"


def _raise(error):
    raise error
