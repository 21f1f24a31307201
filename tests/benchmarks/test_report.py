"""The tables of the README are what the results say."""

import json

import pytest
import report
from scripts import ROOT, run_script
from systems.provenance import describe_run
from systems.summary import compute_ratios, describe_samples, describe_speed
from systems.tables import TABLES, TABLES_OF_ALL
from systems.workload import Workload

WORKLOAD = Workload("custom_cnn", 48, 10, 4, "float32", 2, folder="")


def _contest():
    seconds = {"fused": [1.0, 2.0, 1.0], "torch": [2.0, 6.0, 2.5]}
    systems = {name: describe_speed(s, WORKLOAD, (1e11, 1e10)) for name, s in seconds.items()}
    systems["torch_compile"] = {"unavailable": "no compiler"}
    settings = {"model": "custom_cnn", "image_size": 48, "batch_size": 10, "lanes": 4, "steps": 2}
    return {
        **describe_run("epoch_time", "Some Device", settings),
        "systems": systems,
        "ceilings": {"flops": 1e11, "bytes_per_second": 1e10},
        "ratios": compute_ratios(seconds),
        "losses": {"largest_relative_difference": 1e-7},
        "best_processes": "",
    }


def _scaling():
    row = {"lanes": 1, "memory_bytes": 1 << 20, "compile_seconds": 2.0}
    time = {"lane_step_milliseconds": describe_samples([1.0, 2.0, 3.0]), "images_per_second": 5000.0}
    settings = {"model": "custom_cnn", "image_size": 48, "batch_size": 10}
    rows = [{**row, **time}, {**row, "lanes": 2, "unavailable": "out of memory"}]
    return {**describe_run("scaling", "Some Device", settings), "knee": 1, "rows": rows}


def test_a_result_has_no_folder_of_the_machine_it_was_made_on(monkeypatch):
    command = ["/a/b/scaling.py", "--out=/a/b/c.json", "--dir=/a/images/", "--lanes=1,2"]
    monkeypatch.setattr("sys.argv", command)
    argv = describe_run("scaling", "Some Device", {})["argv"]
    assert argv == ["scaling.py", "--out=c.json", "--dir=images", "--lanes=1,2"]


@pytest.fixture
def folder(tmp_path):
    device = tmp_path / "results" / "some_device"
    device.mkdir(parents=True)
    (device / "contest.json").write_text(json.dumps(_contest()))
    (device / "scaling.json").write_text(json.dumps(_scaling()))
    (tmp_path / "README.md").write_text(f"# Ours\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    return tmp_path


def _report(folder, *more, **options):
    where = [f"--results={folder / 'results'}", f"--readme={folder / 'README.md'}"]
    return run_script("report.py", *where, *more, **options)


def test_a_result_names_the_allocator_and_its_version():
    name, version = describe_run("scaling", "Some Device", {})["allocator"].split(" ")[:2]
    assert name in ("glibc", "mimalloc", "jemalloc") and version[0].isdigit()


def test_allocators_have_a_row_each():
    systems = {"auto": {"images_per_second": 1234.5, "gain": describe_samples([1.5, 1.6, 1.7])}}
    rows = [
        {"name": "mimalloc A=1", "allocator": "mimalloc 3.4.3", "settings": {"A": "1"}, "systems": systems},
        {"name": "jemalloc", "settings": {}, "unavailable": "not installed"},
    ]
    settings = {"model": "custom_cnn", "image_size": 48, "batch_size": 10, "systems": ["auto"], "rounds": 3}
    result = {**describe_run("allocators", "Some Device", settings), "rows": rows, "file": "allocators.json"}
    table = TABLES["allocators"](result)
    assert "| mimalloc 3.4.3 A=1 | 1,234 | 1.60 (1.55–1.65)x |" in table
    assert "Unavailable: jemalloc (not installed)." in table


def test_what_was_compiled_has_one_table_for_each_gpu():
    settings = {"model": "custom_cnn", "image_size": 48, "batch_size": 10, "precision": "float32"}
    row = {"kernels": 98, "gflop": 1234.5, "gb": 8.0, "gb_moved_only": 1.0, "temp_gb": 0.25}
    row |= {"lane_step_us": 1234.4, "lane_step_us_with_launches": 1300.0, "calls": {}}
    results = [
        {"settings": {**settings, "lanes": 8}, "versions": {"jax": "1.2"}, "rows": {"train": row}},
        {
            "settings": {**settings, "lanes": 1},
            "versions": {"jax": "1.2"},
            "rows": {"train": row, "copy": {"unavailable": "x"}},
        },
    ]
    text = TABLES_OF_ALL["gpu_compile"](results)
    first, second = [line for line in text.splitlines() if line.startswith("| custom")]
    assert first.startswith("| custom_cnn, 48 px, b10, float32 | 1 | train | 98 | 1,234 | 8.00 | 1.00 |")
    assert second.startswith(
        "| custom_cnn, 48 px, b10, float32 | 8 | train | 98 | 1,234 | 1.00 | 0.12 | 0.25 |"
    )
    assert "Compiled, not timed" in text and "b10, float32, 1 lanes, copy: x." in text


def test_kernels_have_a_row_each_and_what_was_special_is_said():
    rows = [{"op": f"fusion.{i}", "kernel": "k" * 90, "us": 100.0 - i, "calls": 8.0} for i in range(20)]
    settings = {"model": "custom_cnn", "image_size": 48, "batch_size": 10, "lanes": 8}
    result = {
        **{"benchmark": "step_kernels", "date": "2026-01-02", "cores": 16, "versions": {}, "file": "f.json"},
        **{"settings": settings, "remark": "without something", "us_per_step": 1234.5, "rows": rows},
    }
    text = TABLES["step_kernels"](result)
    assert "8 trials**: without something (" in text and "1,234 µs" in text
    assert text.count("| `fusion.") == 12 and "k" * 61 not in text


def test_ratios_are_medians_of_the_rounds_ratios():
    ratio = compute_ratios({"fused": [1.0, 2.0, 1.0], "torch": [2.0, 6.0, 2.5]})["fused / torch"]
    assert ratio["median"] == 2.5 and ratio["range"] == [2.0, 3.0]


def test_speed_counts_all_trials():
    # 4 trials, 2 steps of 10 images, in a median of 1 second.
    assert describe_speed([1.0, 2.0, 1.0], WORKLOAD, (1e11, 1e10))["images_per_second"] == 80


def test_writes_the_tables_and_keeps_the_prose(folder):
    _report(folder, "--check", status=1)
    _report(folder)
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith("# Ours\n") and text.endswith("after\n") and "old" not in text
    assert "### Some Device" in text
    assert "| torch |" in text and "2.50 (2.25–2.75)x" in text
    assert "torch_compile (no compiler)" in text
    assert "| 2 | out of memory |" in text and "2.00 (1.50–2.50)" in text
    _report(folder, "--check")


def test_a_missing_marker_is_an_error():
    with pytest.raises(ValueError, match="once each"):
        report.replace_between_markers("no markers", "new")


def test_the_readme_in_the_repository_is_up_to_date():
    results, readme = ROOT / "benchmarks" / "results", ROOT / "benchmarks" / "README.md"
    run_script("report.py", "--check", f"--results={results}", f"--readme={readme}")


def test_the_shipped_lowerings_are_what_the_results_say():
    run_script("ship.py", "--check")
