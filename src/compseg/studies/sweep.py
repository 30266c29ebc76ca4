"""A sweep: what Hydra makes of `compseg.train -m`, a job for each combination of values or each trial of a search."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from compseg.config import check_targets
from compseg.errors import CompsegError
from compseg.run_folder import refuse_other_kind
from compseg.studies.countdown import Countdown
from compseg.studies.page import Writer, summarise
from compseg.studies.record import DONE, Record, read_record, refuse_another, swept_keys
from compseg.studies.runner import Foreground, Job, Where, run_jobs
from compseg.studies.slots import device_count

LOG = logging.getLogger("compseg")


def run_job(cfg: DictConfig) -> float | None:
    """Run the current job of a sweep unless it is finished already, and record how it ends.

    Training continues from the last epoch of an earlier try, unless `trainer.resume` is given. The configuration
    is not yet checked, because an error in it is the job's own.

    Returns:
        The metric that ranks, by which a sweeper goes; NaN if the job has failed, None without evaluation.

    Raises:
        CompsegError: If the folder holds a job with other values, or there is no such metric.
    """
    job = job_of(HydraConfig.get(), cfg)
    list(run_jobs([job], Foreground(), is_finished))
    return result_of(job)


def run_numbered(
    loader: ConfigLoader, config: DictConfig, jobs: Iterable[tuple[int, Sequence[str]]], where: Where
) -> Iterator[tuple[int, JobReturn]]:
    """Run jobs given by number and overrides; yield number and outcome of each in the order in which they end.

    A job is taken only when there is room for it. Meanwhile table and picture of the sweep are kept up to date.
    """
    # A launcher of Hydra's own does so too; before it, no handler shows the lines of the sweep.
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    composed: dict[Path, tuple[int, DictConfig]] = {}
    writer, countdown = writer_of(config), Countdown(number_of_jobs(config))

    def job_by_job() -> Iterator[Job]:
        for number, overrides in jobs:
            hydra, job = _compose(loader, config, number, overrides)
            composed[job.folder] = number, hydra
            yield job

    for job in run_jobs(job_by_job(), where, is_finished):
        number, hydra = composed.pop(job.folder)
        outcome = JobReturn(overrides=job.overrides, hydra_cfg=hydra, status=JobStatus.COMPLETED)
        outcome.return_value = result_of(job)
        writer.soon()
        LOG.info("sweep: %s", countdown.one_more())
        yield number, outcome


def job_of(hydra: HydraConf, cfg: DictConfig, label: str = "") -> Job:
    """A job from its composed configuration, and from Hydra's own part of it, which names the job's folder."""
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    return Job(
        folder=folder,
        overrides=tuple(overrides),
        command=tuple(command_of(hydra, folder, overrides)),
        cwd=str(hydra.runtime.cwd),
        devices=device_count(cfg.trainer.devices),
        label=label,
        rank_by=str(cfg.evaluation.rank_by) if cfg.evaluation.split != "none" else None,
    )


def command_of(hydra: HydraConf, folder: Path, overrides: Sequence[str]) -> list[str]:
    """The command line that runs a job alone, in its folder of the sweep."""
    sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    says_how = any(item.lstrip("+").startswith("trainer.resume=") for item in overrides)
    return [
        *("-m", "compseg.train", f"--config-name={hydra.job.config_name}"),
        *(f"--config-dir={path}" for path in sources),
        *hydra.overrides.hydra,
        *overrides,
        *([] if says_how else ["trainer.resume=auto"]),
        # After the sweep's own overrides, among which Hydra puts hydra.mode=MULTIRUN.
        "hydra.mode=RUN",
        f"hydra.job.num={hydra.job.num}",
        # By folder and number a job of a search finds its trial in the study.
        f'hydra.sweep.dir="{os.path.abspath(hydra.sweep.dir)}"',  # noqa: PTH100 (of a text)
        f'hydra.run.dir="{folder}"',
    ]


def is_finished(job: Job) -> bool:
    """Whether nothing is left to do in a job.

    Raises:
        CompsegError: If the folder holds a job with other values.
    """
    refuse_another(job.folder, job.overrides, "hydra.sweep.dir")
    record = read_record(job.folder)
    return record.status == "pruned" or (record.status == "finished" and (bool(record.metrics) or not job.rank_by))


def result_of(job: Job) -> float | None:
    """The metric that a sweeper goes by: NaN where the job failed or was pruned, None without evaluation.

    Raises:
        CompsegError: If there is no such metric.
    """
    record = read_record(job.folder)
    if record.status != "finished":
        return float("nan")
    return record.metric(job.rank_by) if job.rank_by else None


def _compose(loader: ConfigLoader, config: DictConfig, number: int, overrides: Sequence[str]) -> tuple[DictConfig, Job]:
    """Hydra's part of a job's configuration, and the job."""
    cfg = loader.load_sweep_config(config, list(overrides))
    with open_dict(cfg):
        cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)  # `${hydra:...}` is answered from there
    try:
        folder = os.path.join(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)  # noqa: PTH118 (of texts)
        with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
            cfg.hydra.runtime.output_dir = os.path.abspath(folder)  # noqa: PTH100
        own = [item for item in overrides if item not in config.hydra.overrides.task]
        return OmegaConf.masked_copy(cfg, "hydra"), job_of(cfg.hydra, cfg, " ".join(own) or f"job {number}")
    finally:
        HydraConfig.instance().cfg = before


class SweepCallback(Callback):
    """Writes table and picture of a sweep; the process ends with exit code 1 if jobs are not finished."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Let a sweep that is told to end (`kill`, a queue's time limit) end its job too."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            refuse_other_kind(Path(config.hydra.sweep.dir), "a sweep", "hydra.sweep.dir")
            refuse_unread_in(config)
        except CompsegError as error:
            sys.exit(f"compseg train: {error}")  # as below, an exception would be a warning
        self.writer, self.countdown = writer_of(config), Countdown(number_of_jobs(config))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep table and picture up to date where Hydra runs one job after the other."""
        del job_return
        if config.hydra.mode == RunMode.MULTIRUN:  # a job's own process has this callback too
            self.writer.soon()
            LOG.info("sweep: %s", self.countdown.one_more())

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write table and picture for the last time."""
        # Hydra reports an exception that leaves a callback as a warning, and ends with exit code 0.
        try:
            sweep = Path(config.hydra.sweep.dir)
            records = summarise(sweep, config.evaluation.rank_by)
        except CompsegError as error:
            sys.exit(f"compseg train: {error}")
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        LOG.info("sweep: %s", sweep / "sweep.md")
        if any(record.status not in DONE for record in records):
            sys.exit(f"compseg train: {problem_of(sweep, records)}")


def refuse_unread_in(config: DictConfig) -> None:
    """Refuse a sweep in which a job is given a value that can have no effect in it, before the first job.

    Raises:
        CompsegError: There is one.
    """
    from compseg.training.unread import refuse, unread  # late, for it brings torch along

    loader = GlobalHydra.instance().config_loader()
    for overrides in jobs_to_check(config.hydra.overrides.task):
        try:
            job = loader.load_sweep_config(config, overrides)
            cfg = OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])
            check_targets(cfg)
            found = list(unread(cfg))
        except (HydraException, OmegaConfBaseException, CompsegError):  # an error in a job is the job's own
            continue
        refuse(overrides, found, job.hydra)


def jobs_to_check(arguments: Sequence[str]) -> list[list[str]]:
    """Overrides of jobs of a sweep: every combination of names, but of numbers each beside the first of the others."""
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    values = [[f"{item.get_key_element()}={value}" for value in values_in(item)] for item in parsed]
    combined = [given if all(map(_is_name, given)) else given[:1] for given in values]
    jobs = list(map(list, itertools.product(*combined)))
    for place, given in enumerate(values):
        jobs += [[*jobs[0][:place], value, *jobs[0][place + 1 :]] for value in given[len(combined[place]) :]]
    return jobs


def number_of_jobs(config: DictConfig) -> int:
    """Of a search as many as it has trials, else every combination of what was given."""
    if (trials := config.hydra.sweeper.get("n_trials")) is not None:
        return int(trials)
    given = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    return math.prod(len(values_in(item)) for item in given)


def values_in(item: Override) -> list[str]:
    """The values that an override gives, one at least; of a range of numbers its beginning."""
    if not item.is_sweep_override():
        return [str(item.input_line).partition("=")[2]]
    sweep = item.value()
    return [str(sweep.start)] if isinstance(sweep, IntervalSweep) else list(item.sweep_string_iterator())


def _is_name(override: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*", override.partition("=")[2]) is not None


def problem_of(sweep: Path, records: Sequence[Record]) -> str:
    """One line: which jobs are not finished, why, and how to try them again."""
    keys = swept_keys(records)
    bad = [record for record in records if record.status not in DONE]
    words = [
        f"{record.name} ({' '.join(f'{key}={record.overrides.get(key)}' for key in keys)}): "
        f"{record.why or record.status}"
        for record in bad
    ]
    fix = f"the same command with hydra.sweep.dir={sweep} tries them again"
    return f"{len(bad)} of {len(records)} jobs not finished: {'; '.join(words)}; {fix}"


def writer_of(config: DictConfig) -> Writer:
    """Keeps table and picture of a sweep up to date."""
    return Writer(lambda: summarise(Path(config.hydra.sweep.dir), config.evaluation.rank_by))
