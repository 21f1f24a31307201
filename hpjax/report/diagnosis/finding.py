"""A finding: what a rule saw, how much it matters, and what to try."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVELS = ("severe", "warning", "info")  # the most severe first
MOST_LINES = 4  # on a terminal: more are not read


@dataclass(frozen=True)
class Finding:
    """One thing that stands out in a sweep.

    Attributes:
      name: of the rule's verdict, e.g. `overfitting`; the same in every sweep.
      level: severe (the results can't be used), warning (a better result was missed), info.
      sentence: what was seen, in plain English.
      advice: what to try.
      evidence: the numbers that it rests on, by name.
    """

    name: str
    level: str
    sentence: str
    advice: str
    evidence: Mapping[str, Any]

    def __post_init__(self) -> None:
        assert self.level in LEVELS, self.level

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; `Finding(**entry)` takes them back."""
        return asdict(self)


def describe_findings(findings: Sequence[Finding], most: int = MOST_LINES) -> list[str]:
    """Returns a line per finding for a terminal, and how many more there are in the last one's place."""
    shown = findings if len(findings) <= most else findings[: most - 1]
    lines = [f"{finding.level + ':':<9}{finding.sentence} {finding.advice}" for finding in shown]
    if len(shown) < len(findings):
        lines.append(f"and {len(findings) - len(shown)} more findings in summary.json")
    return lines


def format_findings(findings: Sequence[Finding]) -> str:
    """Returns all findings as Markdown, for TensorBoard."""
    rows = [
        f"- **{finding.level}: {finding.name.replace('_', ' ')}.** {finding.sentence} *{finding.advice}*"
        for finding in findings
    ]
    return "\n".join(rows) or "Nothing stands out."
