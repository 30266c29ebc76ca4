"""`python -m compseg.train`: train a CompSegNet, extract its segmenter, evaluate it and write the report."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from compseg.config import verb
from compseg.faults import StopSignals, run_lock
from compseg.sweeps import run_job, was_pruned


@verb("train", sweep_job=run_job)
def main(cfg: DictConfig) -> None:
    """Train a CompSegNet from sample labels, extract its segmenter, evaluate it and write the report."""
    from pytorch_lightning.utilities import rank_zero_only

    from compseg.monitor import Dashboards
    from compseg.report import judge
    from compseg.training import train

    run = Path(HydraConfig.get().runtime.output_dir)
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    signals = StopSignals(run)
    with signals.caught(), nullcontext() if rank else run_lock(run), Dashboards.of(cfg.logger) as dashboards:
        device = train(cfg, run, signals, dashboards)
        if device and cfg.evaluate and not was_pruned(run):
            split = "test" if cfg.test else "val"
            found = judge(run, device=device, split=split, report=cfg.report)
            dashboards.results(found.metrics, run / "figures")
        dashboards.segmenter(run / "segmenter")  # with its threshold, if it was evaluated


if __name__ == "__main__":
    main()
