"""Jobs by way of submitit: what SLURM is told, and a job that is preempted and continues."""

import os
import signal
import stat
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from compseg.config import conf_dir
from compseg.config.verbs import register
from compseg.errors import CompsegError
from compseg.studies.record import read_record
from compseg.studies.runner import Job, run_jobs
from compseg.studies.slurm import SlurmQueue
from running import HANGS


def launcher(*overrides):
    """The launcher's settings as the command line makes them."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        arguments = ["hydra/launcher=slurm", "hydra/help=default", "hydra.mode=MULTIRUN", *overrides]
        cfg = compose("train", arguments, return_hydra_config=True)
    GlobalHydra.instance().clear()
    settings = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert settings.pop("_target_") == "hydra_plugins.compseg_plugins.SlurmLauncher"
    return settings


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """An sbatch that keeps what it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "srun": "",
        "sacct": "echo",
        "sbatch": f'cp "$1" {tmp_path}/batch.sh; echo Submitted batch job 7',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "batch.sh"


def spec(folder: Path, program: str) -> Job:
    return Job(folder, ("seed=1",), ("-c", program, str(folder)), str(folder.parent), rank_by="val/loss")


def test_what_slurm_is_told(tmp_path, fake_slurm):
    settings = launcher(
        "hydra.launcher.parameters.gpus_per_node=4",
        "hydra.launcher.parameters.slurm_partition=gpu",
        "+hydra.launcher.parameters.slurm_additional_parameters={mail-type: END}",
        "hydra.launcher.parameters.timeout_min=90",
    )
    queue = SlurmQueue(str(tmp_path / "sweep"), **settings)
    queue.start(spec(tmp_path / "sweep" / "0", ""))
    lines = [line for line in fake_slurm.read_text().splitlines() if line.startswith("#SBATCH")]
    asked = {line.removeprefix("#SBATCH --") for line in lines}
    assert {"gpus-per-node=4", "partition=gpu", "mail-type=END", "time=90", "nodes=1", "ntasks-per-node=1"} <= asked
    assert {"signal=USR2@120", "job-name=compseg"} <= asked
    assert read_record(tmp_path / "sweep" / "0").status == "unfinished"  # in the queue: nobody is at it yet
    assert not any(line.startswith("mem") for line in asked)


def test_no_more_in_the_queue_than_told(tmp_path, fake_slurm):
    queue = SlurmQueue(str(tmp_path / "sweep"), **launcher("hydra.launcher.jobs=2"))
    for number in range(2):
        assert queue.has_room()
        queue.start(spec(tmp_path / "sweep" / str(number), ""))
    assert not queue.has_room()


def test_an_unknown_parameter_and_no_slurm(tmp_path, monkeypatch):
    with pytest.raises(CompsegError, match=r"hydra/launcher=slurm: .*nonsense"):
        SlurmQueue(str(tmp_path), **launcher("hydra.launcher.cluster=local", "+hydra.launcher.parameters.nonsense=1"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CompsegError, match=r"hydra/launcher=slurm: .*srun"):
        SlurmQueue(str(tmp_path), **launcher())


# Counts in a file; told to stop, it ends as training does.
COUNTS = """
import json, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
at = folder / "at"
begin = int(at.read_text()) if at.exists() else 0
(folder / f"from{begin}").touch()
for i in range(begin, 60):
    at.write_text(str(i + 1)); time.sleep(0.05)
(folder / "metrics.json").write_text(json.dumps({"val/loss": i}))
"""


def test_a_preempted_job_is_put_back_and_continues_in_its_folder(tmp_path):
    queue = SlurmQueue(str(tmp_path / "sweep"), **launcher("hydra.launcher.cluster=local"))
    folder = tmp_path / "sweep" / "0"
    job = queue.start(spec(folder, COUNTS))
    deadline = time.monotonic() + HANGS
    while not (folder / "at").exists() or not (folder / "at").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # The task is the controller's child; SLURM would signal it.
    controller = int(job.submitted.job_id)
    (task,) = map(int, Path(f"/proc/{controller}/task/{controller}/children").read_text().split())
    os.kill(task, signal.SIGUSR2)
    while not job.ended():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = read_record(folder)
    assert (done.status, done.metrics) == ("finished", {"val/loss": 59})
    begun = sorted(int(path.name[4:]) for path in folder.glob("from*"))
    assert len(begun) == 2
    assert begun[1] > 0


def test_a_failed_job_is_recorded_by_itself_and_a_lost_one_by_the_sweep(tmp_path):
    queue = SlurmQueue(str(tmp_path / "sweep"), **launcher("hydra.launcher.cluster=local"))
    lost = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    jobs = [
        spec(tmp_path / "sweep" / "0", "import sys; sys.exit('compseg train: no cohort')"),
        spec(tmp_path / "sweep" / "1", lost),
    ]
    assert len(list(run_jobs(jobs, queue))) == 2
    first, second = (read_record(job.folder) for job in jobs)
    assert (first.status, first.why) == ("failed", "no cohort")
    assert second.status == "failed"
    assert second.why
    assert queue.has_room()
