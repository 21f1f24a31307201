"""The benchmark of all systems, at tiny sizes: that each trains the same trials, not how fast."""

import json

import pytest
from scripts import run_script
from systems.fleet import Child, child_environment
from systems.system import Unavailable
from systems.workload import Workload

PEERS = ["torch", "torch_func"]


def run_epoch_time(tmp_path, systems, *more):
    out = tmp_path / "result.json"
    shape = ["--model=custom_cnn", "--image_size=40", "--batch_size=4", "--lanes=2", "--steps=2"]
    run_script(
        "epoch_time.py", *shape, "--repeats=2", f"--systems={','.join(systems)}", f"--out={out}", *more
    )
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return run_epoch_time(tmp_path_factory.mktemp("ours"), ["fused", "sequential"])


@pytest.mark.landing
def test_hpjax_trains_the_same_trials_in_every_layout(ours):
    assert ours["losses"]["hpjax_systems"] == ["fused", "sequential"]
    # Two steps from the same weights; sums are taken in another order.
    assert ours["losses"]["largest_relative_difference"] < 1e-5
    assert all(ours["losses"]["finite"].values())
    first, second = ours["systems"]["fused"]["first_losses"]
    assert first != second


@pytest.mark.landing
def test_every_repeat_of_every_system_is_kept(ours):
    assert [len(ours["systems"][name]["seconds"]) for name in ("fused", "sequential")] == [2, 2]
    assert set(ours["ratios"]) == {"fused / sequential", "sequential / fused"}
    assert ours["ratios"]["fused / sequential"]["n"] == 2
    assert ours["ceilings"]["flops"] > 0 and ours["ceilings"]["bytes_per_second"] > 0


@pytest.mark.landing
def test_says_where_and_with_what(ours):
    assert ours["benchmark"] == "epoch_time"
    assert ours["argv"][0] == "epoch_time.py"
    assert ours["device"] and ours["cores"] >= 1
    assert {"python", "jax", "jaxlib", "flax", "torch", "numpy"} <= set(ours["versions"])
    assert ours["settings"]["lanes"] == 2 and ours["settings"]["image_size"] == 40


@pytest.mark.benchmark
@pytest.mark.torch
def test_peers_train_too(tmp_path):
    result = run_epoch_time(tmp_path, PEERS)
    for name in PEERS:
        assert result["losses"]["finite"][name], result["systems"][name]
        assert len(result["systems"][name]["first_losses"]) == 2


@pytest.mark.landing
def test_a_system_that_fails_is_reported_with_the_reason(tmp_path):
    # No network is left of 20 pixels.
    result = run_epoch_time(tmp_path, ["fused"], "--image_size=20")
    assert "data.image_size=20 is not allowed" in result["systems"]["fused"]["unavailable"]
    assert result["ratios"] == {}


def test_what_takes_too_long_leaves_with_the_reason(tmp_path):
    workload = Workload("custom_cnn", 40, 4, 2, "float32", 2, folder=str(tmp_path))
    child = Child("fused", workload, child_environment(on_gpu=False))
    child.set_timeout(0.0)
    with pytest.raises(Unavailable, match="no answer within 0 seconds"):
        child.prepare()
    child.close()
