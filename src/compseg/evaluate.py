"""`python -m compseg.evaluate run=outputs/RUN`: judge a run.

Fit the threshold, compute the metrics, and write maps, pictures and the report again.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from compseg.config import verb


@verb("evaluate")
def main(cfg: DictConfig) -> None:
    """Judge a trained run: threshold from validation samples, metrics and report from test samples."""
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.report import judge

    judge(Path(cfg.run), cfg.cohort, cfg.device, split=cfg.split, report=cfg.report, trust=tuple(cfg.trust))


if __name__ == "__main__":
    main()
