"""The script that compiles the standard workloads: rows are kept, and made again where they don't hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu_compiler
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_compile.py"
ROW = "h200/custom_cnn_48_b10_x8_float32/copy"


@pytest.mark.landing
def test_rows_are_made_again_where_their_program_has_changed(plugin, tmp_path):
    def run(*more):
        command = [
            sys.executable,
            SCRIPT,
            f"--plugin={plugin}",
            f"--out={tmp_path}",
            f"--rows=^{ROW}$",
            *more,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert run("--list") == [f"missing {ROW}"]
    (line,) = run()
    assert line.startswith(f"{ROW}: ")
    assert run("--list") == [f"there   {ROW}"]
    assert run() == run("--changed") == []
    (file,) = tmp_path.glob("*/*.json")
    result = json.loads(file.read_text())
    assert result["rows"]["copy"]["kernels"] > 0 and len(result["rows"]["copy"]["program"]) == 64
    changed = {**result, "rows": {"copy": {**result["rows"]["copy"], "program": "another", "kernels": 0}}}
    file.write_text(json.dumps(changed))
    assert run() == []
    assert run("--changed")[0].startswith(f"{ROW}: ")
    assert json.loads(file.read_text())["rows"]["copy"]["kernels"] == result["rows"]["copy"]["kernels"]
