"""How much of a difference chance makes: of test images, of seeds, of having tried many settings."""

import math
from collections.abc import Sequence

import numpy as np

# Two runs of one setting in the article's records end 2.2 points apart at an error of 22 points, its curves
# scatter by about half a point at an error of 20: a twentieth of the error lies between. Only where one seed
# was run: replicates say it themselves.
ASSUMED_SEED_SHARE = 0.05
CONFIDENCE_Z = 1.96  # 95 %, two-sided
POWER_Z = 0.84  # 80 %: how sure it is to be that the seeds that are proposed decide
CLEAR = 3.0  # standard deviations that count as a difference: rules look at many pairs at once


def image_sd(accuracy: float, images: int) -> float:
    """Returns the standard deviation of an accuracy on so many images (binomial, Agresti and Coull's p)."""
    if images <= 0:
        return math.inf
    share = (accuracy * images + 2) / (images + 4)  # of one wrong in none, the plain formula says no noise
    return math.sqrt(share * (1 - share) / images)


def assumed_seed_sd(accuracy: float) -> float:
    """Returns what another seed is taken to change where only one was run."""
    return ASSUMED_SEED_SHARE * (1 - accuracy)


def jitter(values: np.ndarray) -> float:
    """Returns how much a curve scatters around its trend, from its second differences, robustly.

    Those of white noise on a straight line have 6 times its variance.
    """
    second = np.diff(values[np.isfinite(values)], 2)
    if len(second) < 4:
        return 0.0
    return float(1.4826 * np.median(np.abs(second - np.median(second))) / math.sqrt(6))


def pooled_sd(groups: Sequence[Sequence[float]], least: int = 4) -> float | None:
    """Returns the standard deviation within groups; None with fewer than `least` degrees of freedom."""
    freedom = sum(len(group) - 1 for group in groups if group)
    if freedom < least:
        return None
    squares = sum(float(np.sum((np.asarray(group) - np.mean(group)) ** 2)) for group in groups if group)
    return math.sqrt(squares / freedom)


def expected_luck(count: int) -> float:
    """Returns by how many standard deviations the best of so many equals leads on average.

    Blom's approximation of the largest normal order statistic.
    """
    if count < 2:
        return 0.0
    from scipy import stats

    return float(stats.norm.ppf((count - 0.375) / (count + 0.25)))


def superiority(differences: Sequence[float]) -> tuple[float, float, float]:
    """Returns P(A > B) of paired differences A - B with its 95 % interval (Wilson), ties as halves."""
    from scipy import stats

    wins = sum(1.0 if value > 0 else 0.5 if value == 0 else 0.0 for value in differences)
    found = stats.binomtest(math.floor(wins), len(differences)).proportion_ci(method="wilson")
    high = stats.binomtest(math.ceil(wins), len(differences)).proportion_ci(method="wilson").high
    return wins / len(differences), float(found.low), float(high)


def seeds_to_decide(difference: float, sd: float) -> int:
    """Returns how many seeds of each setting show a difference; `sd` is of one paired difference."""
    return max(3, math.ceil(((CONFIDENCE_Z + POWER_Z) * sd / difference) ** 2))
