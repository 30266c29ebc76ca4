"""What job folders tell, and who holds a run folder."""

import multiprocessing
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.errors import CompsegError
from compseg.faults import is_locked, run_lock
from compseg.studies.record import (
    natural,
    read_record,
    read_records,
    refuse_another,
    swept_keys,
    was_pruned,
    write_record,
)
from running import HANGS


def test_every_state_is_told_apart(sweep):
    jobs = read_records(sweep)
    assert [job.name for job in jobs] == ["0", "1", "2", "10"]
    assert [job.status for job in jobs] == ["finished", "failed", "unfinished", "finished"]
    assert [job.epochs for job in jobs] == [9, 0, 3, 9]
    assert [job.seconds for job in jobs] == [12.5, 12.5, None, 12.5]
    assert jobs[1].why == "cohort: gone | away"
    assert jobs[3].metrics == {"val/loss": 0.25, "test/dice_mean": 0.5, "test/dice_mean_ci_low": 0.4}


def test_keys_that_differ_were_swept(sweep):
    assert swept_keys(read_records(sweep)) == ["model", "head.alpha"]


def test_of_one_job_every_key_is_shown(add_job):
    folder = add_job("0", ["+experiment=paper", "model=unet"])
    assert swept_keys([read_record(folder)]) == ["experiment", "model"]


def test_a_job_that_outlived_its_sweep_is_finished_once_it_is_judged(add_job):
    assert read_record(add_job("0", ["seed=1"], "started", metrics={"val/loss": 1.0})).status == "finished"


def test_a_failed_report_outweighs_metrics(add_job):
    assert (
        read_record(add_job("0", ["seed=1"], "failed", metrics={"val/loss": 1.0}, why="disk full")).status == "failed"
    )


def test_values_keep_their_equals_signs(add_job):
    job = read_record(add_job("0", ["source.classes={a: 1}", "name=a=b"]))
    assert job.overrides == {"source.classes": "{a: 1}", "name": "a=b"}


def test_jobs_may_lie_deeper(add_job, tmp_path):
    add_job("unet/alpha 1", ["a=1"])
    assert [job.name for job in read_records(tmp_path / "sweep")] == ["unet/alpha 1"]


def test_a_folder_without_jobs_is_no_sweep(tmp_path):
    with pytest.raises(CompsegError, match="no sweep"):
        read_records(tmp_path)
    assert read_record(tmp_path).status == "waiting"
    assert not was_pruned(tmp_path)


def test_an_unknown_metric_names_the_known_ones(sweep):
    with pytest.raises(CompsegError, match=r"rank_by=val/lss: no such metric; metrics: val/loss, test/dice_mean$"):
        read_records(sweep)[0].metric("val/lss")


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False)))
def test_numbers_sort_as_numbers(numbers):
    assert sorted(map(repr, numbers), key=natural) == sorted(map(repr, numbers), key=float)


@given(st.lists(st.text()))
def test_any_texts_can_be_sorted(texts):
    assert sorted(sorted(texts, key=natural)) == sorted(texts)


def hold(folder, held, enough):
    with run_lock(folder):
        held.set()
        enough.wait(HANGS)


def test_a_locked_folder_is_running_until_its_process_dies(add_job):
    folder = add_job("0", ["seed=1"], "started")
    assert not is_locked(folder)
    context = multiprocessing.get_context("spawn")
    held, enough = context.Event(), context.Event()
    process = context.Process(target=hold, args=(folder, held, enough))
    process.start()
    try:
        assert held.wait(HANGS)
        assert read_record(folder).status == "running"
        with pytest.raises(CompsegError, match="another process is training"), run_lock(folder):
            pass
    finally:
        process.kill()
        process.join()
    assert read_record(folder).status == "unfinished"
    (folder / "checkpoints").mkdir()
    left = folder / "checkpoints" / f".last.ckpt.{'0' * 32}.partial"
    left.write_bytes(b"what it was writing when it was killed")
    with run_lock(folder):
        assert not left.exists()


def test_training_works_without_locks(tmp_path, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    (tmp_path / ".run.lock").touch()
    with run_lock(tmp_path):
        assert not is_locked(tmp_path)


def test_a_folder_with_another_run_is_left_alone(tmp_path):
    folder = tmp_path / "c" / "unet" / "mean" / "seed_0"
    write_record(folder, ["method=mean", "seed=0"], "finished")
    refuse_another(folder, ["seed=0", "method=mean"], "out")
    with pytest.raises(CompsegError, match=r"holds another job \(method=mean\).*another out"):
        refuse_another(folder, ["seed=0", "method=max"], "out")


def test_the_room_imports_nothing_heavy():
    """Every training run imports it."""
    heavy = ["torch", "pytorch_lightning", "optuna", "pandas", "plotly", "submitit", "matplotlib", "sklearn", "scipy"]
    program = f"import sys, compseg.studies; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
