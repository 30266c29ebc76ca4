"""How a job of a sweep is started, skipped, refused and written down; what it runs is exchanged for something small."""

import json
import math
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.conf import ConfigSourceInfo
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from compseg.config import conf_dir
from compseg.config.schema import register_schemas
from compseg.errors import CompsegError
from compseg.sweeps import launch, run_job
from compseg.sweeps.attempt import Attempt, without_ranks
from compseg.sweeps.jobs import read_job

OVERRIDES = ["model=unet", "head.alpha=0.05"]


@pytest.fixture
def hydra(tmp_path):
    """Hydra's own configuration as it is inside a job."""
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*OVERRIDES, "hydra.mode=MULTIRUN", "hydra/help=default"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.job.num, cfg.hydra.job.id = 0, "0"
        cfg.hydra.runtime.output_dir = str(tmp_path / "sweep" / "0")
        cfg.hydra.runtime.cwd = str(tmp_path)
        cfg.hydra.runtime.config_sources.append(ConfigSourceInfo("/own", "file", "command-line"))
    HydraConfig.instance().set_config(cfg)
    yield cfg.hydra
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


@pytest.fixture
def run(hydra, tmp_path, monkeypatch):
    """Runs the job with a Python program in place of training; counts its runs."""
    started = []

    def run_program(program, **settings):
        def command(hydra, folder, overrides):
            return [sys.executable, "-c", program, str(folder)]

        class Counted(Attempt):
            def __init__(self, folder, *more, **options):
                started.append(folder)
                super().__init__(folder, *more, **options)

        monkeypatch.setattr(launch, "command_of", command)
        monkeypatch.setattr(launch, "Attempt", Counted)
        trainer = {"devices": 1}
        return run_job(OmegaConf.create({"rank_by": "val/loss", "evaluate": True, "trainer": trainer, **settings}))

    run_program.started = started
    run_program.folder = tmp_path / "sweep" / "0"
    return run_program


GOOD = "import sys, pathlib; pathlib.Path(sys.argv[1], 'metrics.json').write_text('{\"val/loss\": 0.25}')"


def test_a_job_gives_its_figure_and_is_not_run_twice(run):
    assert run(GOOD) == 0.25
    job = read_job(run.folder)
    assert (job.status, job.overrides) == ("finished", {"model": "unet", "head.alpha": "0.05"})
    assert run("raise SystemExit(1)") == 0.25
    assert len(run.started) == 1


def test_a_job_without_figures_is_run_again_unless_none_are_wanted(run):
    assert run("", evaluate=False) is None
    assert run("", evaluate=False) is None
    assert len(run.started) == 1
    assert run(GOOD) == 0.25


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; sys.exit('compseg train: no cohort')", "no cohort"),
        ("raise ValueError('of two\\nlines')", "ValueError: of two"),
        ("import json.nope", "ModuleNotFoundError: No module named 'json.nope'"),
        ("import sys; print('Error, of a sort', file=sys.stderr); sys.exit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
    ],
)
def test_a_failed_job_says_why_and_is_tried_again(run, capfd, program, why):
    assert math.isnan(run(program))
    job = read_job(run.folder)
    assert (job.status, job.why) == ("failed", why)
    assert run(GOOD) == 0.25
    assert read_job(run.folder).why == ""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 15)", "sys.exit(128 + 12)", "sys.exit(130)"])
def test_a_job_that_was_told_to_end_is_unfinished_even_if_it_has_figures(run, end):
    assert math.isnan(run(f"{GOOD}; import os; {end}"))
    job = read_job(run.folder)
    assert job.status == "unfinished"
    assert job.why.startswith("stopped by SIG")
    assert run(GOOD) == 0.25
    assert read_job(run.folder).status == "finished"


def test_what_the_job_says_is_passed_on(run, capfd):
    run("import sys; print('epoch 0'); print('mind this', file=sys.stderr)", evaluate=False)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("epoch 0\n", "mind this\n")


def test_a_folder_of_another_job_is_left_alone(run):
    run(GOOD)
    record = run.folder / "job.json"
    other = {**json.loads(record.read_text()), "overrides": ["model=segnet", "head.alpha=0.05"]}
    record.write_text(json.dumps(other))
    with pytest.raises(CompsegError, match=r"holds another job \(model=segnet\).*hydra\.sweep\.dir"):
        run(GOOD)
    assert json.loads(record.read_text()) == other


def test_an_unknown_figure_ends_the_sweep(run):
    with pytest.raises(CompsegError, match="rank_by=dice: no such figure; figures: val/loss"):
        run(GOOD, rank_by="dice")


def test_the_command_is_that_of_the_job_alone(hydra, tmp_path):
    command = launch.command_of(hydra, tmp_path / "a b", OVERRIDES)
    assert command[1:4] == ["-m", "compseg.train", "--config-name=train"]
    assert "--config-dir=/own" in command
    assert command[-7:-3] == [*OVERRIDES, "trainer.resume=auto", "hydra.mode=RUN"]
    assert command[-3] == "hydra.job.num=0"
    assert command[-1] == f'hydra.run.dir="{tmp_path}/a b"'
    assert command.index("hydra.mode=MULTIRUN") < command.index("hydra.mode=RUN")


def test_resuming_is_left_to_the_user_who_says_how(hydra, tmp_path):
    command = launch.command_of(hydra, tmp_path, ["trainer.resume=null"])
    assert [item for item in command if "resume" in item] == ["trainer.resume=null"]


def test_the_job_does_not_take_itself_for_a_rank():
    ranks = dict.fromkeys(
        ["LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED", "SLURM_NTASKS"], "1"
    )
    kept = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    assert without_ranks({**ranks, **kept}) == kept
