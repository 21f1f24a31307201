"""`report.html`: one page, without any request, that answers what a sweep was run for."""

import base64
import functools
import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from hpjax.errors import WorkdirError, one_line
from hpjax.report.page.answer import create_answer
from hpjax.report.page.figures import create_figures
from hpjax.report.page.produced import list_changes, list_facts, repeat_command
from hpjax.report.page.seconds import list_seconds
from hpjax.report.page.source import PageSource
from hpjax.report.page.table import create_table
from hpjax.report.page.winner import describe_winner
from hpjax.report.style import format_amount
from hpjax.store.tables import finite
from hpjax.store.workdir import atomic_write

PAGE_NAME = "report.html"
ROOM = 5  # times its size that has to be free: the records of a sweep are worth more than its page
SCRIPTS = ("theme.js", "figures.js", "search.js", "table.js", "page.js")


def write_page(source: PageSource) -> Path:
    """Writes the page of a sweep into its workdir, and returns the file.

    Raises:
      WorkdirError: It can't be written, or would leave too little room for what the sweep records.
    """
    path, page = source.workdir / PAGE_NAME, create_page(source).encode("utf-8", "backslashreplace")
    if (free := shutil.disk_usage(source.workdir).free) < ROOM * len(page):
        raise WorkdirError(f"can't write {path}: only {free >> 20} MiB are left on the disk")
    atomic_write(path, page)
    return path


def create_page(source: PageSource) -> str:
    """Returns the page of a sweep as HTML."""
    figures, table = create_figures(source), create_table(source)
    all_figures = {figure["id"]: figure for section in figures.values() for figure in section}
    content = {"figures": all_figures, "table": table, "rankedBy": source.ranked_by}
    content |= {"winner": source.best.trial if source.best else None, "less": source.less_is_better}
    scripts = _load_scripts()
    return _load_template().render(
        source=source,
        title=_title(source),
        notice=one_line(str(source.summary.get("data", {}).get("notice", ""))),
        answer=create_answer(source),
        sections=figures,
        winner=describe_winner(source),
        seconds=list_seconds(source),
        changes=list_changes(source.config),
        facts=list_facts(source),
        repeat=repeat_command(source),
        style=_read("page.css"),
        scripts=scripts,
        policy=_policy(scripts),
        data=_embed(content),
    )


def _title(source: PageSource) -> str:
    model = Path(str(source.config["model"]["name"]).rpartition(":")[2]).name
    data = source.summary.get("data", {}).get("name") or source.config["data"]["name"]
    return one_line(f"{model} on {data}", 120)


@functools.cache
def _load_template() -> Any:
    from jinja2 import DictLoader, Environment, StrictUndefined

    loader = DictLoader({"page.html": _read("page.html")})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["amount"] = format_amount
    return environment.get_template("page.html")


def _read(name: str) -> str:
    return (files("hpjax.report.page") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _load_scripts() -> tuple[str, ...]:
    """Returns Bokeh's own scripts, as it inlines them, and the page's."""
    from bokeh.resources import Resources

    bokeh = Resources(mode="inline", components=["bokeh", "bokeh-api"]).js_raw
    own = "\n".join(_read(name) for name in SCRIPTS)
    # The short ones only set the level of its log.
    return (*(script for script in bokeh if len(script) > 1000), own)


def _policy(scripts: tuple[str, ...]) -> str:
    """Returns what a browser may do: run these scripts and no other, and ask no server for anything."""
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; font-src data:"
    )


@functools.cache
def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _embed(content: object) -> str:
    """Returns JSON that can't end the element which holds it."""
    text = json.dumps(finite(content), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
