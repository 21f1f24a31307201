"""The benchmark of the study's own cost, at its smallest."""

import json

import pytest
from scripts import run_script


@pytest.mark.benchmark
def test_writes_what_a_trial_costs_early_and_late(tmp_path):
    out = tmp_path / "overhead.json"
    run_script("overhead.py", "--trials=16", "--lanes=2", f"--out={out}")
    result = json.loads(out.read_text())
    assert result["settings"]["trials"] == 16
    for quarter in (result["first_quarter"], result["last_quarter"]):
        assert quarter["trials"] == 2
        assert quarter["study_ms_per_trial"] > 0 and quarter["resident_mib"] > 0
