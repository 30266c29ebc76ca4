"""The last epoch is drawn however training ends, and a training of unknown length is not drawn in each."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import Callback

from compseg.monitor.previews import EpochPreviews
from running import run_here, tiny
from signalled import signal_at

QUIET = ("evaluation.split=none", "scheduler=constant", "trainer.enable_progress_bar=false")


@pytest.mark.parametrize("length", [-1, None])
@pytest.mark.parametrize(
    ("every", "loggers", "epochs"), [("auto", (), []), ("auto", ("wandb",), [4, 9]), (4, (), [3, 7, 11]), (0, (), [])]
)
def test_a_training_of_unknown_length_has_a_rhythm(length, every, loggers, epochs):
    pictures = EpochPreviews(every)
    at = [SimpleNamespace(max_epochs=length, current_epoch=epoch, loggers=loggers) for epoch in range(12)]
    assert [trainer.current_epoch for trainer in at if pictures._due(trainer)] == epochs


class StopAfterThree(Callback):
    """As early stopping does: after previews have looked at the epoch."""

    def on_validation_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 2


def drawn(run) -> list[str]:
    return sorted(path.name for path in (run / "figures" / "epochs").glob("gallery_*"))


@pytest.mark.parametrize("length", [-1, 8])
def test_the_last_epoch_is_drawn_when_training_ends_early(trained, tmp_path, length):
    stop = f"+callbacks.stop._target_={__name__}.StopAfterThree"
    arguments = tiny(trained.cohort, tmp_path / "run", *QUIET, f"trainer.max_epochs={length}", stop)
    assert run_here("train", *arguments) == 0
    assert drawn(tmp_path / "run") == ["gallery_0002.png"]


@pytest.mark.parametrize(("length", "pictures"), [(-1, ["gallery_0000.png"]), (8, [])])
def test_a_signal_is_an_end_only_where_there_is_no_other(trained, tmp_path, length, pictures):
    """A training that has an end of its own is to be resumed."""
    stop = signal_at(signal.SIGTERM, epoch=1, step=1)
    arguments = tiny(trained.cohort, tmp_path / "run", *QUIET, f"trainer.max_epochs={length}", stop)
    assert run_here("train", *arguments) == 128 + signal.SIGTERM
    assert drawn(tmp_path / "run") == pictures


def test_a_schedule_that_needs_a_length_says_so(trained, tmp_path, capfd):
    arguments = tiny(trained.cohort, tmp_path / "run", "trainer.max_epochs=-1", "evaluation.split=none")
    assert run_here("train", *arguments) == 1
    assert "scheduler=OneCycleLR: needs the length of training, which has none; give trainer.max_epochs" in (
        capfd.readouterr().err
    )
