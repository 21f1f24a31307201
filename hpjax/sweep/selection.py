"""The winner: chosen once, run with its further seeds, and judged on the test split at the end."""

import logging
import math

import jax

from hpjax.config.hyperparameters import apply_hyperparameters
from hpjax.errors import CheckpointError
from hpjax.lanes.group import evaluate_weights
from hpjax.lanes.rules import create_loss_rule
from hpjax.store.rows import TrialRow
from hpjax.store.settings import SettingRow, find_winner
from hpjax.sweep.session import Session
from hpjax.tasks import LOSS
from hpjax.train.scores import measure

log = logging.getLogger("hpjax")


def find_setting(session: Session) -> SettingRow | None:
    """Returns the setting that wins; None if none was measured."""
    return find_winner(session.stores.records.trials(), session.spec.ranking)


def select_winner(session: Session) -> None:
    """Lets the winner's further seeds wait for their turn; once, however often the sweep is continued."""
    sweep, tally = session.spec.config.sweep, session.tally
    winner = find_setting(session)
    if not sweep.final_seeds or tally.final_setting is not None or winner is None:
        return
    tally.final_setting = winner.setting
    for seed_index in range(sweep.seeds, sweep.seeds + sweep.final_seeds):
        session.stores.queue.add(session.stores.study.ask_again(winner.setting, seed_index))


def read_test(session: Session) -> None:
    """Reads the test split for all trials of the setting that validation selected, once each.

    What an earlier winner gave, of a sweep that was extended, doesn't count any more.
    """
    winner = find_setting(session)
    if session.spec.tests_each_epoch or winner is None:
        return
    for trial in session.stores.records.trials():
        if trial.trial not in winner.trials:
            if trial.final_test_loss is not None:
                session.stores.records.forget_test(trial.trial)
        elif not trial.diverged and trial.final_test_loss is None:
            _test(session, trial)


def forget_kept(session: Session) -> None:
    """Removes what was kept for the test alone, or of fewer epochs, once a kill can't undo anything more."""
    weights, states = session.stores.weights, session.stores.states
    tested = not session.spec.config.checkpoint.keep and weights.trials()
    if tested or states.has_others:
        session.save(block=True)
    if tested:
        weights.clear()
    states.forget_others()


def _test(session: Session, trial: TrialRow) -> None:
    stores = session.stores
    if trial.trial not in stores.weights.trials():
        log.warning("trial %d isn't tested: its weights weren't kept", trial.trial)
        session.tally.not_tested.append(trial.trial)
        return
    try:
        weights = stores.weights.load(trial.trial)[0]
    except CheckpointError as error:  # the sweep is worth finishing without
        log.warning("%s: trial %d has no test accuracy", error, trial.trial)
        session.tally.not_tested.append(trial.trial)
        return
    swept = {name: value for name, value in trial.hyperparameters.items() if name in session.spec.space.names}
    config = apply_hyperparameters(session.spec.config, swept)
    sums = evaluate_weights(config, session.datasets.load(config), weights, trial.seed)
    rule = create_loss_rule(config, session.datasets.load(config))
    measured = measure(rule, jax.device_get(sums))
    loss, accuracy = measured.pop(LOSS), measured.pop("accuracy", None)
    more = {f"test_{name}": value for name, value in measured.items()}
    stores.records.set_test(trial.trial, math.nan if loss is None else loss, accuracy, more)
