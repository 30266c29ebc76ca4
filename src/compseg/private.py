"""The private attributes of other packages that compseg depends on, in one place.

`tests/test_private.py` has a test for each, which says what breaks when it changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial


def open_trial(study: Study, trial: FrozenTrial) -> Trial:
    """A running trial as an object that reports to its study; only the process that asked for it has one otherwise."""
    from optuna import Trial

    return Trial(study, trial._trial_id)
