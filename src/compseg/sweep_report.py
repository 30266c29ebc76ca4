"""`python -m compseg.sweep_report dir=outputs/SWEEP`: table and picture of a sweep, finished, running or killed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from compseg.config import verb


@verb("sweep_report")
def main(cfg: DictConfig) -> None:
    """Sum up a sweep: every job with what was swept and its figures, as table (csv, md) and picture."""
    from compseg.sweeps import summarise

    sweep = Path(cfg.dir)
    summarise(sweep, cfg.rank_by)
    print(sweep / "sweep.md")


if __name__ == "__main__":
    main()
