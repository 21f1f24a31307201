"""What to run next: one command that follows from what was found, checked before it is shown."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpjax.config.checks import read_literal
from hpjax.config.parsing import parse_config
from hpjax.errors import ConfigError
from hpjax.report.diagnosis import Finding
from hpjax.report.page.source import PageSource
from hpjax.search.axis import Axis
from hpjax.search.flags import parse_space_flag
from hpjax.search.space import parse_space
from hpjax.store.settings import SettingRow
from hpjax.store.workdir import CONFIG_NAME

SEEDS = 5  # that confirm a winner which nothing speaks against
LOWER = 1e-3  # times the rates of which all came to nothing


@dataclass(frozen=True)
class NextRun:
    """A proposal.

    Attributes:
      why: in a sentence.
      command: for a shell; empty where nothing is left to run.
    """

    why: str
    command: str


@dataclass(frozen=True)
class _Change:
    """What a proposal changes of the sweep's config: axes, each in the place of its own, and fields."""

    why: str
    axes: Mapping[str, Any]
    fields: Mapping[str, Any]
    alone: bool = False  # whether the axes that aren't named are left out


def propose(source: PageSource) -> NextRun:
    """Returns what to run next; the first proposal whose config is allowed."""
    if not source.finished:
        return NextRun(
            "The sweep isn't done. If it doesn't run any more, this goes on where it was:",
            spell_command(source, str(source.workdir), []),
        )
    for change in _list_changes(source):
        if (flags := _check(source, change)) is not None:
            return NextRun(change.why, spell_command(source, f"{source.workdir}-next", flags))
    return NextRun("Nothing speaks against taking the winner as it is.", "")


def spell_command(source: PageSource, workdir: str, flags: Sequence[str] = ()) -> str:
    """Returns the command that runs the sweep's config in a workdir, for a shell."""
    config = source.workdir / CONFIG_NAME
    return shlex.join(["python", "-m", "hpjax.main", f"--config={config}", f"--workdir={workdir}", *flags])


def _list_changes(source: PageSource) -> Iterator[_Change]:
    findings: dict[str, list[Finding]] = {}
    for finding in source.findings:
        findings.setdefault(finding.name, []).append(finding)
    if source.best is None:
        yield from _lower_rates(source)
    if edges := findings.get("best_at_edge"):
        axes = dict(parse_space_flag(f"{e.evidence['hyperparameter']}={e.evidence['space']}") for e in edges)
        yield _Change("The best may lie beyond what was searched. Search there:", axes, {})
    for finding in findings.get("learning_rate_too_low", ()):
        if rate := finding.evidence.get("learning_rate"):
            rates = tuple(float(f"{rate * factor:.3g}") for factor in (1, 10, 100))
            yield _Change("The learning rate is too low. Try higher ones:", {"learning_rate": rates}, {})
    if improving := findings.get("still_improving"):
        more = improving[0].evidence
        epochs = more["epochs"] + more["more_epochs"]
        why = "The best trial was still improving. Train longer:"
        yield _Change(why, {}, {"train.epochs": epochs})
    yield from _compare(source, findings.get("winner_within_noise", ()))
    if source.best is not None and source.config["sweep"]["seeds"] == 1 and not source.config["sweep"]["pbt"]:
        why = f"One seed each says little about how the settings differ. Run the best with {SEEDS}:"
        yield _run_again(source, _best_two(source), SEEDS, why)


def _lower_rates(source: PageSource) -> Iterator[_Change]:
    rates = [trial.hyperparameters.get("learning_rate") for trial in source.trials]
    known = [float(rate) for rate in rates if isinstance(rate, int | float) and rate > 0]
    if known:
        low, high = float(f"{min(known) * LOWER:.3g}"), float(f"{min(known) / 10:.3g}")
        space = {"learning_rate": {"low": low, "high": high, "log": True}}
        fields = {"sweep.sampler": "random", "sweep.trials": 8, **_without_past(source)}
        yield _Change("No trial ended well. Search lower learning rates:", space, fields)


def _compare(source: PageSource, findings: Sequence[Finding]) -> Iterator[_Change]:
    """Runs the two settings that chance can't tell apart with as many seeds as would decide."""
    for finding in findings:
        seeds, numbers = finding.evidence.get("seeds_to_decide"), finding.evidence.get("settings", ())
        rows = [row for row in source.settings if row.setting in numbers]
        if seeds and seeds <= 20 and len(rows) == 2:
            why = f"Chance could explain the winner's lead; {seeds} seeds of the two best would decide:"
            yield _run_again(source, rows, seeds, why)


def _best_two(source: PageSource) -> list[SettingRow]:
    measured = [row for row in source.settings if row.setting in source.scores]
    return sorted(
        measured, key=lambda row: (not row.winner, row.lost > 0, source.scores[row.setting], row.setting)
    )[:2]


def _without_past(source: PageSource) -> dict[str, Any]:
    """Returns what keeps another study from samplers that don't learn, which refuse one."""
    return {"sweep.warm_start": ""} if source.config["sweep"].get("warm_start") else {}


def _run_again(source: PageSource, rows: Sequence[SettingRow], seeds: int, why: str) -> _Change:
    """Returns a few settings alone, with several seeds each, trained to the end."""
    settings = tuple(_setting(source, row) for row in rows)
    differing = [name for name in source.swept if len({setting.get(name) for setting in settings}) > 1]
    fields = {"sweep.seeds": seeds, "sweep.pruner": "none", "sweep.pruner_options": {}, "sweep.pbt": {}}
    fields |= {"sweep.final_seeds": 0, **_without_past(source)}
    if source.config["sweep"].get("seed_values"):
        fields |= {"sweep.seed_values": ()}
    if len(differing) > 1 or any(setting.keys() != settings[0].keys() for setting in settings):
        fields |= {"sweep.sampler": "random", "sweep.trials": len(settings), "sweep.enqueue": settings}
        return _Change(why, {}, fields)
    axes = {name: tuple(dict.fromkeys(setting[name] for setting in settings)) for name in settings[0]}
    return _Change(why, axes, {**fields, "sweep.sampler": "grid", "sweep.trials": 0}, alone=True)


def _setting(source: PageSource, row: SettingRow) -> dict[str, Any]:
    """Returns the searched hyperparameters of a setting that it has."""
    known = (name for name in source.swept if name != "seed" and name in row.hyperparameters)
    return {name: _rounded(row.hyperparameters[name]) for name in known}


def _rounded(value: Any) -> Any:
    """Returns a number with four digits: what a sampler drew has more than matter, or can be read."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _check(source: PageSource, change: _Change) -> list[str] | None:
    """Returns the flags of a change; None where its config isn't allowed or is the sweep's own."""
    sweep = source.config["sweep"]
    space = {} if change.alone else dict(sweep["space"])
    space |= {name: _with_condition(spec, sweep["space"].get(name)) for name, spec in change.axes.items()}
    fields = {name: value for name, value in change.fields.items() if value != _get(source.config, name)}
    if change.axes and sweep["enqueue"] and "sweep.enqueue" not in fields:
        fields["sweep.enqueue"] = ()
    given = {name: dict(section) if isinstance(section, Mapping) else section
             for name, section in source.config.items()}  # fmt: skip
    for name, value in fields.items():
        section, field = name.split(".")
        given[section][field] = value
    given["sweep"]["space"] = space
    if not fields and space == sweep["space"]:
        return None
    try:
        parse_config(given, told=False)
    except ConfigError:
        return None
    return [*_spell_space(space, sweep["space"]), *(_spell(name, value) for name, value in fields.items())]


def _get(config: Mapping[str, Any], name: str) -> Any:
    section, field = name.split(".")
    value = config[section][field]
    return tuple(value) if isinstance(value, list) else value


def _with_condition(spec: Any, old: Any) -> Any:
    """Returns an axis under the condition that it had."""
    if not (isinstance(old, Mapping) and old.get("when")):
        return spec
    choices = spec if isinstance(spec, Mapping) else {"choices": list(spec)}
    return {**choices, "when": old["when"]}


def _spell_space(space: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    if space == old:
        return []
    return [f"--space={axis.name}={spell_axis(axis)}" for axis in parse_space(space).axes]


def spell_axis(axis: Axis) -> str:
    """Returns an axis as `--space` takes it, e.g. `1e-05:0.1:log` or `0.5,0.9 if optimizer=sgd`."""
    conditions = [f"{name}={','.join(map(_text, values))}" for name, values in axis.when.items()]
    when = f" if {' and '.join(conditions)}" if conditions else ""
    if axis.choices:
        return ",".join(map(_text, axis.choices)) + when
    kind = ":log" if axis.log else "" if axis.step is None else f":{_text(axis.step)}"
    return f"{_text(axis.low)}:{_text(axis.high)}{kind}{when}"


def _text(value: Any) -> str:
    if isinstance(value, str) and read_literal(value) != value:
        return f'"{value}"'  # else it would be read as a number or a truth value
    return repr(value) if isinstance(value, float) else str(value)


def _spell(name: str, value: Any) -> str:
    return f"--config.{name}={value if isinstance(value, str) else _literal(value)}"


def _literal(value: Any) -> str:
    """Returns a value as Python reads it, without single quotes: a shell takes it between two of them."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(name)}: {_literal(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)
