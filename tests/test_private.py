"""What compseg needs of other packages' private attributes, each with what breaks when it changes."""

import pytest

from compseg.private import open_trial


def test_a_running_trial_can_be_opened_by_another_process():
    """Without `FrozenTrial._trial_id` a job of a search cannot report its epochs, and no job is pruned."""
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study()
    asked = study.ask()
    (frozen,) = study.get_trials(deepcopy=False)
    trial = open_trial(study, frozen)
    trial.report(0.5, step=3)
    assert trial.number == asked.number
    assert study.trials[0].intermediate_values == {3: 0.5}
