"""No message holds a control character, whatever name or text of others is in it."""

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpjax.errors import (
    ConfigError,
    DataError,
    HpjaxError,
    PrintableRecords,
    Signalled,
    UserCodeError,
    one_line,
    text_of,
)

ANY = st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs"]))


def _is_printable_line(text):
    return all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in text)


@given(ANY)
def test_a_line_has_no_control_characters(text):
    line = one_line(text)
    assert _is_printable_line(line) and line.isprintable()
    assert one_line(line) == line
    assert len(one_line(text, 20)) <= 20


def test_plain_text_stays_as_it_is():
    assert one_line("weight decay ± 0.1 … ü 猫  b") == "weight decay ± 0.1 … ü 猫  b"
    assert one_line("a\x1b]0;b\x07\nc\td\udcff") == "a\\x1b]0;b\\x07 c d\\udcff"


@given(ANY, st.sampled_from([HpjaxError, DataError, UserCodeError]))
def test_an_error_is_one_line(text, kind):
    assert _is_printable_line(str(kind(text)))
    assert _is_printable_line(str(ConfigError(text, text, text)))


@given(ANY)
def test_a_record_is_one_line_where_it_quotes_others(text):
    record = logging.LogRecord("hpjax", 20, "", 0, "a\n%s and %s: %d", (text, ValueError(text), 3), None)
    assert PrintableRecords().filter(record)
    first, second = record.getMessage().split("\n")
    assert first == "a" and _is_printable_line(second) and second.endswith(": 3")


def test_what_hpjax_logs_is_printable(caplog):
    with caplog.at_level("INFO", "hpjax"):
        logging.getLogger("hpjax").info("%s of %d", "a\x1b[31m\r\n", 3)
    assert caplog.messages == ["a\\x1b[31m   of 3"]


class _Awkward(Exception):
    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(3), KeyboardInterrupt(), BaseException(), MemoryError()]
)
def test_an_object_that_cannot_be_shown_is_named_by_its_kind(error):
    assert text_of(_Awkward(error)) == "<_Awkward>"
    with pytest.raises(Signalled):
        text_of(_Awkward(Signalled(15)))
