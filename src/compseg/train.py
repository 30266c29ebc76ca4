"""`python -m compseg.train`: train a CompSegNet, extract its segmenter, evaluate it and write the report."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from compseg.api import make_callable
from compseg.config import verb
from compseg.faults import StopSignals, run_lock
from compseg.log import rank
from compseg.studies import is_job, run_job, was_pruned


@verb("train", sweep_job=run_job, announces=True)
def main(cfg: DictConfig) -> None:
    """Train a CompSegNet from sample labels, extract its segmenter, evaluate it and write the report.

    python -m compseg.train
    python -m compseg.train data=cohort data.path=data/mine.zarr
    """
    from compseg.inference.building import targets_of
    from compseg.monitor import Dashboards
    from compseg.run_folder import refuse_another_run
    from compseg.training import refuse_unread, train

    hydra = HydraConfig.get()
    run = Path(hydra.runtime.output_dir)
    if not is_job(run):  # a study checks what was given for all of its jobs
        refuse_unread(cfg, hydra.overrides.task, hydra)
        if not rank():
            refuse_another_run(run, cfg.trainer.get("resume"), overwrite=cfg.overwrite)
    signals, judged = StopSignals(run), cfg.evaluation
    with signals.caught(), nullcontext() if rank() else run_lock(run), Dashboards.of(cfg.logger) as dashboards:
        device = train(cfg, run, signals, dashboards)
        if device is not None and judged.split != "none" and not was_pruned(run):
            from compseg.report.judge import judge  # as late, so that training does not wait for it

            # What the user has composed is trusted; a run folder that somebody else has written is not.
            trust = targets_of(OmegaConf.to_container(cfg, resolve=False))
            found = judge(
                run, device=device, split=judged.split, threshold=judged.threshold, report=judged.report, trust=trust
            )
            dashboards.results(found.metrics, run / "figures")
        dashboards.segmenter(run / "segmenter")  # with its threshold, if it was evaluated


make_callable(__name__)
if __name__ == "__main__":
    main()
