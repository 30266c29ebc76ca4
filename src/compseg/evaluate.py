"""`python -m compseg.evaluate run=outputs/RUN`: judge a run.

Fit the threshold, measure, and write maps, figures and the report anew.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from compseg.config import verb


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Judge a trained run: threshold from validation samples, figures of merit and report from test samples."""
    from compseg.report import judge

    judge(Path(cfg.run), cfg.cohort, cfg.device, test=cfg.test, report=cfg.report)


if __name__ == "__main__":
    main()
