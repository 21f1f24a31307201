"""The page's first lines: what is best, how sure that is, and what to do about it."""

from dataclasses import dataclass

from hpjax.report.curves import label_setting
from hpjax.report.diagnosis import Finding
from hpjax.report.intervals import binomial_interval
from hpjax.report.outcome import describe_outcome, describe_standings
from hpjax.report.page.next_run import NextRun, propose
from hpjax.report.page.source import PageSource
from hpjax.report.style import spell

MOST_SENTENCES = 4  # of the diagnosis; the others are folded away


@dataclass(frozen=True)
class Answer:
    """What a person wants to know first.

    Attributes:
      state: how far the sweep is.
      setting: the best one, in words; empty where no trial ended well.
      score: its score with its name.
      certainty: what seeds or images leave open.
      outcome: the line that the terminal ends with.
      standings: the best settings, a line each.
      findings: the most severe.
      more: the others.
      next: what to run.
    """

    state: str
    setting: str
    score: str
    certainty: str
    outcome: str
    standings: tuple[str, ...]
    findings: tuple[Finding, ...]
    more: tuple[Finding, ...]
    next: NextRun


def create_answer(source: PageSource) -> Answer:
    """Returns the answer that a sweep gives so far."""
    best, winner = source.best, source.winner
    setting = score = certainty = ""
    if best is not None and winner is not None:
        setting = label_setting(winner.hyperparameters, source.swept) or f"trial {best.trial}"
        score, certainty = _score(source)
    findings = source.findings
    return Answer(
        state=_describe_state(source),
        setting=setting,
        score=score,
        certainty=certainty,
        outcome=describe_outcome(best, source.summary),
        standings=tuple(describe_standings(source.settings, source.trials, source.summary)),
        findings=tuple(findings[:MOST_SENTENCES]),
        more=tuple(findings[MOST_SENTENCES:]),
        next=propose(source),
    )


def _score(source: PageSource) -> tuple[str, str]:
    """Returns the winner's score, and what other seeds or other images could make of it."""
    winner = source.winner
    found = winner.ranked(source.ranking) if winner else None
    if winner is None or found is None:
        return "", ""
    mean = "mean " if found.n > 1 else ""
    score = f"{mean}{source.ranked_by} {found.mean:.4g}"
    if found.low is not None and found.high is not None:
        reach = f"{found.low:.4g} to {found.high:.4g}"
        return score, f"95 % interval of the mean over {found.n} seeds: {reach}"
    images, column = source.images_of(source.ranking.column), source.ranking.metric
    if not images or not column.endswith("accuracy") or not 0 <= found.mean <= 1:
        return score, "one seed: how much another would change isn't known"
    low, high = binomial_interval(found.mean, images)
    split = spell(column.removesuffix("_accuracy"))
    return score, f"95 % interval of {images:,} {split} images: {low:.3g} to {high:.3g}; one seed"


def _describe_state(source: PageSource) -> str:
    ended = sum(trial.status != "running" for trial in source.trials)
    running = len(source.trials) - ended
    trials = f"{ended:,} trial{'s' * (ended != 1)}"
    epochs = sum(trial.epochs for trial in source.trials)
    done = f"{epochs:,} epoch{'s' * (epochs != 1)}"
    if source.finished:
        return f"The sweep is done: {trials}, {done} in all."
    return (
        f"The sweep isn't done: {trials} ended, {running:,} under way, {done} so far. "
        "What follows is what is known up to here."
    )
