"""Two real processes over gloo: one run folder, the same evaluation, and the same learning as one process."""

from __future__ import annotations

import pytest
import torch

from running import history_of, succeed, tiny

# Without dropout and batch statistics, two devices with half the batch are one device with the whole. Plain gradient
# descent, for optimizers that divide by a gradient's size make much of rounding where a gradient is next to nothing.
SAME = (
    "method=paper2020",
    "trainer.max_epochs=3",
    "evaluate=false",
    "optimizer=rmsprop",
    "optimizer._target_=torch.optim.SGD",
    "optimizer.lr=0.5",
    "scheduler=constant",
    "model.norm=none",
)


@pytest.mark.slow
def test_two_processes_leave_one_run(trained, tmp_path):
    run = tmp_path / "run"
    printed = succeed("train", *tiny(trained.cohort, run, "trainer.devices=2", "data.batch_size=4"))
    assert len(history_of(run)) == 2
    assert (run / "report.html").is_file()
    assert printed.count("report: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", ["objective.loss=rmse", "+regulariser=[mean_teacher,turn_consistency,spectral_crf]"], ids=["rmse", "looks"]
)
def test_two_devices_learn_what_one_does(trained, tmp_path, more):
    weights = {}
    for devices, batch in ((1, 8), (2, 4)):
        run = tmp_path / str(devices)
        succeed(
            "train",
            *tiny(
                trained.cohort,
                run,
                *SAME,
                more,
                f"trainer.devices={devices}",
                f"data.batch_size={batch}",
            ),
        )
        weights[devices] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, one in weights[1].items():
        torch.testing.assert_close(weights[2][name], one, atol=1e-5, rtol=1e-5)
    assert history_of(tmp_path / "1")[-1]["val/loss"] == pytest.approx(
        history_of(tmp_path / "2")[-1]["val/loss"], abs=1e-5
    )
