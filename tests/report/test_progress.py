"""Progress: a living line on a terminal, sparse plain lines elsewhere."""

import io

import pytest

from hpjax.report.progress import Progress, counting, format_seconds


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_elsewhere_than_on_a_terminal():
    stream, clock = io.StringIO(), _Clock()
    with Progress(40, stream, interval=10, clock=clock) as progress:
        for done in range(4, 41, 4):
            progress.update(done, 4, 1234.5, "trial 3, test acc. 0.91", f"epoch {done // 4}/10")
            clock.now += 3
        progress.message("trial 7 diverged")
    lines = stream.getvalue().splitlines()
    assert lines[0] == (
        " 10% 4/40 trial epochs | epoch 1/10 | 4 running | best: trial 3, test acc. 0.91 | "
        "1,234 images/s | time left unknown"
    )
    assert lines[1].endswith("15 s left") and "\r" not in stream.getvalue()
    assert lines[-2:] == ["trial 7 diverged", lines[-1]] and lines[-1].startswith("100% 40/40")
    assert len(lines) == 5


def test_one_line_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = _Terminal()
    with Progress(2, stream) as progress:
        progress.update(1, 1, best="x" * 100)
        progress.message("note")
        progress.update(2, 1)
    written = stream.getvalue()
    assert written.count("\n") == 2 and written.endswith("\n")
    assert all(len(part) <= 39 for part in written.replace("\n", "").split("\r\x1b[K"))


def test_resumed_epochs_do_not_count_as_speed():
    stream, clock = io.StringIO(), _Clock()
    progress = Progress(100, stream, interval=0, clock=clock)
    progress.update(50, 1)
    clock.now += 10
    progress.update(60, 1)
    progress.close()
    assert stream.getvalue().splitlines()[1].endswith("| 40 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1 h 30 min"), (200_000, "2 d 7 h")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


class _Gone(io.StringIO):
    """A stream that fails at each write, as a pipe without a reader or a full disk does."""

    def __init__(self, error):
        super().__init__()
        self._error = error

    def write(self, text):
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(),
        OSError(28, "full"),
        ValueError("closed"),
        UnicodeEncodeError("ascii", "±", 0, 1, ""),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_a_stream_that_takes_nothing_ends_nothing(error, terminal):
    stream = _Gone(error)
    stream.isatty = lambda: terminal
    with Progress(2, stream, interval=0) as progress:
        progress.update(1, 1)
        progress.message("note")
        progress.update(2, 1)


def test_no_stream_at_all_ends_nothing(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        with Progress(2, stream, interval=0) as progress:
            progress.update(1, 1)
            progress.message("note")


def test_no_control_character_of_a_name_reaches_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for stream in (_Terminal(), io.StringIO()):
        with Progress(2, stream, interval=0) as progress:
            progress.update(1, 1, best="trial 0 (\x1b[31mred\x07\r\n)")
            progress.message("diverged: \x1b]0;title\x07")
        written = stream.getvalue().replace("\r\x1b[K", "").replace("\n", "")
        assert written.isprintable() and "\\x1b[31mred\\x07" in written


def test_something_else_is_counted_on_a_line_of_its_own():
    stream = _Terminal()
    with counting("decoding images", stream) as show:
        for done in (512, 1024, 1100):
            show(done, 1100)
        show(216, 216)  # done at once: not worth a line
    lines = stream.getvalue().split("\r\x1b[K")
    assert lines[1] == "decoding images  47% 512/1,100 | time left unknown"
    assert lines[-1] == "decoding images 100% 1,100/1,100\n" and len(lines) == 4


def test_what_fails_while_it_is_counted_leaves_the_line_ended():
    stream = _Terminal()
    with pytest.raises(KeyError), counting("decoding images", stream) as show:
        show(1, 3)
        raise KeyError
    assert stream.getvalue().endswith("unknown\n")
