"""The other benchmarks at tiny sizes: that they measure and write what they say, not how fast."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image
from scripts import run_script
from systems import gpu_programs

SHAPE = ["--model=custom_cnn", "--image_size=40", "--batch_size=4"]


@pytest.mark.benchmark
def test_scaling_has_a_row_for_each_number_of_lanes(tmp_path):
    out = tmp_path / "result.json"
    printed = run_script("scaling.py", *SHAPE, "--lanes=1,2", "--repeats=2", f"--out={out}")
    result = json.loads(out.read_text())
    assert [row["lanes"] for row in result["rows"]] == [1, 2]
    assert result["rows"][1]["memory_bytes"] > result["rows"][0]["memory_bytes"] > 0
    assert all(len(row["samples"]) == 2 and row["compile_seconds"] > 0 for row in result["rows"])
    assert f"knee: {result['knee']} lanes" in printed and result["knee"] in (1, 2)


@pytest.mark.benchmark
@pytest.mark.ray
def test_workers_are_compared_with_one_process(tmp_path):
    out = tmp_path / "result.json"
    tiny = ("--image_size=40", "--examples=40", "--epochs=3", "--lanes=2", "--repeats=1")
    run_script("workers.py", *tiny, f"--out={out}")
    systems = json.loads(out.read_text())["systems"]
    assert len(systems) == 5 and all(row["images_per_second"]["median"] > 0 for row in systems.values())


@pytest.mark.benchmark
def test_startup_starts_a_sweep_with_an_empty_and_a_filled_cache(tmp_path):
    out = tmp_path / "result.json"
    run_script("startup.py", *SHAPE, "--lanes=2", "--strategy=fused", "--repeats=1", f"--out={out}")
    result = json.loads(out.read_text())
    for kind in ("cold", "warm"):
        (start,) = result["starts"][kind]
        assert 0 < start["plan"] < start["first_step"] < start["first_epoch"] < start["end"]
        assert result["first_epoch_seconds"][kind]["n"] == 1


@pytest.mark.usefixtures("promotion_as_users_have_it")
@pytest.mark.parametrize("name", gpu_programs.PROGRAMS)
def test_every_program_that_is_compiled_for_a_gpu_can_be_traced(name):
    work = gpu_programs.Work("custom_cnn", 40, 4, 2, "float32")
    lowered = gpu_programs.PROGRAMS[name](work, lambda shapes: shapes)
    assert lowered.as_text().startswith("module")


@pytest.mark.landing
def test_step_kernels_have_the_time_of_a_step(tmp_path):
    out, text = tmp_path / "result.json", tmp_path / "program.gz"
    run_script("step_kernels.py", *SHAPE, "--lanes=2", "--steps=2", f"--out={out}", f"--text={text}")
    result = json.loads(out.read_text())
    times = [row["us"] for row in result["rows"]]
    assert times == sorted(times, reverse=True) and sum(times) == pytest.approx(result["us_per_step"])
    assert gzip.decompress(text.read_bytes()).startswith(b"HloModule")


@pytest.mark.landing
def test_conv_lowerings_names_the_chosen_one(tmp_path):
    out = tmp_path / "result.json"
    shape = ["--image_size=36", "--batch_size=2", "--lanes=2", "--layers=conv2", "--ops=forward"]
    run_script("conv_lowerings.py", *shape, "--repeats=2", f"--out={out}")
    (row,) = json.loads(out.read_text())["rows"]
    assert row["layer"]["name"] == "conv2" and row["lanes"] == 2
    assert row["chosen"] and len(row["lowerings"]) > 2


@pytest.mark.benchmark
def test_search_time_compares_searches_with_and_without_lanes_and_pruning(tmp_path):
    out = tmp_path / "result.json"
    tiny = ["--image_size=38", "--images=80", "--batch_size=8", "--trials=4", "--epochs=2", "--lanes=2"]
    run_script("search_time.py", *tiny, "--repeats=1", f"--out={out}")
    (searches,) = json.loads(out.read_text())["rounds"]
    assert set(searches) == {"one_by_one", "one_by_one_pruned", "hpjax"}
    for search in searches.values():
        assert search["best"] == search["curve"][-1][1]
        assert 0 < search["curve"][0][0] <= search["curve"][-1][0] <= search["seconds"]
    for peer in ("one_by_one", "one_by_one_pruned"):
        missed = searches["hpjax"]["best"] < searches[peer]["best"]
        assert (searches[peer]["reached"] is None) == missed
    assert out.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.benchmark
def test_checkpoint_cost_compares_a_sweep_that_saves_with_one_that_does_not(tmp_path):
    out = tmp_path / "result.json"
    tiny = [*SHAPE, "--lanes=2", "--steps=2", "--epochs=2", "--repeats=1"]
    run_script("checkpoint_cost.py", *tiny, f"--out={out}")
    result = json.loads(out.read_text())
    (saved,) = result["checkpoints"]
    seconds = result["seconds"]
    assert saved >= 1 and seconds["saving"]["median"] > 0 < seconds["not_saving"]["median"]
    cost = seconds["saving"]["median"] / seconds["not_saving"]["median"] - 1
    assert result["cost"]["median"] == pytest.approx(cost)


@pytest.mark.benchmark
@pytest.mark.torch
def test_accuracy_compares_seeds_with_pytorch(tmp_path):
    out, folder = tmp_path / "result.json", tmp_path / "images"
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 256, (30, 30, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    tiny = ["--image_size=38", "--batch_size=8", "--epochs=1", "--weight_decays=0.01", "--seeds=2"]
    run_script("accuracy.py", f"--dir={folder}", *tiny, f"--out={out}")
    (row,) = json.loads(out.read_text())["rows"]
    for system in (row["hpjax"], row["torch"]):
        assert len(system["values"]) == 2 and all(0 <= value <= 1 for value in system["values"])
    assert row["difference"] == pytest.approx(row["hpjax"]["mean"] - row["torch"]["mean"])


@pytest.mark.benchmark
def test_allocators_take_turns_and_what_is_missing_is_named(tmp_path):
    out = tmp_path / "result.json"
    run_script("allocators.py", "--quick", "--systems=sequential", f"--out={out}", timeout=600)
    rows = json.loads(out.read_text())["rows"]
    assert len({row["name"] for row in rows}) == len(rows) > 4
    for row in rows:
        if row["choice"] != "jemalloc" or "unavailable" not in row:
            assert len(row["systems"]["sequential"]["seconds"]) == 2
    assert rows[0]["systems"]["sequential"]["gain"]["median"] == 1
