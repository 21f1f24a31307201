"""The study's page says what its runs say."""

import json

import numpy as np
import pytest
import study_page
from PIL import Image
from scripts import run_script


def _epochs(train, test, accuracy):
    rows = zip(train, test, accuracy, strict=True)
    return [{"train_loss": a, "test_loss": b, "test_accuracy": c, "seconds": 1.0} for a, b, c in rows]


def _run(experiment, name, value, epochs, seed=0):
    return {
        "experiment": experiment,
        "setting": {name: value},
        "seed": seed,
        "epochs": epochs,
        "test_images": 3000,
        "train_images": 14039,
        "image_size": 150,
        "device": "Some Device",
        "versions": {"jax": "1.2.3"},
    }


@pytest.fixture
def runs():
    down, up = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0], [0.2, 0.3, 0.4, 0.5, 0.55, 0.6]
    overfit = [0.20, 0.21, 0.25, 0.26, 0.30, 0.33]
    bounce = [1.2, 0.8, 1.3, 0.9, 2.0, 1.0]
    good = [0.90, 0.91, 0.92, 0.92, 0.92, 0.92]
    return [
        _run("lr", "learning_rate", 1e-7, _epochs(down, down, up)),
        _run("lr", "learning_rate", 1e-4, _epochs(down[:5] + [0.1], overfit, good)),
        _run("lr", "learning_rate", 1e-2, _epochs(down, bounce, up[:5] + [0.65])),
        *(
            _run("batch", "batch_size", 10, _epochs(down, down, up[:5] + [a]), s)
            for s, a in enumerate((0.80, 0.84))
        ),
        _run("batch", "batch_size", 450, _epochs(down, down, up[:5] + [0.77])),
        _run("wd", "weight_decay", 0.01, _epochs(down, down, up[:5] + [0.78])),
        _run("wd", "weight_decay", 1.0, _epochs(down, down, [0.2] * 6)),
    ]


@pytest.fixture
def recorded():
    return json.loads(study_page.RECORDED.read_text("utf-8"))


def test_each_conclusion_is_judged_on_the_runs(runs, recorded):
    assert [c.holds for c in study_page.conclude(study_page.gather(runs, recorded))] == [True] * 5

    spoilt = {  # a run's setting, what its epochs become, and which conclusion no longer holds
        (1e-2, 1): lambda e: [{**x, "test_accuracy": 0.95} for x in e],
        (1e-7, 2): lambda e: [{**x, "test_loss": 3 - x["test_loss"]} for x in e],
        (450, 3): lambda e: [{**x, "test_accuracy": 0.9} for x in e],
        (1.0, 4): lambda e: [{**x, "test_accuracy": 0.7} for x in e],
        (1e-7, 5): lambda e: [{**x, "test_accuracy": 0.91} for x in e],
    }
    for (value, number), change in spoilt.items():
        changed = [
            {**run, "epochs": change(run["epochs"])} if value in run["setting"].values() else run
            for run in runs
        ]
        if number == 5:  # neither of the bad rates is bad any more
            changed = [
                {**r, "epochs": change(r["epochs"])} if 1e-2 in r["setting"].values() else r for r in changed
            ]
        found = study_page.conclude(study_page.gather(changed, recorded))
        assert not found[number - 1].holds, number


def test_a_conclusion_without_its_runs_is_left_open(runs, recorded):
    found = study_page.conclude(study_page.gather([r for r in runs if r["experiment"] == "wd"], recorded))
    assert [c.holds for c in found] == [None, None, None, True, None]


def test_a_settings_interval_is_of_seeds_or_of_the_test_set(runs, recorded):
    ten, most = study_page.gather(runs, recorded)["batch"]
    mean, reach = ten.final()
    # scipy.stats.t.interval(0.95, 1, loc=0.82, scale=0.02): half of it is 12.7062 standard errors
    assert (mean, reach) == pytest.approx((0.82, 12.7062 * 0.02), rel=1e-4)
    assert most.final() == pytest.approx((0.77, 1.96 * np.sqrt(0.77 * 0.23 / 3000)))


def test_the_last_batchs_excess_is_taken_out_of_recorded_losses():
    """Against the article's loop: batches of 4 of 10 images, each batch's mean loss times 4, over 10."""
    losses = np.full(10, 0.7)
    over_counted = sum(4 * losses[i : i + 4].mean() for i in range(0, 10, 4)) / 10
    run = {"batch_size": 4, "epochs": _epochs([over_counted], [over_counted], [0.5])}
    (epoch,) = study_page.correct_losses(run, train_images=10, test_images=10)
    assert epoch["train_loss"] == epoch["test_loss"] == pytest.approx(0.7)
    assert epoch["test_accuracy"] == 0.5


def test_the_page_and_the_readmes_table_hold_the_numbers(runs, recorded, tmp_path):
    begin, end = study_page.BEGIN, study_page.END
    (tmp_path / "README.md").write_text(f"before\n{begin}\nold\n{end}\nafter\n", "utf-8")
    study_page.write(runs, tmp_path)
    page = (tmp_path / "docs" / "study.md").read_text("utf-8")
    assert "| 10 | 2 | 0.820 ± 0.254 | 0.824 |" in page
    for name in ("lr", "batch", "wd"):
        assert f"(study/{name}.png)" in page
        assert Image.open(tmp_path / "docs" / "study" / f"{name}.png").size[0] > 1000
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert "10: **0.820** (0.824) · 450: 0.770 (0.770)" in readme and "old" not in readme


def test_the_page_says_which_weights_the_runs_start_from(runs, recorded):
    sha256 = recorded["from_other_weights"]["sha256"]
    weights = {"name": "some.safetensors", "sha256": sha256, "note": "of somebody's"}
    given = [run | {"weights": weights} if run["experiment"] == "lr" else run for run in runs]
    page = study_page.render(given, recorded)
    assert page.count(f"start from `some.safetensors` (SHA-256 `{sha256[:16]}…`): of somebody's.") == 1
    assert "ends at 0.528 (test loss 1.322) at 1e-7" in page
    other = [run | {"weights": weights | {"sha256": "0" * 64}} for run in given]
    assert "0.528" not in study_page.render(other, recorded)


def test_what_is_committed_is_what_the_runs_say(tmp_path):
    results = study_page.ROOT / "benchmarks" / "results" / "study.json"
    if not results.exists():
        pytest.skip("the study has not been run")
    (tmp_path / "README.md").write_text((study_page.ROOT / "README.md").read_text("utf-8"), "utf-8")
    study_page.write(json.loads(results.read_text("utf-8")), tmp_path)
    for name in ("README.md", "docs/study.md"):
        assert (tmp_path / name).read_text("utf-8") == (study_page.ROOT / name).read_text("utf-8")


@pytest.mark.exhaustive
def test_it_runs_an_experiment_and_collects_it_once(tmp_path):
    random = np.random.default_rng(0)
    for split, images in (("seg_train", 4), ("seg_test", 2)):
        for label in ("forest", "sea"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(images):
                pixels = random.integers(0, 255, (38, 38, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{number}.png")
    out = tmp_path / "study.json"
    flags = [
        "--full",
        f"--dir={tmp_path / 'data'}",
        f"--runs={tmp_path / 'runs'}",
        f"--out={out}",
        "--only=wd",
    ]
    flags += ["--image_size=38", "--epochs=2", "--seeds=3", "--set=train.batch_size=4"]
    run_script("study.py", *flags)
    first = out.read_text("utf-8")
    runs = json.loads(first)
    assert [run["setting"] for run in runs] == [{"weight_decay": 0.01}, {"weight_decay": 1.0}]
    assert {run["seed"] for run in runs} == {3} and {run["workdir"] for run in runs} == {"wd_seed3"}
    assert all(
        len(run["epochs"]) == 2 and run["train_images"] == 8 and run["test_images"] == 4 for run in runs
    )
    run_script("study.py", *flags, "--torch=wd=1")
    *again, torch = json.loads(out.read_text("utf-8"))
    assert [run["epochs"] for run in again] == [run["epochs"] for run in runs]
    same = ("experiment", "setting", "seed", "train_images", "test_images", "image_size", "device")
    assert [torch[name] for name in same] == [runs[1][name] for name in same]
    assert torch["framework"] == "torch" and [len(e) for e in torch["epochs"]] == [4, 4]
    assert all(0 < e["train_loss"] < 10 and 0 <= e["test_accuracy"] <= 1 for e in torch["epochs"])


def test_pytorchs_runs_stand_beside_ours_and_count_as_none_of_them(runs, recorded):
    torch = _run("wd", "weight_decay", 1.0, _epochs([1.7, 1.6], [1.7, 1.6], [0.333, 0.321]))
    settings = study_page.gather([*runs, torch | {"framework": "torch"}], recorded)
    assert [len(setting.seeds) for setting in settings["wd"]] == [1, 1]
    assert study_page.conclude(settings) == study_page.conclude(study_page.gather(runs, recorded))
    page = study_page.render([*runs, torch | {"framework": "torch"}], recorded)
    (row,) = [line for line in page.splitlines() if line.startswith("| 1 | 1 |")]
    assert row.endswith("| 0.321 |") and page.count("`PyTorch here` is") == 1
    assert "end at 0.779 at 256 and 0.792 at 450." in page
    ends = "weight decay 1 end at 0.200 (hpjax); 0.321 (PyTorch here); 0.245 (recorded)"
    assert f"{ends}; an epoch earlier they had 0.200 (hpjax); 0.333 (PyTorch here); 0.269 (recorded)." in page
    assert "PyTorch's own ends lie 0.076 apart." in page and "Single runs of batch size" not in page
