"""A job of a sweep runs as a process of its own, with the command line that would run it alone.

What a job leaves behind in a process (memory of the GPU, seeds, loggers) then cannot touch the next one, and a job that
is killed takes nothing along. It is also what makes several devices work: Lightning starts the other ranks with the
command line it finds, and that of a sweep would start the whole sweep again on each.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from compseg.sweeps.jobs import complaint_in, figure_of, read_job, recorded_overrides, refuse_another, write_record

LOG = logging.getLogger("compseg")

_RANKS = re.compile(
    r"LOCAL_RANK|NODE_RANK|GROUP_RANK|RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_.*|PL_GLOBAL_SEED|PL_SEED_WORKERS"
)


def run_job(cfg: DictConfig) -> float | None:
    """Run the current job of a sweep unless it is finished already, and write down how it went.

    Training goes on from the last epoch of an earlier attempt, unless `trainer.resume` says otherwise.

    Args:
        cfg: `conf/train.yaml`, composed for this job; not yet checked, for a fault is the job's own.

    Returns:
        The figure `rank_by`, which an optimiser goes by; NaN if the job has failed, None without evaluation.

    Raises:
        CompsegError: If the folder holds a job with other values, or `rank_by` names no figure.
    """
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    refuse_another(folder, overrides, "hydra.sweep.dir")
    if _finished(folder, with_figures=cfg.evaluate):
        LOG.info("%s: finished already", folder)
    elif not _attempt(folder, overrides):
        return float("nan")
    return figure_of(read_job(folder), cfg.rank_by) if cfg.evaluate else None


def _finished(folder: Path, *, with_figures: bool) -> bool:
    if recorded_overrides(folder) is None:
        return False
    job = read_job(folder)
    return job.status == "finished" and (job.figures is not None or not with_figures)


def _attempt(folder: Path, overrides: Sequence[str]) -> bool:
    write_record(folder, overrides, "started")
    start = time.monotonic()
    code, complaint = _run(command_of(folder, overrides), _environment(os.environ))
    status = "failed" if code else "finished"
    why = "" if not code else f"ended by signal {-code}" if code < 0 else complaint or f"exit code {code}"
    write_record(folder, overrides, status, why, round(time.monotonic() - start, 1))
    return not code


def command_of(folder: Path, overrides: Sequence[str]) -> list[str]:
    """The command line that runs a job alone, in its folder of the sweep."""
    hydra = HydraConfig.get()
    sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    resume = (
        [] if any(item.lstrip("+").startswith("trainer.resume=") for item in overrides) else ["trainer.resume=auto"]
    )
    return [
        *(sys.executable, "-m", "compseg.train", f"--config-name={hydra.job.config_name}"),
        *(f"--config-dir={path}" for path in sources),
        *hydra.overrides.hydra,
        *overrides,
        *resume,
        "hydra.mode=RUN",
        f'hydra.run.dir="{folder}"',
    ]


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """Without what Lightning may have left there: the job would take itself for one of several ranks."""
    return {name: value for name, value in given.items() if not _RANKS.fullmatch(name)}


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command, its output shown as it comes; its exit code and its last complaint."""
    cwd = HydraConfig.get().runtime.cwd
    lines = [""]
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        # A thread, and no wait for the end of the stream: a rank that hangs may hold it open.
        copying = threading.Thread(target=_copy, args=(process.stderr, lines), daemon=True)
        copying.start()
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        copying.join(timeout=5)
    return code, lines[0]


def _copy(stream: IO[str], complaint: list[str]) -> None:
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        complaint[0] = complaint_in(line) or complaint[0]


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
