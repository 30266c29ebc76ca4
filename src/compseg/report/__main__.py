"""`python -m compseg.report runs=[A,B]`: judged runs side by side on one page."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from compseg.config import verb


@verb("report")
def main(cfg: DictConfig) -> None:
    """Lay judged runs side by side: metrics with paired differences, settings, curves, and maps of the same samples.

    python -m compseg.report runs=[outputs/A,outputs/B] out=side_by_side.html
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.report.side_by_side import write_side_by_side

    print(f"report: {write_side_by_side([Path(run) for run in cfg.runs], Path(cfg.out))}")


if __name__ == "__main__":
    main()
