"""`python -m compseg.sweep_report outputs/SWEEP`: table, pictures and importances of a sweep, finished or running."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from compseg.config import verb


@verb("sweep_report")
def main(cfg: DictConfig) -> None:
    """Sum up a sweep: every job with what was swept and its metrics, the importance of each key, and pictures.

    Writes sweep.csv, sweep.md, sweep.png and sweep.html into its folder.

    python -m compseg.sweep_report outputs/SWEEP
    """
    from compseg.studies import summarise

    sweep = Path(cfg.dir)
    summarise(sweep, cfg.rank_by)
    print(sweep / "sweep.md")


def named(arguments: Sequence[str]) -> list[str]:
    """The command line with `dir=` put before a folder that is given without a key."""
    if arguments and arguments[0][:1] not in ("", "-", "+", "~") and "=" not in arguments[0]:
        return [f"dir={arguments[0]}", *arguments[1:]]
    return list(arguments)


if __name__ == "__main__":
    sys.argv[1:] = named(sys.argv[1:])
    main()
