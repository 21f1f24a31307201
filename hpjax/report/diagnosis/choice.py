"""Rules on the choice: is the winner better, was the search lucky, was pruning fair, does the test agree."""

import math

import numpy as np

from hpjax.report.curves import label_setting
from hpjax.report.diagnosis import noise
from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.runs import Run, Sweep
from hpjax.store.settings import SettingRow

LEAST_TRIALS = 10  # fewer say nothing about what another search would find
LUCKY_LEAD = 0.01  # of accuracy, between the best trial and the fourth: less is no matter
AHEAD_SHARE = 0.2  # of the pruned trials: some are ahead by chance, or pruned when few had come so far
LEAST_AHEAD = 3
AHEAD = 1.28  # errors of the difference: each trial alone is ahead with 90 % confidence
MOST_SEEDS = 20  # that are worth running to tell two settings apart


def winner_within_noise(sweep: Sweep) -> Finding | None:
    """Says that chance could explain the winner's lead, and how many seeds or images would decide."""
    winner, rival = _find_rival(sweep)
    if winner is None or rival is None:
        return None
    if len(winner.trials) > 1 and rival.noise_p is not None:
        return _compare_seeds(sweep, winner, rival) if rival.could_win else None
    return _compare_once(sweep, winner, rival)


def _find_rival(sweep: Sweep) -> tuple[SettingRow | None, SettingRow | None]:
    """Returns the winner and the setting that is second; of those with seeds, if the winner has."""
    winner = next((row for row in sweep.settings if row.winner), None)
    if winner is None:
        return None, None
    ranked = [
        (row, found.mean)
        for row in sweep.settings
        if not row.winner and (found := row.ranked(sweep.facts.ranking)) is not None and not row.lost
    ]
    compared = [pair for pair in ranked if pair[0].noise_p is not None]
    small = sweep.trials[0].prefers_small(sweep.facts.ranking.metric)
    order = min if small else max
    return winner, order(compared or ranked, key=lambda pair: pair[1], default=(None,))[0]


def _compare_seeds(sweep: Sweep, winner: SettingRow, rival: SettingRow) -> Finding | None:
    ours, theirs = (_by_seed(sweep, row) for row in (winner, rival))
    pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if len(pairs) < 2:
        return None
    better, low, high = noise.superiority(pairs)
    mean, sd = float(np.mean(pairs)), float(np.std(pairs, ddof=1))
    needed = noise.seeds_to_decide(mean, sd) if mean > 0 and sd > 0 else None
    return Finding(
        "winner_within_noise",
        "info",
        f"Seeds alone could explain that {_name(sweep, winner)} leads {_name(sweep, rival)}: it is better "
        f"with {better:.0%} of the seeds ({low:.0%} to {high:.0%} at 95 % confidence).",
        _advise(needed, f"{needed} seeds"),
        {
            "settings": [winner.setting, rival.setting],
            "seeds": len(pairs),
            "p_better": better,
            "p_better_low": low,
            "p_better_high": high,
            "mean_difference": mean,
            "p_value": rival.noise_p,
            "seeds_to_decide": needed,
        },
    )


def _advise(seeds: int | None, needed: str) -> str:
    if seeds is None or seeds > MOST_SEEDS:
        return "Take the cheaper one: they are as good as equal."
    return f"Take the cheaper one, or sweep the two again with sweep.seeds={seeds}: {needed} would decide."


def _by_seed(sweep: Sweep, row: SettingRow) -> dict[int, float]:
    runs = sweep.runs_of(row)
    return {run.trial.seed_index: sweep.score(run) for run in runs if sweep.score(run) > -math.inf}


def _compare_once(sweep: Sweep, winner: SettingRow, rival: SettingRow) -> Finding | None:
    ours, theirs = (_mean_accuracy(sweep, row) for row in (winner, rival))
    if ours is None or theirs is None or not sweep.images:
        return None
    difference = ours - theirs
    of_images = math.hypot(noise.image_sd(ours, sweep.images), noise.image_sd(theirs, sweep.images))
    of_seeds = math.sqrt(2) * (sweep.seed_sd or noise.assumed_seed_sd(ours))
    error = noise.CONFIDENCE_Z * math.hypot(of_images, of_seeds)
    if abs(difference) >= error:
        return None
    images = seeds = None
    if difference > 0:
        images = math.ceil(sweep.images * (noise.CONFIDENCE_Z * of_images / difference) ** 2)
        seeds = noise.seeds_to_decide(difference, of_seeds)
    rivals = _count_rivals(sweep, ours, error)
    needed = f"about {images:,} {sweep.split} images and {seeds} seeds" if images else ""
    return Finding(
        "winner_within_noise",
        "info",
        f"Chance could explain that {_name(sweep, winner)} ({ours:.4g}) leads {_name(sweep, rival)} "
        f"({theirs:.4g}): with {sweep.images:,} {sweep.split} images and one seed each, differences "
        f"have an error of ±{error:.2g} at 95 % confidence, and {rivals} {_settings(rivals)} that close.",
        _advise(seeds, needed),
        {
            "settings": [winner.setting, rival.setting],
            "accuracies": [ours, theirs],
            "images": sweep.images,
            "error_95": error,
            "error_95_of_images": noise.CONFIDENCE_Z * of_images,
            "settings_within_noise": rivals,
            "expected_luck": noise.expected_luck(rivals + 1) * math.hypot(of_images, of_seeds) / math.sqrt(2),
            "images_to_decide": images,
            "seeds_to_decide": seeds,
        },
    )


def _settings(count: int) -> str:
    return "other setting is" if count == 1 else "other settings are"


def _mean_accuracy(sweep: Sweep, row: SettingRow) -> float | None:
    runs = [run for run in sweep.runs_of(row) if not run.trial.diverged]
    found = [value for run in runs if (value := sweep.accuracy(run)) is not None]
    return float(np.mean(found)) if found else None


def _count_rivals(sweep: Sweep, best: float, reach: float) -> int:
    """Returns how many other settings are no more than `reach` less accurate than the best."""
    means = [_mean_accuracy(sweep, row) for row in sweep.settings if not row.winner and not row.lost]
    return sum(best - mean < reach for mean in means if mean is not None)


def lucky_search(sweep: Sweep) -> Finding | None:
    """Says that the best of many trials stands alone: another search as long would likely end lower.

    The band is that of the best of as many trials drawn again from those that there were: with 95 %
    confidence no lower than the fourth of them, since exp(-3) is 5 %.
    """
    if sweep.facts.sampler == "grid" or sweep.facts.population or not sweep.images:
        return None
    whole = [run for run in sweep.runs if run.trial.status == "complete" and run.trial.seed_index == 0]
    found = sorted((a for run in whole if (a := sweep.accuracy(run)) is not None), reverse=True)
    if len(found) < LEAST_TRIALS or sweep.winner is None:
        return None
    lead, reach = found[0] - found[3], noise.CLEAR * math.sqrt(2) * sweep.noise(sweep.winner)
    if lead < max(LUCKY_LEAD, reach):
        return None
    return Finding(
        "lucky_search",
        "info",
        f"The best of {len(found)} trials stands alone with {found[0]:.4g}; the fourth has {found[3]:.4g}. "
        f"Another search of as many would end between the two 19 times in 20.",
        "Good settings are rare in this space: narrow it around the best trial and search there.",
        {"best": found[0], "second": found[1], "band_low": found[3], "trials": len(found)},
    )


def unfair_pruning(sweep: Sweep) -> Finding | None:
    """Says that many pruned trials were ahead of the winner at the epoch where they ended."""
    winner = sweep.winner
    pruned = [run for run in sweep.runs if run.trial.status == "pruned" and len(run)]
    if winner is None or winner.trial.status != "complete" or sweep.facts.population:
        return None
    ahead = [run for run in pruned if _is_ahead(sweep, run, winner)]
    if len(ahead) < max(LEAST_AHEAD, AHEAD_SHARE * len(pruned)):
        return None
    epoch = int(np.median([run.epochs[-1] for run in ahead]))
    return Finding(
        "unfair_pruning",
        "warning",
        f"{len(ahead)} of {len(pruned)} pruned trials were clearly ahead of the winner when they ended "
        f"(about epoch {epoch}): how a trial starts doesn't say how it ends here.",
        "Prune later: pruner_options' min_resource (successive_halving) or n_warmup_steps (median) of about "
        f"{min(2 * epoch + 1, len(winner))}.",
        {"ahead": len(ahead), "pruned": len(pruned), "epoch": epoch, "winner": winner.trial.trial},
    )


def _is_ahead(sweep: Sweep, run: Run, winner: Run) -> bool:
    """Returns whether a run was beyond noise more accurate than the winner was at the same epoch."""
    return len(run) < len(winner) and sweep.lead(run, winner) > AHEAD


def selection_not_confirmed(sweep: Sweep) -> Finding | None:
    """Says that the winner does worse on the test images than on those that selected it."""
    images = sweep.facts.images.get("test", 0)
    setting = next((row for row in sweep.settings if row.winner), None)
    if sweep.split != "validation" or setting is None or not images or not sweep.images:
        return None
    pairs = [pair for run in sweep.runs_of(setting) if (pair := _tested(sweep, run))]
    if not pairs:
        return None
    selected, tested = (float(np.mean(values)) for values in zip(*pairs, strict=True))
    sd = math.hypot(noise.image_sd(selected, sweep.images), noise.image_sd(tested, images))
    of_images = noise.image_sd(selected, sweep.images)
    rivals = _count_rivals(sweep, selected, noise.CONFIDENCE_Z * math.sqrt(2) * of_images)
    luck = noise.expected_luck(rivals + 1) * of_images
    drop = selected - tested
    if drop < luck + noise.CLEAR * sd:
        return None
    return Finding(
        "selection_not_confirmed",
        "warning",
        f"The winner's accuracy is {selected:.4g} on the {sweep.images:,} validation images but {tested:.4g} "
        f"on the {images:,} test images: {drop / sd:.0f} times the error of that difference, and more than "
        "selecting the best explains.",
        "Trust the test accuracy; look whether the two sets come from the same source, and hold out more "
        "(data.validation_fraction).",
        {
            "validation_accuracy": selected,
            "test_accuracy": tested,
            "error": sd,
            "explained_by_selection": luck,
            "validation_images": sweep.images,
            "test_images": images,
        },
    )


def _tested(sweep: Sweep, run: Run) -> tuple[float, float] | None:
    test, selected = run.trial.final_test_accuracy, sweep.accuracy(run)
    return None if test is None or selected is None or not math.isfinite(test) else (selected, test)


def _name(sweep: Sweep, row: SettingRow) -> str:
    return label_setting(row.hyperparameters, sweep.facts.names) or f"setting {row.setting}"
