"""What the winner makes of the test images, for the page: once, at the end, from the kept weights."""

import base64
import io
import math

import numpy as np
from scipy.special import softmax

from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.data.dataset import Split
from hpjax.lanes.group import predict_weights
from hpjax.report.style import leaving_out
from hpjax.store.judged import Judged, Mistake
from hpjax.store.rows import TrialRow
from hpjax.store.settings import find_winner
from hpjax.store.workdir import WINNER_NAME
from hpjax.sweep.session import Session
from hpjax.tasks import CLASSES, kind_of

MOST_MISTAKES = 12  # that are shown
SIDE = 96  # pixels of a picture
SMALL = 32  # pixels: images up to that size are kept as they are


def judge_winner(session: Session) -> None:
    """Writes `winner.json`; where the weights weren't kept, or anything fails, there is none."""
    with leaving_out(WINNER_NAME):
        trial = _choose(session)
        if trial is not None:
            _judge(session, trial).save(session.workdir.path)


def _choose(session: Session) -> TrialRow | None:
    """Returns the best of the winning setting's trials whose weights are there; None of other tasks."""
    if kind_of(session.spec.config.task.loss) != CLASSES:
        return None
    trials, ranking = session.stores.records.trials(), session.spec.ranking
    winner, kept = find_winner(trials, ranking), set(session.stores.weights.trials())
    found = [trial for trial in trials if winner and trial.trial in winner.trials and trial.trial in kept]
    return ranking.find_best(found)


def _judge(session: Session, trial: TrialRow) -> Judged:
    swept = {name: value for name, value in trial.hyperparameters.items() if name in session.spec.space.names}
    config = apply_hyperparameters(session.spec.config, swept)
    dataset = session.datasets.load(config)
    weights = session.stores.weights.load(trial.trial)[0]
    logits = predict_weights(config, dataset, weights, trial.seed)
    return judge(trial.trial, logits, dataset.test, len(dataset.classes))


def judge(trial: int, logits: np.ndarray, test: Split, classes: int) -> Judged:
    """Returns what logits of the test examples say, with pictures of the most confident mistakes.

    Of examples that are no images of bytes, no mistakes are shown.
    """
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    labels, predicted = np.asarray(test.labels), probabilities.argmax(axis=1)
    pairs, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    sure = probabilities[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero((labels != predicted) & np.isfinite(sure) & _are_pictures(test.images))
    chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]
    mistakes = [
        Mistake(int(i), int(labels[i]), int(predicted[i]), round(float(sure[i]), 4), _draw(test.images[i]))
        for i in chosen
    ]
    rows = np.concatenate([pairs, counts[None]]).T
    return Judged(trial, classes, [[int(value) for value in row] for row in rows], mistakes)


def _are_pictures(examples: np.ndarray) -> bool:
    return examples.dtype == np.uint8 and examples.ndim == 4 and examples.shape[-1] in (1, 3)


def _draw(image: np.ndarray) -> str:
    """Returns an image as a small file in base64: JPEG, or PNG where it has few pixels anyway."""
    from PIL import Image

    grey = image.shape[-1] == 1
    picture, file = Image.fromarray(np.asarray(image[..., 0] if grey else image)), io.BytesIO()
    small = math.prod(picture.size) <= SMALL**2
    if not small:
        picture.thumbnail((SIDE, SIDE))
    picture.save(file, "PNG" if small else "JPEG", **({} if small else {"quality": 80}))
    return base64.b64encode(file.getvalue()).decode()
