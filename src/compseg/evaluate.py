"""`python -m compseg.evaluate run=outputs/RUN`: judge a run, on its own cohort or on another."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from compseg.api import make_callable
from compseg.config import verb


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Judge a trained run: metrics, maps and report of test samples, or of another cohort in a folder of its own.

    python -m compseg.evaluate run=outputs/RUN
    python -m compseg.evaluate run=outputs/RUN cohort=data/other_clinic.zarr
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.report.judge import judge

    judge(
        Path(cfg.run),
        cfg.cohort,
        cfg.device,
        split=cfg.split,
        threshold=cfg.threshold,
        report=cfg.report,
        uncertainty=cfg.uncertainty,
        beside=None if cfg.beside is None else Path(cfg.beside),
        trust=tuple(cfg.trust),
        out=None if cfg.out is None else Path(cfg.out),
    )


make_callable(__name__)
if __name__ == "__main__":
    main()
