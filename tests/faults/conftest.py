"""How much is tried: little in the ordinary suite, much by `make faults`; and the figures of what was."""

import collections
import random
from pathlib import Path

import pytest
from sweeps import Sweeps

PAGE = Path(__file__).parents[2] / "RELIABILITY.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
MANY_KILLS = 50  # from so many on the figures are worth keeping

figures: collections.Counter = collections.Counter()


def pytest_addoption(parser):
    group = parser.getgroup("faults")
    group.addoption("--kills", type=int, default=3, help="sweeps killed in all")
    group.addoption("--inputs", type=int, default=40, help="bad inputs tried by each fuzz test")
    group.addoption("--starts", type=int, default=4, help="starts of any kind tried")
    group.addoption("--soak", type=float, default=15, help="seconds of continuous lanes")


@pytest.fixture(scope="session")
def counted() -> collections.Counter:
    """Counts what was tried and survived; printed at the end."""
    return figures


@pytest.fixture(scope="session")
def searches(tmp_path_factory) -> Sweeps:
    """Starts the search in any workdir."""
    return Sweeps("search_sweep.py", tmp_path_factory.mktemp("searches"))


@pytest.fixture(scope="session")
def uninterrupted_search(searches) -> Path:
    """The workdir of a search that nothing disturbed."""
    searches.finish(searches.folder / "uninterrupted")
    return searches.folder / "uninterrupted"


@pytest.fixture
def rng() -> random.Random:
    """Draws moments; the same ones in every run."""
    return random.Random(0)


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    lines = [f"| {name} | {value:,} |" for name, value in sorted(figures.items())]
    for line in lines:
        terminalreporter.write_line(line)
    if exitstatus == 0 and config.getoption("--kills", 0) >= MANY_KILLS:
        _write_figures(lines)


def _write_figures(lines: list[str]) -> None:
    """Puts rows into the page's table; those of what wasn't tried this time stay."""
    before, rest = PAGE.read_text().split(BEGIN)
    table, after = rest.split(END)
    rows = {line.split("|")[1]: line for line in [*table.strip().splitlines()[2:], *lines]}
    table = ["| what | figure |", "|---|---|", *(rows[name] for name in sorted(rows))]
    PAGE.write_text("\n".join([before + BEGIN, *table, END + after]))
