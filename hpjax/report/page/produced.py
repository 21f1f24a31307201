"""How a sweep was produced: what differs from the defaults, versions, device, images, layouts, commands."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hpjax.config.fields import Config
from hpjax.config.parsing import to_dict
from hpjax.errors import one_line, text_of
from hpjax.report.page.next_run import spell_command
from hpjax.report.page.source import PageSource

_MOST = 300  # characters of a value


class Fact(NamedTuple):
    """A line of the page's last section."""

    name: str
    value: str
    note: str = ""


def list_changes(config: Mapping[str, Any]) -> list[Fact]:
    """Returns the fields of a config that aren't what they are by default, with both values."""
    default, given = (_flatten(values) for values in (to_dict(Config()), config))
    return [
        Fact(key, _show(value), _show(default.get(key, "nothing")))
        for key, value in given.items()
        if default.get(key) != value
    ]


def list_facts(source: PageSource) -> list[Fact]:
    """Returns where, with what and from which images the results come."""
    summary = source.summary
    data = summary.get("data", {})
    facts = [Fact("workdir", one_line(str(source.workdir)))]
    facts += [Fact(name, _show(value)) for name, value in summary.get("made_with", {}).items()]
    images = ", ".join(f"{count:,} {name}" for name, count in data.get("images", {}).items() if count)
    facts += [Fact("data", _show(f"{data.get('name', 'unknown')} ({images})"))] if images else []
    prints = summary.get("inputs", {}).get("fingerprints", {})
    facts += [Fact("fingerprint of the images", _show(value), _show(name)) for name, value in prints.items()]
    facts += [Fact(f"layout of group {i}", _describe(x)) for i, x in enumerate(summary.get("layouts", ()))]
    busy = summary.get("utilisation")
    facts += [] if busy is None else [Fact("lanes busy", f"{busy:.0%}", "of the groups that ended")]
    return facts


def repeat_command(source: PageSource) -> str:
    """Returns the command that runs the same sweep again, elsewhere."""
    return spell_command(source, f"{source.workdir}-again")


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item and prefix.count(".") < 1:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _describe(layout: Mapping[str, Any]) -> str:
    chosen = ("strategy", "lanes", "lanes_per_call", "threads", "devices", "speedup")
    texts = [f"{name.replace('_', ' ')} {_number(layout[name])}" for name in chosen if layout.get(name)]
    texts += [
        f"another one from epoch {change.get('after_epoch')} on" for change in layout.get("changes", ())
    ]
    return one_line(", ".join(texts), _MOST)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else text_of(value, 40)


def _show(value: object) -> str:
    return one_line(value, _MOST) if isinstance(value, str) else text_of(value, _MOST)
