"""Writes the tables of benchmarks/README.md from benchmarks/results/<device>/*.json, between its markers.

python benchmarks/report.py            rewrites the README
python benchmarks/report.py --check    exits with 1 where the README isn't what the results say
"""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from absl import app, flags
from systems.tables import TABLES, TABLES_OF_ALL

HERE = pathlib.Path(__file__).parent
CHECK = flags.DEFINE_bool("check", False, "only compare")
RESULTS = flags.DEFINE_string("results", str(HERE / "results"), "folder with a folder per device")
README = flags.DEFINE_string("readme", str(HERE / "README.md"), "file with the markers")

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def load_results(folder: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Returns every result by the name of its device's folder."""
    return {device.name: _load_folder(device) for device in sorted(folder.glob("*")) if device.is_dir()}


def _load_folder(folder: pathlib.Path) -> list[dict[str, Any]]:
    return [{"file": file.name, **json.loads(file.read_text())} for file in sorted(folder.glob("*.json"))]


def render(results: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the tables of all devices as Markdown."""
    parts = [part for folder, files in results.items() if files for part in _render_device(folder, files)]
    return "\n\n".join(parts) if parts else "No results yet."


def replace_between_markers(text: str, new: str, begin: str = BEGIN, end: str = END) -> str:
    """Returns `text` with what lies between the markers replaced.

    Raises:
      ValueError: The markers aren't there once each.
    """
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"expected {begin} and {end} once each")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{new}\n\n{end}{rest.partition(end)[2]}"


def _render_device(folder: str, files: list[dict[str, Any]]) -> Iterator[str]:
    yield f"### {files[0]['device']}"
    yield f"Files: `benchmarks/results/{folder}/`."
    for benchmark, make_table in TABLES.items():
        for result in files:
            if result["benchmark"] == benchmark:
                yield make_table(result)
    for benchmark, make_table_of_all in TABLES_OF_ALL.items():
        if found := [result for result in files if result["benchmark"] == benchmark]:
            yield make_table_of_all(found)


def main(argv: list[str]) -> None:
    """Rewrites or checks the README."""
    del argv
    readme = pathlib.Path(README.value)
    old = readme.read_text(encoding="utf-8")
    new = replace_between_markers(old, render(load_results(pathlib.Path(RESULTS.value))))
    if CHECK.value and new != old:
        sys.exit(f"{readme} isn't what the results say; run benchmarks/report.py")
    if not CHECK.value:
        readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
