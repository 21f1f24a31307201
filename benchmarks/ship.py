"""Writes the table of lowerings that hpjax ships, hpjax/ops/measured.json, from results of conv_lowerings.py.

python benchmarks/ship.py              rewrites the table
python benchmarks/ship.py --check      exits with 1 where the table isn't what the results say

An entry is a convolution that was measured on a device and whose fastest lowering clearly beats the rule's.
"""

import json
import pathlib
import sys
from typing import Any

from absl import app, flags

from hpjax.ops.tuning import SHIPPED

RESULTS = pathlib.Path(__file__).parent / "results"
CHECK = flags.DEFINE_bool("check", False, "only compare")
GAIN = 1.05  # the rule's milliseconds over the fastest's, from which on an entry is worth it


def collect(results: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Returns the fastest lowering of each convolution by the device's name in the table."""
    table: dict[str, dict[str, str]] = {}
    for result in results:
        if result["benchmark"] == "conv_lowerings":
            entries = table.setdefault(result["table"], {})
            entries |= {row["key"]: best for row in result["rows"] if (best := fastest(row)) is not None}
    return table


def fastest(row: dict[str, Any]) -> str | None:
    """Returns the fastest lowering of a convolution; None where the rule's is about as fast."""
    milliseconds = {name: lowering["median_ms"] for name, lowering in row["lowerings"].items()}
    best = min(milliseconds, key=milliseconds.__getitem__)
    return best if milliseconds.get(row["rule"], float("inf")) >= GAIN * milliseconds[best] else None


def main(argv: list[str]) -> None:
    """Rewrites or checks the table."""
    del argv
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*/*.json"))]
    text = json.dumps(collect(results), indent=1, sort_keys=True) + "\n"
    if CHECK.value and SHIPPED.read_text() != text:
        sys.exit(f"{SHIPPED} isn't what the results say; run benchmarks/ship.py")
    if not CHECK.value:
        SHIPPED.write_text(text)


if __name__ == "__main__":
    app.run(main)
